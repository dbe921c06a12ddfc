"""The scheduler actor: one process for the periodic tasks of all clients."""
