"""Photos in, photos out: one, several with a dial, whole folders."""
