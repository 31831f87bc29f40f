"""README's Python runs, and its commands are commands."""

import re
from pathlib import Path

import pytest

from gradledger import cli
from refimpl.surgery.prune import count

TEXT = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_the_python_runs(capsys):
    found = {}
    for code in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL):
        exec(code, found)
    assert "lenet5: one step on 8 samples" in capsys.readouterr().out
    assert count(found["smaller"]) <= 0.6 * count(found["model"])
    assert {n.op for n in found["zeroing"].nodes} > {"block_prune"}


@pytest.mark.parametrize("command", sorted(set(re.findall(r"`gradledger ([a-z]+)", TEXT))))
def test_every_command_is_there(command, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main([command, "--help"])
    assert left.value.code == 0 and f"gradledger {command}" in capsys.readouterr().out
