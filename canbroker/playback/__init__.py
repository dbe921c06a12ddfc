"""Sends what was recorded, in its time."""
