"""One training, from the Trainer to what it leaves."""
