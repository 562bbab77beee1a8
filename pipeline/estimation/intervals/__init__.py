"""How sure an estimate is: intervals, bootstraps, confidence sequences, and several policies at once."""
