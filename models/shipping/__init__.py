"""The artifact: what a router loads, how it is written, put in place, opened and verified."""
