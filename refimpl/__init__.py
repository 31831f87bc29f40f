"""Train neural networks in NumPy and Numba: explicit forward and backward passes, and no framework."""
