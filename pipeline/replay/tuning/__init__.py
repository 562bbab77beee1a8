"""Fair tuning: each policy's settings are searched on one part of the traffic and reported on another."""
