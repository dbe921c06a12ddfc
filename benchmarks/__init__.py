"""What sharing an adapter costs, beside what ZeroMQ costs without us. See README.md."""
