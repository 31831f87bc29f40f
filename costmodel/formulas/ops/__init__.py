"""Costs of the operators, in files of the same names as in `refimpl.ops`; each formula repeats its loop nest."""
