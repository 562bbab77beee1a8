"""How sure a prediction or a comparison is: quantiles, their calibration, lower bounds, drift, intervals."""
