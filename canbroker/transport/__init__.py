"""ZeroMQ: the only package that imports it."""
