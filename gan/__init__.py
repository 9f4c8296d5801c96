"""The generator: networks, one training loop, generation, evaluation."""
