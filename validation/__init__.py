"""Checks of refimpl and costmodel against PyTorch, counted loops and measured runs."""
