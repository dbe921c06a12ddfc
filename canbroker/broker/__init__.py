"""The broker: owns the channels, supervises their processes, tells clients where they are."""
