"""The phantom: dermoscopy-like images drawn from known factors."""
