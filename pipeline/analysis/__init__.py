"""Runs read back, compared, shown."""
