"""The demonstration: the main job on simulated hardware, with a ledger at the end."""
