"""Imported by gs_usb, which uses nothing of it."""
