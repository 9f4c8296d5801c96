"""What an image, a lesion and a fold is: sources, store, folds, mixing, the phantom."""

import dermsynth  # noqa: F401 - first, so that no other folder of these names is imported
