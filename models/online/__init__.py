"""Learning while routing: rows of finished requests in, models that decide out."""
