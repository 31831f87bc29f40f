"""The two ways in which a command ends without a result, and their exit status."""

import difflib
from collections.abc import Iterable, Sequence

from refimpl.kernels.cuda_errors import CudaError
from refimpl.kernels.passes import ShapeError
from refimpl.storage.files import InputError, quoted


class Malformed(InputError):
    """The input is malformed, or a file or folder cannot be used: exit status 2."""


class Refused(ValueError):
    """The input is valid and the answer is no: exit status 1. `record` is what `--json` prints beside the reason."""

    def __init__(self, reason: str, record: dict | None = None):
        super().__init__(reason)
        self.record = record or {}


MALFORMED = (InputError, ShapeError, CudaError)


def unknown(what: str, got: str, known: Iterable[str], near: Sequence[str] | None = None) -> Malformed:
    """An error that names the nearest known value; near: the nearest ones, where there is a better way to find them."""
    known = list(known)
    near = difflib.get_close_matches(got[:100], known, n=1) if near is None else near
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    return Malformed(f"there is no {what} {quoted(got)!r}; {hint}known: {', '.join(known)}")
