"""Checks of what a caller passes. Each raises ValueError with a sentence: the argument, what is right, what it is."""

import numpy as np

from .kernels import traced


def whole(name: str, value, least: int = 1) -> None:
    """A whole number from `least` up, traced or not."""
    plain = traced.value(value)
    if isinstance(plain, bool) or not isinstance(plain, (int, np.integer)) or plain < least:
        raise ValueError(f"{name} must be a whole number from {least} up, got {plain!r}")


def numbers(**values) -> None:
    """Numbers by name, whatever their size; also those of a formula."""
    for name, value in values.items():
        if value is None or isinstance(value, (str, bytes, bool, list, tuple, dict)):
            raise ValueError(f"{name} must be a number, got {value!r}")


def offers(name: str, value, attribute: str, wanted: str) -> None:
    """An object that has `attribute`, as those do that are `wanted`."""
    if isinstance(value, type) or not hasattr(value, attribute):
        raise ValueError(f"{name} must be {wanted}, got {value!r}")
