"""Doubles of vendors' libraries and devices, under python-can's own drivers."""
