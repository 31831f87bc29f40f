"""How a command ends: its exit status, its one JSON object, and the sentence of an error."""

import contextlib
import json
import os
import sys
from enum import IntEnum

from . import limits
from .streams import tell


class Exit(IntEnum):
    """Exit status of every command."""

    DONE = 0
    NO = 1  # the input is valid, the answer is no
    MALFORMED = 2  # malformed input, or an unusable file or folder
    INTERRUPTED = 130


def emit(record: dict) -> None:
    """Print the one JSON object of a command."""
    print(json.dumps(record, indent=1, allow_nan=False))


def forget_output() -> None:
    """Let what stdout still holds go nowhere, or the interpreter fails on it as it ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def refuse(e: Exception, as_json: bool) -> Exit | None:
    """Print the sentence of an expected error and give its exit status; None where the error is a defect of ours."""
    if limits.short_of_memory(e):
        tell(limits.sentence(e))
        return Exit.MALFORMED
    from .errors import MALFORMED, Refused

    if isinstance(e, Refused):
        if as_json:
            emit({**e.record, "ok": False, "reason": str(e)})
        tell(str(e))
        return Exit.NO
    if isinstance(e, MALFORMED):
        tell(str(e))
        return Exit.MALFORMED
    return None
