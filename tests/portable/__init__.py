"""Windows' Python on Linux, as far as names and descriptors go: see ``start/``."""
