"""What makes a CPU fast and changes no number."""
