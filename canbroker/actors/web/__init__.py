"""The web page: what is on the buses, in a browser."""
