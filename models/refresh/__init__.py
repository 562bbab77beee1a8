"""Keeping a model fresh: strategies of refitting, the choice between them, and what remembers how far they came."""
