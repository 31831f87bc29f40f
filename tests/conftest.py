import os

os.environ.setdefault("NUMBA_NUM_THREADS", "2")  # read when numba is imported: thread counts are compared, 1 with 2

import pytest
from hypothesis import settings

from gradledger import cli

EXAMPLES = int(os.environ.get("GRADLEDGER_EXAMPLES", 12))  # drawn cases of a property test; fewer where Python is slow

settings.register_profile("gradledger", derandomize=True, deadline=None, database=None, max_examples=EXAMPLES)
settings.register_profile("nightly", parent=settings.get_profile("gradledger"), derandomize=False, print_blob=True)
settings.load_profile("gradledger")


@pytest.fixture
def refused(capsys, tmp_path):
    """Run `adapt` here: it leaves with `status` and one sentence with `message`; of the files below, only those that
    are named are written, added or removed."""

    def check(*args, message, status=2, output=tmp_path / "out", written=(), added=(), removed=()):
        before = contents(tmp_path)
        with pytest.raises(SystemExit) as left:
            cli.main(["adapt", *map(str, args), "--output", str(output)])
        said = capsys.readouterr()
        assert left.value.code == status and (not said.out or said.out.startswith("data "))  # what was found, before
        assert said.err.startswith("gradledger: ") and said.err.count("\n") == 1
        assert message in said.err
        after = contents(tmp_path)
        assert {p.name for p in set(after) - set(before)} == set(added)
        assert {p.name for p in set(before) - set(after)} == set(removed)
        assert {p.name for p in set(after) & set(before) if after[p] != before[p]} == set(written)

    return check


def contents(folder):
    """Bytes of every file under a folder, and its folders."""
    return {p: p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}
