"""A training with its record: begun, filled, gone on with, trained again."""
