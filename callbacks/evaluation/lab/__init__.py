"""Judges of the small world (`lit_mm.lab`), in which everything that a model draws, writes or imagines has a truth."""
