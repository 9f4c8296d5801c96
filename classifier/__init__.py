"""The classifier: backbones, one training loop, metrics, plots."""
