"""Costs of the methods, in files of the same names as in `refimpl.methods`."""
