"""Who may use a broker over the network: keys of users and brokers, and their files."""
