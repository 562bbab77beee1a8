"""AIBrix's logs, and how their layers are joined."""
