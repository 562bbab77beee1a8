"""Latency predictors: fitted, refitted, tuned, tracked, scored and shipped."""
