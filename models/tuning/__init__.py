"""The search for a predictor's parameters: what is searched, how a trial is measured, and who runs which."""
