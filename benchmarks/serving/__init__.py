"""The service under load, malformed requests and moving aliases, beside `mlflow models serve` of the same version."""
