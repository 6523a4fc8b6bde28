"""The service: MLflow's protocol, images as files, a page to draw on; it follows the registry's alias."""
