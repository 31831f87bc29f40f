"""What a command says on stderr; stdout where it is closed or knows few letters. It imports nothing that is slow."""

import contextlib
import os
import sys


def tell(sentence: str) -> None:
    """Print a sentence to stderr; a terminal that is closed, or none, is no reason to end the work."""
    with contextlib.suppress(OSError, ValueError):
        print(f"gradledger: {sentence}", file=sys.stderr, flush=True)


def open_streams() -> None:
    """Let a closed stdin, stdout or stderr be /dev/null, and let stdout take letters that its encoding lacks.

    A file that is opened where stdout was would be written over by the next library that prints.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (it stays open as long as the process)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
