"""`python -m rcod` is the command `rcod`."""

from rcod.cli import main

if __name__ == "__main__":
    main()
