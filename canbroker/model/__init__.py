"""What a frame, a message and a filter are. No input or output."""
