"""What would fit where a step does not: each change that is told is compiled again, and the next larger one refused."""

import json

import pytest

from gradledger import smaller
from gradledger.cli import main


@pytest.fixture
def run(capsys):
    """Run a command with --json; gives its status, its record and its errors."""

    def command(*args):
        with pytest.raises(SystemExit) as left:
            main([args[0], "--json", *args[1:]])
        out, err = capsys.readouterr()
        return left.value.code, json.loads(out) if out else None, err

    return command


def larger(options):
    """The same change, a little less of it."""
    name, value = options.split()
    if name == "--size":
        return None
    return (name, str(int(value) + 1))


STEP = ("cost", "--model", "resnet8", "--device", "reference", "--threads", "2")


@pytest.mark.parametrize("limit", ["5MiB", "2MiB", "600KiB"])
def test_what_keeps_a_limit_is_told_and_it_does(run, limit):
    status, refused, err = run(*STEP, "--memory-limit", limit)
    assert (status, refused["ok"]) == (1, False) and smaller.sentence(refused["would_fit"]) in err
    assert refused["would_fit"]
    for one in refused["would_fit"]:
        status, record, _ = run(*STEP, "--memory-limit", limit, *one["options"].split())
        assert status == 0 and record["state_bytes"] + record["peak_bytes"] == one["bytes"] <= record["memory_limit"]
        if len(one["options"].split()) == 2 and (more := larger(one["options"])):
            assert run(*STEP, "--memory-limit", limit, *more)[0] == 1, f"{more} fits too"


def test_several_changes_are_told_together_where_none_suffices_alone(run):
    found = run(*STEP, "--memory-limit", "300KiB")[1]["would_fit"]
    assert len(found) == 1 and found[0]["options"].startswith("--batch 1 --train-last ")
    assert run(*STEP, "--memory-limit", "300KiB", *found[0]["options"].split())[0] == 0


def test_nothing_smaller(run):
    status, refused, err = run(*STEP, "--memory-limit", "1KiB")
    assert (status, refused["would_fit"]) == (1, []) and "; nothing smaller was found that fits. The limit" in err


def test_the_method_that_says_how_many_layers_keeps_them(run):
    _, refused, _ = run(*STEP, "--method", "sparse-update:layers=3", "--memory-limit", "2MiB")
    assert refused["would_fit"] and all("--train-last" not in one["options"] for one in refused["would_fit"])


def test_data_of_a_size_of_their_own_keep_it(run):
    _, refused, _ = run("adapt", "--memory-limit", "700KiB")
    arrays = (sum(refused["memory"][part].values()) for part in ("state", "arena"))
    assert sum(arrays) == refused["smallest_limit_bytes"] > refused["memory_limit"] == 700 * 1024
    changed = [one["options"].split()[0] for one in refused["would_fit"]]
    assert changed[0] == "--batch" and "--size" not in changed
    for one in refused["would_fit"]:
        assert run("cost", "--data", "watch", "--memory-limit", "700KiB", *one["options"].split())[0] == 0


def test_what_fits_a_device(run):
    args = ("cost", "--model", "resnet34", "--device", "pi zero 2")
    found = run(*args)[1]
    assert found["fits"]["ok"] is False and found["would_fit"]
    for one in found["would_fit"]:
        assert run(*args, *one["options"].split())[1]["fits"]["ok"] is True
    assert "would_fit" not in run(*STEP)[1]


def test_time_ends_the_search(run, monkeypatch):
    monkeypatch.setattr(smaller, "SECONDS", -1.0)
    assert run(*STEP, "--memory-limit", "2MiB")[1]["would_fit"] == []
