"""Keys of users and brokers, the rights of users, and the files that keep them."""
