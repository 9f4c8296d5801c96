"""The dataset card: what it counts and what it shows."""
