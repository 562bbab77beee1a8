"""The paper's evaluation, by one command."""
