"""Text to columns and records, each bad line with its reason."""
