"""The backend of NVIDIA's GPUs: memory and launches there, tuned kernels, and the rules by which they cover calls."""
