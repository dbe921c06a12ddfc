"""What a person sees of a bus: a table by identifier, its load over time, and metrics."""
