"""Worlds with known truth: simulated clusters in which every policy can be run for real."""
