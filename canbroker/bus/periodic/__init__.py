"""Periodic sending: the tasks of a bus, in the scheduler or on a thread of this process."""
