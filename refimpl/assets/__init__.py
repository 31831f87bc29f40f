"""Data that ships with the package, each file with its licence beside it."""

from importlib.resources import as_file, files
from pathlib import Path


def path(name: str) -> Path:
    """Path of a shipped file. A package that lives in a zip file is not supported: its kernels could not be cached."""
    with as_file(files(__name__) / name) as found:
        return found
