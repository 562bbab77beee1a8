"""Readings into the store: checked, numbered, whole or not at all."""
