"""Log files of CAN traffic."""
