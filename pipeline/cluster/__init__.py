"""An experiment's runs on a Ray cluster: Ray launches, the experiment's own process keeps every record."""
