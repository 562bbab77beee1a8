"""Floor 4: the commands, and the replay of traffic under routing policies."""
