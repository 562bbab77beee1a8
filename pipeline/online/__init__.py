"""The router that learns from its own traffic: the same in the replay and behind HTTP."""
