"""What differs by operating system, and what Python leaves open: clock, locks, descriptors."""
