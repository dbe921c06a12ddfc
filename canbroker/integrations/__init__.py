"""What other packages find by their entry points, and import before anybody uses canbroker."""
