"""Lodestar's published network, with its optimiser and its replay buffer."""
