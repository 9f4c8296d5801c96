"""What an image, a lesion and a fold is: sources, store, folds, mixing, the phantom."""
