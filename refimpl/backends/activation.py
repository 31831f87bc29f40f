"""The activations that fast kernels apply, as the integers by which they are told."""

NONE, RELU, RELU6 = 0, 1, 2  # in this order: what is above NONE cuts off below 0
