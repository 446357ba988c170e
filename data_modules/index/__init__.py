"""Indexes of input files, made once and memory-mapped: where each document lies in its file, and how long it is."""
