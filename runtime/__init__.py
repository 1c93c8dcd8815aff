"""Runs the ensemble: the core decides, an engine computes."""
