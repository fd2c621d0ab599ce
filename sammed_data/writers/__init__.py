"""Label maps back onto the grid of the file an image was read from."""
