"""Estimates from a log beside its replay: one step, what later requests pay, and the gap to the closed loop."""
