"""What a kernel is: declared passes, their loops and cache, threads, geometry, random and symbolic numbers."""
