"""Share CAN adapters between processes."""
