"""Data sets by name, read and checked; the LightningDataModule."""
