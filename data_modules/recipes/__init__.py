"""Recipes that turn real data out of ordinary packages into the file layouts that the data modules read."""
