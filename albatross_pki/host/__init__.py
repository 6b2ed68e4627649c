"""What runs on a host: the supervisor, its state and images, consoles, blocks, bridges and tenders."""
