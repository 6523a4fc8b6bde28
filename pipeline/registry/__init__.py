"""A run's network as a version in MLflow, and which of the versions is champion."""
