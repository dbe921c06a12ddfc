"""The gateway: one process that lets remote clients reach the sockets of a broker."""
