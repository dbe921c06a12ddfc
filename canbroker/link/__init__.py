"""What a client's bus is made of: finding the broker, receiving, sending, watching the channel."""
