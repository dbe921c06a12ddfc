"""What makes frames arrive, and losses known: routes, numbers, the ring, repair."""
