"""Operators, one a file: the equations, SHAPES, and one pass for the forward result and for each gradient."""
