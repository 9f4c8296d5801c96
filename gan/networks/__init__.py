"""One file an architecture, chosen by name."""
