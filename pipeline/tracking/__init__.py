"""A run's own folder: what it records, how that is found again, where its numbers came from."""
