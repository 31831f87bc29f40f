"""The progress bars: no figure before there is one."""

import io
import math
import re
import sys
import time

from gradledger import show
from refimpl.recipes.watched import Event

REFRESH = 0.4  # seconds, more than between two pictures of a bar
CONSOLE = show.Console


class Terminal(io.StringIO):
    def isatty(self):
        return True

    def words(self):
        """What was written since the last call, without what steers the terminal."""
        time.sleep(REFRESH)
        text = re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", self.getvalue())
        self.seek(0)
        self.truncate()
        return text


def terminal(monkeypatch):
    """A terminal in the place of stderr; within a test, for pytest sets stderr anew before it."""
    held = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", held)
    monkeypatch.setattr(show, "Console", lambda stderr: CONSOLE(file=held, force_terminal=True, width=120))
    return held


def test_a_training_begins_without_figures(monkeypatch):
    seen = terminal(monkeypatch)
    with show.bar("adapting", quiet=False) as watch:
        said = seen.words()
        assert "preparing" in said and "?" not in said and "steps" not in said
        watch(Event(1, 8, math.nan, None))
        said = seen.words()
        assert "1/8 steps" in said and "nan" not in said and "loss" not in said
        watch(Event(2, 8, 0.5, None))
        watch(Event(3, 8, 0.7, None))
        assert "loss 0.5100" in seen.words()


def test_pieces_of_work_are_counted_once_they_are_known(monkeypatch):
    seen = terminal(monkeypatch)
    with show.counter("timing", quiet=False) as watch:
        said = seen.words()
        assert "timing" in said and "?" not in said and "0/" not in said
        watch(2, 5, "a case")
        assert "2/5" in seen.words()
