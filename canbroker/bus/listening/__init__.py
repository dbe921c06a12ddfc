"""Notifier and listeners: messages are passed to functions of the user."""
