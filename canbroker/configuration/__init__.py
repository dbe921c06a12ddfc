"""What users configure: the broker's file, what a bus is opened with, adapters that are there."""
