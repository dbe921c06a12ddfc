"""The channel actor: one process, one adapter, a send thread and a recv thread."""
