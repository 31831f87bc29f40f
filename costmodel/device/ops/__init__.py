"""What the tuned kernels of operators make the machine do, in files of the kernels' names."""
