"""What goes beyond one step: what later requests pay for a decision, tests of two arms, a simulator corrected."""
