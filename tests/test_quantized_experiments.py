"""The experiments of 8-bit training on a few images: records, resuming, judging anew."""

from dataclasses import replace

import pytest

from refimpl import data
from validation.experiments import lenet_mnist, quantized_lenet, quantized_noniid


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
