"""PTX of our kernels, read and run without a GPU, every access to memory checked."""
