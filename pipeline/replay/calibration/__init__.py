"""Fit the engine model to what a dataset holds: latencies with decisions, statistics, or neither."""
