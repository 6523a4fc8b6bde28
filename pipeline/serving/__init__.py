"""The service: MLflow's protocol, image files and rows as they are, a page; it follows the registry's alias."""
