"""Notifier and listeners: frames that are handed to functions of the user."""
