"""PyUSB's backends."""
