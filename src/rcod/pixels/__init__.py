"""Files and tensors of pixels: reading, writing, resizing, colour, tiles, scores."""
