"""Runs and tables of the papers, at the scale of one machine."""
