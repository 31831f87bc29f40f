"""`gradledger warmup` compiles what a run will need."""

import json

import pytest

from gradledger import cli
from refimpl.kernels import kernel


@pytest.mark.parametrize("backend", ["fast", "reference"])
def test_warmup_leaves_nothing_to_compile(backend, capsys):
    for _ in range(2):
        with pytest.raises(SystemExit) as done:
            cli.main(["warmup", "--json", "--backend", backend])
        assert done.value.code == 0
        record = json.loads(capsys.readouterr().out)
        assert record["ok"] and record["kernels"] > 5
    assert record["compiled"] == 0 and kernel.CACHE_DIR and record["cache"] == str(kernel.CACHE_DIR)


def test_warmup_says_where_kernels_are_not_kept(monkeypatch, capsys):
    monkeypatch.setattr(kernel.KernelCache, "failed", True)
    with pytest.raises(SystemExit):
        cli.main(["warmup"])
    assert capsys.readouterr().out.strip().endswith("(memory only: no folder is writable)")
