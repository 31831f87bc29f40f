"""The non-i.i.d. experiment of gradient filtering, on the embedded part of Fashion-MNIST."""

import json
from dataclasses import replace

import numpy as np
import pytest

from gradledger import cli, reproduce
from refimpl import data
from validation.experiments import datasets, noniid
from validation.experiments.runs import TRIAL_SEED, Runs

SMALL = noniid.Protocol(seeds=(0,), train_last=(1, 2), patches=(None, 2), pretrain_epochs=1, adapt_epochs=1)


def still(done, total, name):
    """Show no progress."""


@pytest.mark.parametrize("seed", range(5))
def test_halves_share_two_classes_and_lose_no_sample(seed):
    d = data.fashion_mnist()
    a, b = noniid.halves(d, seed)
    classes = [set(half.y_train) for half in (a, b)]
    assert [len(c) for c in classes] == [6, 6] and len(classes[0] & classes[1]) == 2
    for part in ("train", "test"):
        x, y = (np.concatenate([getattr(half, f"{axis}_{part}") for half in (a, b)]) for axis in "xy")
        together = sorted((label, image.tobytes()) for image, label in zip(x, y, strict=True))
        whole = zip(getattr(d, f"x_{part}"), getattr(d, f"y_{part}"), strict=True)
        assert together == sorted((label, image.tobytes()) for image, label in whole)
        for label in classes[0] & classes[1]:
            counts = [int(np.sum(getattr(half, f"y_{part}") == label)) for half in (a, b)]
            assert abs(counts[0] - counts[1]) <= 1
        assert [set(getattr(half, f"y_{part}")) for half in (a, b)] == classes


def test_another_seed_splits_otherwise():
    d = data.fashion_mnist()
    assert set(noniid.halves(d, 0)[0].y_train) != set(noniid.halves(d, 1)[0].y_train)


def test_an_odd_number_of_classes_is_refused():
    d = data.watch(1)
    with pytest.raises(data.DataError, match="needs an even number of classes from 4 up, but .* has 7"):
        noniid.halves(d, 0)


def test_record_and_resume(tmp_path, monkeypatch):
    d = data.fashion_mnist()
    record = noniid.run(tmp_path, still, d, SMALL, ())
    assert record.keys() >= {"name", "published", "measured", "ok", "findings", "protocol", "seeds", "runs"}
    rows = record["measured"]
    assert list(rows) == ["before", "half A before", *(noniid.row(k, p) for k in (1, 2) for p in (None, 2))]
    assert rows["last 2, gradient-filter:patch=2"].keys() == {
        "mean", "std", "se", "min", "max", "gap", "half_a", "backward_flops", "saved_bytes",
    }  # fmt: skip
    assert rows["last 2, backprop"]["mean"] > rows["before"]["mean"] + 20  # four classes of B are new to the net
    assert rows["last 2, backprop"]["backward_flops"] > 10 * rows["last 2, gradient-filter:patch=2"]["backward_flops"]
    assert [f["finding"] for f in record["findings"]] == ["a", "b", "c"]
    assert record["published"]["last 1, gradient-filter:patch=2"]["times_fewer_flops"] == 15.7  # 128.25 M / 8.18 M

    path = tmp_path / f"{noniid.NAME}.jsonl"
    lines = path.read_text().splitlines()
    assert len(lines) == 4
    path.write_text("\n".join(lines[:3]) + "\n")  # as if it had been stopped before the last run
    done = []
    again = noniid.run(tmp_path, lambda i, total, name: done.append(name), d, SMALL, ())
    assert done == [
        "pre-training, seed 0",
        "maps of the frozen layers, seed 0",
        "last 2, gradient-filter:patch=2, seed 0",
    ]
    same = [{**r, "train_seconds": 0} for r in record["runs"]]
    assert [{**r, "train_seconds": 0} for r in again["runs"]] == same

    monkeypatch.setattr(noniid, "adapt", None)  # nothing is left to do
    assert noniid.run(tmp_path, still, d, SMALL, ()) == again
    assert Runs(tmp_path, noniid.NAME, noniid.Protocol(seeds=(0,), lr=0.1).settings(d)).found == []
    path.write_text(lines[0] + '\n{"half": ')
    with pytest.raises(data.DataError, match=r"line 2 of .*jsonl is no run of gradient-filter-noniid; delete"):
        noniid.run(tmp_path, still, d, SMALL, ())


def test_epochs_are_chosen_on_training_images(tmp_path, monkeypatch):
    """The better of two candidates by held-out training images is taken, and no trial sees a test image."""
    d = data.fashion_mnist()
    tiny = replace(SMALL, train_last=(1,), patches=(None, 2))
    seen = []

    def adapt(a, b, graph, plan, protocol, seed):
        seen.append((seed, protocol.adapt_epochs, len(b.x_train), len(b.x_test)))
        return dict.fromkeys(("before", "before_a", "after", "after_a"), 1 / protocol.adapt_epochs) | {
            "epoch_losses": [], "train_seconds": 0.0,
        }  # fmt: skip

    monkeypatch.setattr(noniid, "adapt", adapt)
    monkeypatch.setattr(noniid, "pretrained", lambda *given: {})
    monkeypatch.setattr(noniid, "tails", lambda graph, a, b, p: {k: (graph, a, b) for k in p.train_last})
    _, b = noniid.halves(d, TRIAL_SEED)
    held = len(b.x_train) // 10
    record = noniid.run(tmp_path, still, d, tiny, ({"adapt_epochs": 4}, {"adapt_epochs": 2}))
    assert seen[:2] == [(TRIAL_SEED, epochs, len(b.x_train) - held, held) for epochs in (4, 2)]
    assert [s[:2] for s in seen[2:]] == [(0, 2), (0, 2)] and record["protocol"]["adapt_epochs"] == 2
    where = f"{held} training images held out of trial runs of seed 9, the best of 2"
    assert record["settings_chosen_on"] == noniid.ON_TEST | {"adapt_epochs": f"2: {where}"}
    noniid.run(tmp_path, still, d, tiny, ({"adapt_epochs": 4}, {"adapt_epochs": 2}))
    assert len(seen) == 4  # trials are kept like runs
    assert TRIAL_SEED not in noniid.Protocol().seeds


def test_an_interrupt_says_that_finished_runs_are_kept(tmp_path, monkeypatch, capsys):
    def interrupt(output, watch):
        (output / f"{noniid.NAME}.jsonl").write_text("")
        raise KeyboardInterrupt

    monkeypatch.setitem(reproduce.EXPERIMENTS, noniid.NAME, interrupt)
    with pytest.raises(SystemExit) as left:
        cli.main(["reproduce", noniid.NAME, "--output", str(tmp_path)])
    assert left.value.code == 130
    said = f"gradledger: interrupted; {tmp_path} keeps the finished runs, and the same command goes on\n"
    assert capsys.readouterr().err == said


def test_reproduce_without_the_data_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADLEDGER_DATA", str(tmp_path))
    with pytest.raises(data.DataError, match="no fashion-mnist in .*: set GRADLEDGER_DATA to the folder that holds"):
        reproduce.run(noniid.NAME, tmp_path / "out", still)


def test_the_folder_of_the_data_is_found(tmp_path, monkeypatch):
    (tmp_path / "fashion-mnist").mkdir()
    monkeypatch.setenv("GRADLEDGER_DATA", str(tmp_path))
    assert datasets.folder("fashion-mnist") == tmp_path / "fashion-mnist"


def made(accuracy: dict) -> dict:
    """The record of two seeds alike, for shares of half B's test images by layers and patch."""
    protocol = noniid.Protocol(seeds=(0, 1))
    runs = [
        {"seed": s, "train_last": k, "method": noniid.method(p), "before": 0.3, "before_a": 0.9,
         "after": accuracy[k, p], "after_a": 0.5, "train_seconds": 1.5}
        for s, k, p in protocol.work
    ]  # fmt: skip
    return noniid.record(runs, noniid.net(data.fashion_mnist()), protocol)


def findings(record: dict) -> dict:
    """The findings by letter."""
    assert record["ok"] == (record["findings"][0]["claims"]["patch 2 loses at most 1.5 points"] is True)
    return {f["finding"]: f for f in record["findings"]}


def as_the_paper_says() -> dict:
    """Shares with which every claim holds: 0.1 points a layer and patch step lost, 5 points a layer won."""
    steps = {None: 0, 2: 1, 4: 2, 7: 3}
    return {(k, p): 0.5 + 0.05 * k - 0.001 * k * step for k in (1, 2, 3, 4) for p, step in steps.items()}


def test_findings_are_confirmed_by_numbers_that_show_them():
    found = findings(made(as_the_paper_says()))
    assert all(f["confirmed"] for f in found.values())
    trade = found["b"]["evidence"][0]
    assert (trade["exact"], trade["instead"]) == ("last 1, backprop", "last 4, gradient-filter:patch=2")
    assert trade["difference"]["mean"] == pytest.approx(14.6)


@pytest.mark.parametrize(
    ("change", "finding", "claim"),
    [
        ({(2, 2): 0.5}, "a", "patch 2 loses at most 1.5 points"),
        ({(2, None): 0.8}, "b", "last 4, gradient-filter:patch=2 beats last 2, backprop"),
        ({(2, 7): 0.599}, "c", "a larger patch loses more"),
        ({(3, 7): 0.63}, "c", "every patch loses at most 1.5 points"),
        ({(4, None): 0.696}, "c", "more filtered layers lose more"),
    ],
)
def test_findings_are_denied_by_numbers_that_do_not(change, finding, claim):
    found = findings(made(as_the_paper_says() | change))[finding]
    assert found["confirmed"] is False and found["claims"][claim] is False


def test_findings_are_not_decided_by_numbers_that_scatter():
    """The means are those that confirm; patch 2 alone scatters, so that its paired differences do."""
    shares = as_the_paper_says()
    record = made(shares)
    for run in record["runs"]:
        if run["method"] == noniid.method(2):
            run["after"] += 0.05 * (-1) ** run["seed"]
    again = noniid.judge(record)
    assert again["measured"]["last 1, gradient-filter:patch=2"]["mean"] == 54.9
    found = findings(again)
    assert [f["confirmed"] for f in found.values()] == [None, None, None]
    assert found["c"]["claims"]["a larger patch saves more"] is True
    assert again["verdict"] == "not decided by these seeds" and not again["ok"]


def test_the_picture_is_drawn(tmp_path, monkeypatch):
    record = made(as_the_paper_says())
    monkeypatch.setitem(reproduce.EXPERIMENTS, noniid.NAME, lambda output, watch: record)
    found = reproduce.run(noniid.NAME, tmp_path, still)
    assert found["picture"] == str(tmp_path / "gradient-filter-noniid.png")
    assert (tmp_path / "gradient-filter-noniid.png").read_bytes()[:4] == b"\x89PNG"
    written = json.loads((tmp_path / "gradient-filter-noniid.json").read_text())
    assert written["findings"] == record["findings"] and written.keys() >= {"machine", "versions", "command", "seeds"}
