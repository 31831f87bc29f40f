"""Ctrl-C, SIGTERM and SIGHUP as one wish to stop, heard where it does no harm."""

import contextlib
import math
import signal
import sys
import threading
from collections.abc import Iterator

WISHES = ("SIGINT", "SIGTERM", "SIGHUP")  # Ctrl-C, a shutdown, a terminal that is closed


def numbers() -> list[int]:
    """The signals of this system that are a wish to stop."""
    return [getattr(signal, name) for name in WISHES if hasattr(signal, name)]


class Stop:
    """While this is entered, a signal raises KeyboardInterrupt at once, or within `hold` waits as `asked`.

    What was ignored before, such as SIGHUP under nohup, stays ignored; outside the main thread, which alone may set
    handlers, nothing changes.
    """

    def __init__(self):
        self._came = 0
        self._patience = 0.0  # signals that raise nothing
        self._before = {}

    @property
    def asked(self) -> bool:
        """Has a signal come?"""
        return self._came > 0

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():
            for number in numbers():
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._hear)
        self._hook, sys.unraisablehook = sys.unraisablehook, self._swallowed
        return self

    def __exit__(self, *_) -> None:
        sys.unraisablehook = self._hook
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, *_) -> None:
        self._came += 1
        if self._came > self._patience:
            raise KeyboardInterrupt

    def _swallowed(self, ignored) -> None:
        """Of exceptions that cannot be raised, as in llvmlite's callbacks, a signal's is quiet: `asked` tells it."""
        if not issubclass(ignored.exc_type, KeyboardInterrupt):
            self._hook(ignored)

    def check(self) -> None:
        """Raise for a signal that came already: what runs in a library's callback may have swallowed its exception."""
        if self.asked:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def hold(self, signals: float = math.inf) -> Iterator[None]:
        """Inside, so many signals are only remembered; the next one raises."""
        before, self._patience = self._patience, signals
        try:
            yield
        finally:
            self._patience = before
