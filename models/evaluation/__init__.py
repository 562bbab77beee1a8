"""How good a model is on rows that it has not seen, from every side that a router cares about."""
