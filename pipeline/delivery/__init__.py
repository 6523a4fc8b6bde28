"""The way from run folders into MLflow."""
