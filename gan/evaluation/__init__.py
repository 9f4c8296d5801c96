"""How good a generator is: scores, networks that look, neighbours, drift, the generator card."""
