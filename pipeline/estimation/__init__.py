"""Off-policy estimation for routing: one-step values, their tails, how sure they are, and what goes beyond one step."""
