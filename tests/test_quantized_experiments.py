"""The experiments of 8-bit training on a few images: records, resuming, judging anew."""

import json
from dataclasses import replace

import pytest

from refimpl import data
from tools.docs import measured
from validation.experiments import lenet_mnist, quantized_lenet, quantized_noniid, quantized_resnet


def still(done, total, name):
    """Show no progress."""


def few() -> data.Dataset:
    d = data.fashion_mnist()
    return replace(d, x_train=d.x_train[:192], y_train=d.y_train[:192], x_test=d.x_test[:50], y_test=d.y_test[:50])


def test_lenet_ends_at_its_last_share_of_the_computation_and_goes_on_where_it_stood(tmp_path, monkeypatch):
    protocol = quantized_lenet.Protocol(seeds=(0, 1), epochs=8, budgets=(0.05, 0.3))
    monkeypatch.setattr(quantized_lenet, "EVERY", 1)
    found = quantized_lenet.run(tmp_path, still, few(), protocol)
    whole = protocol.base.sgd_macs(192)
    for run in found["runs"]:
        (first, one, _), (last, other, _) = run["points"]
        assert 1 <= first < last and one < other <= 0.3 * whole
        assert run["sgd"] == quantized_lenet.sgd(run["seed"])
    assert list(found["measured"]) == ["SGD", "EIF+EMP+Q, 5 %", "EIF+EMP+Q, 30 %"]
    assert found["measured"]["SGD"]["accuracy"]["mean"] > 98 and len(found["goals"]) == 4
    monkeypatch.setattr(quantized_lenet, "train", lambda *a: pytest.fail("a finished run was run again"))
    assert quantized_lenet.run(tmp_path, still, few(), protocol) == found == quantized_lenet.judge(found)


def test_eight_bits_count_for_less_than_the_same_step_in_floats():
    protocol = quantized_lenet.Protocol(epochs=1, budgets=(1.0,))
    d = few()
    (_, macs, _), = quantized_lenet.train(d, protocol, 0, print)["points"]  # fmt: skip
    floats = lenet_mnist.train(d, lenet_mnist.Protocol(epochs=1, budget=1.0), "EIF+EMP", 0, print)
    assert 0.3 < macs / floats["curve"][-1][1] < 0.8


def test_noniid_records_each_scheme_and_goes_on_where_it_stood(tmp_path, monkeypatch):
    protocol = quantized_noniid.Protocol(seeds=(0,), train_last=2, adapt_epochs=1)
    d = data.fashion_mnist()
    found = quantized_noniid.run(tmp_path, still, d, protocol)
    names = [quantized_noniid.method(2, scheme) for scheme in quantized_noniid.SCHEMES]
    assert list(found["measured"]) == ["before", *names] and names[1] == "gradient-filter:patch=2+quantized:scheme=ptq"
    assert [r["method"] for r in found["runs"]] == names and len({r["before"] for r in found["runs"]}) == 1
    assert len({tuple(r["epoch_losses"]) for r in found["runs"]}) > 1
    for name in names[1:]:
        assert found["measured"][name]["gap"]["mean"] == pytest.approx(
            found["measured"][name]["mean"] - found["measured"][names[0]]["mean"], abs=0.011
        )
    monkeypatch.setattr(quantized_noniid.noniid, "adapt", lambda *a: pytest.fail("a finished run was run again"))
    assert quantized_noniid.run(tmp_path, still, d, protocol) == found == quantized_noniid.judge(found)


def pictures(train: int = 48) -> data.Dataset:
    """Few enough for a net of twenty layers."""
    d = few()
    return replace(d, x_train=d.x_train[:train], y_train=d.y_train[:train], x_test=d.x_test[:20], y_test=d.y_test[:20])


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """The folder, the protocol and the record of a short run of all ways."""
    folder = tmp_path_factory.mktemp("resnet")
    protocol = quantized_resnet.Protocol(seeds=(0,), epochs=1, batch=16)
    return folder, protocol, quantized_resnet.run(folder, still, pictures(), protocol, {})


def test_resnet_makes_the_same_steps_each_way_and_goes_on_where_it_stood(resnet, monkeypatch):
    folder, protocol, found = resnet
    rows = found["measured"]
    assert tuple(rows) == quantized_resnet.METHODS and {v["steps"]["mean"] for v in rows.values()} == {3}
    assert [r["method"] for r in found["runs"]] == list(rows) and len(found["goals"]) == 4
    dense = quantized_resnet.saving.dense_macs(protocol.program("SGD", pictures()), 48, 1)
    assert found["runs"][0]["point"][1] == dense  # predicted and counted
    assert all("forward" in r["shares"] for r in found["runs"])
    monkeypatch.setattr(quantized_resnet, "train", lambda *a: pytest.fail("a finished run was run again"))
    again = quantized_resnet.run(folder, still, pictures(), protocol, {})
    assert again == found == quantized_resnet.judge(found) | {"settings_chosen_on": {}}


def test_resnet_counts_products_of_eight_bits_for_less(resnet):
    """Both runs let in nearly all of these few mini-batches, so that what differs is the bits."""
    _, _, found = resnet
    _, floats, whole = found["runs"]
    assert floats["shares"]["forward"] == pytest.approx(whole["shares"]["forward"], abs=0.2)
    assert 0.25 < whole["point"][1] / floats["point"][1] < 0.5


def test_resnet_s_table_says_what_was_measured_beside_the_paper_s(resnet, tmp_path, monkeypatch):
    (tmp_path / "quantized-resnet.json").write_text(json.dumps(resnet[2]))
    monkeypatch.setattr(measured, "RESULTS", tmp_path)
    measured.record.cache_clear()
    try:
        lines = measured.measured("quantized-resnet").splitlines()
    finally:
        measured.record.cache_clear()
    row = [cell.strip() for cell in lines[-1].strip("|").split("|")]
    mine = resnet[2]["measured"]["EIF+EMP+Q"]
    assert row == [
        "EIF+EMP+Q", measured.spread(mine["saved"]), "95.41 / 95.71", measured.spread(mine["accuracy"]),
        "93.00 / 93.54", measured.spread(mine["gain"], "+"),
    ]  # fmt: skip


def test_resnet_chooses_on_training_images_what_saves_enough_and_is_accurate(tmp_path, monkeypatch):
    seen = []
    accuracy = {0.2: 0.8, 0.3: 0.7, 0.4: 0.99}
    d = pictures(60)
    base = quantized_resnet.Protocol(seeds=(3,), epochs=2, batch=16)
    dense = quantized_resnet.saving.dense_macs(base.program("SGD", d), 54, 1)

    def train(d, protocol, method, seed, watch):
        seen.append((method, seed, protocol.lr, protocol.share, protocol.epochs, len(d.x_train), len(d.x_test)))
        made = 1.0 if method == "SGD" else protocol.share  # the larger, the less is saved
        correct = {0.05: 0.4, 0.1: 0.2}[protocol.lr] if method == "SGD" else accuracy[protocol.share]
        return {"point": [1, made * dense, correct], "shares": {}, "train_seconds": 0.0}

    monkeypatch.setattr(quantized_resnet, "train", train)
    tried = ({"share": 0.3}, {"share": 0.2}, {"share": 0.4})  # 0.4 saves less than the paper
    candidates = {"SGD": ({"lr": 0.05}, {"lr": 0.1}), "EIF+EMP": tried}
    found = quantized_resnet.run(tmp_path, still, d, base, candidates)
    trials, finals = seen[:5], seen[5:]
    assert [t[:4] for t in trials] == [
        ("SGD", 9, 0.05, 0.2), ("SGD", 9, 0.1, 0.2), *(("EIF+EMP", 9, 0.05, s) for s in (0.3, 0.2, 0.4)),
    ]  # fmt: skip
    assert {t[4:] for t in trials} == {(1, 54, 6)}
    assert finals == [(m, 3, 0.05, 0.2, 2, 60, 20) for m in quantized_resnet.METHODS]
    where = "6 training images held out of trial runs of seed 9, the best of"
    assert found["settings_chosen_on"] == {"lr": f"0.05: {where} 2", "share": f"0.2: {where} 3"}


def test_what_saves_too_little_in_a_trial_is_the_better_the_more_it_saves():
    points = [[1, macs, correct] for macs, correct in ((30, 0.1), (50, 0.9), (70, 0.99))]
    worth = [quantized_resnet.worth(p, 100, 0.6) for p in points]
    assert worth[0] == 0.1 > worth[1] > worth[2]
