"""The progress bars: no figure before there is one."""

import io
import math
import re
import sys
import time

from gradledger import show
from gradledger.output import near
from refimpl.recipes.course import Event, Glance

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


def test_where_there_is_no_terminal_a_line_now_and_then_says_how_far_it_is(monkeypatch, capsys):
    monkeypatch.setattr(show, "EVERY", 0.05)

    def said():
        capsys.readouterr()
        time.sleep(0.2)
        return capsys.readouterr().err.splitlines()[-1]

    with show.bar("adapting", quiet=False) as watch:
        assert re.fullmatch(r"gradledger: adapting: preparing, \d s so far", said())
        watch(Event(1, 1200, 0.5, Glance(0, 0.25, 0.75), part="learning rate"))
        words = "learning rate, step 1 of 1,200, loss 0.5000, held out: loss 0.2500, accuracy 75.0 %"
        assert said().startswith(f"gradledger: adapting: {words}, ")
        watch(Event(2, 8, math.nan, None))
        assert said().startswith("gradledger: adapting: step 2 of 8, ") and "loss" not in said()
    time.sleep(0.2)
    assert capsys.readouterr() == ("", "")
    with show.counter("timing", quiet=False) as watch:
        watch(2, 5, "a case")
        assert said().startswith("gradledger: timing: 2 of 5, a case, ")
    for quiet in (show.bar("adapting", quiet=True), show.counter("timing", quiet=True)):
        with quiet:
            time.sleep(0.2)
    assert capsys.readouterr() == ("", "")


def test_a_run_that_is_short_says_nothing(capsys):
    with show.bar("adapting", quiet=False) as watch:
        watch(Event(1, 8, 0.5, None))
    assert capsys.readouterr() == ("", "") and show.EVERY == 30


def test_counts_are_whole_and_paths_as_they_are_called_from_here(tmp_path, monkeypatch):
    assert [show.whole(n) for n in (13112786652.5, 12, None)] == ["13,112,786,652", "12", "-"]
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a")
    assert near(f"{tmp_path}/a/b/x.png") == "b/x.png" and near(f"{tmp_path}/c.png") == "../c.png"
    assert near("/x") == "/x" and near("b/x.png") == "b/x.png" and near("watch") == "watch"
    told = f"left out: {tmp_path}/a/b/x.png is none, '{tmp_path}/a/y' is one, {tmp_path}/a is here, in /z{tmp_path}/a/b"
    assert near(told) == f"left out: b/x.png is none, 'y' is one, {tmp_path}/a is here, in /z{tmp_path}/a/b"
    monkeypatch.chdir("/")
    assert near("left out: /etc/x is none") == "left out: etc/x is none"
