"""What the tuned kernels of methods make the machine do, in files of the methods' names."""
