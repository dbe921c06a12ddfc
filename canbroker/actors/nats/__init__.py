"""The bridge: publishes channels to NATS JetStream, and sends what is asked for there."""
