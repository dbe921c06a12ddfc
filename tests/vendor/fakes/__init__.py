"""Modules that stand in for others on the path of a channel's process."""
