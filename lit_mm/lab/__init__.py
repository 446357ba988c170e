"""A small world of tiles in which everything can be known: its pictures, and what is true of each of them."""
