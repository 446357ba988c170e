"""One source and one LightningDataModule per kind of data, and the mixture of sources."""
