"""Backbones, heads, first weights, and the classifier made of them."""
