"""Which MLflow it is, whether it can be reached, and how one talks to it."""
