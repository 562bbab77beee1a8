"""Replay: a cluster calibrated from a log, policies that decide in it, gates and estimators that judge."""
