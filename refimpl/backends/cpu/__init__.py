"""Hand-tuned CPU kernels, in files of the same names as in `refimpl.ops` and `refimpl.methods`."""
