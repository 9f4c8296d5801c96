"""From encoded images to square RGB pixels: opening, decoding, cleaning, keeping them as files."""
