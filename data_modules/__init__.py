"""One LightningDataModule per kind of data, and the mixture of them."""
