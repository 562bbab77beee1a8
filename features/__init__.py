"""What a router knows about a candidate when it decides, as numbers."""
