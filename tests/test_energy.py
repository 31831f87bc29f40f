"""Energy of a step: operations and bytes times published energies, and board power times seconds."""

import pytest

import costmodel
import refimpl as ri
from costmodel.advice import energy
from costmodel.device import device, kernels
from validation.experiments import energy as filtering


def estimate(name, plan=None, net="resnet8", batch=4):
    found = device.find(name)
    p = ri.compile(ri.models.build(net), plan or ri.Plan("all"), batch, threads=found.cores)
    return costmodel.estimate(p, device=found)


def test_operations_by_hand():
    e = estimate("raspberry-pi-4")  # 28 nm
    found = energy.joules(e)["counted"]
    assert found["operations"] == pytest.approx(0.5319 * 1e-12 * (0.9 * e.units["add"] + 3.7 * e.units["mul"]))
    assert found["process_nanometres"] == 28


def test_memory_by_hand():
    e = estimate("raspberry-pi-4")
    _, caches = e.device.at(e.program.threads)
    levels = [sum(t.get(level, 0.0) for t in kernels.work(e.program, caches)) for level in kernels.LEVELS]
    assert sum(levels) >= e.traffic_bytes * (1 - 1e-9) and sum(levels[2:]) > 0
    found = energy.joules(e)["counted"]["memory"]
    cached = 0.5319 * 100e-12 * sum(levels[:2]) / 8
    assert found["low"] == pytest.approx(cached + 1300e-12 * sum(levels[2:]) / 8)
    assert found["high"] == pytest.approx(cached + 2600e-12 * sum(levels[2:]) / 8)


def test_the_board_is_power_times_seconds():
    e = estimate("raspberry-pi-5")
    assert energy.joules(e)["board"]["mid"] == pytest.approx(11 * e.seconds["mid"])
    assert energy.joules(estimate("reference"))["board"] is None
    assert energy.joules(e)["measured"] is False


def test_a_microcontroller_has_no_dram():
    e = estimate("microcontroller-256k")
    found = energy.joules(e)["counted"]
    assert found["memory"]["low"] == found["memory"]["high"] > 0
    assert found["process_nanometres"] is None and energy.scale(None) == 1


def test_what_saves_operations_saves_energy():
    """The board sees the smaller saving: reading memory and the forward pass stay."""
    dense, filtered = (
        energy.joules(estimate("raspberry-pi-4", ri.Plan("all", rules=rules)))["counted"]["operations"]
        for rules in ([], [ri.GradientFilter(4)])
    )
    assert 0.2 < filtered / dense < 0.5
    few = energy.joules(costmodel.estimate(estimate("raspberry-pi-4").program, 2, "raspberry-pi-4"))
    assert few["counted"]["total"]["high"] < energy.joules(estimate("raspberry-pi-4"))["counted"]["total"]["high"]


def test_the_saving_that_the_paper_measured_lies_between_the_two_estimates():
    rows = filtering.savings()
    assert len(rows) == 14
    for row in rows:
        assert 0.4 < row["high"] <= row["low"] < filtering.MEASURED < row["board"] < 0.99, row


def test_parts_of_a_step_add_up_to_the_whole():
    e = estimate("raspberry-pi-4")
    parts = [energy.joules(e, lambda call, s=s: call.section == s)["counted"]["total"]["low"] for s in e.sections]
    assert sum(parts) == pytest.approx(energy.joules(e)["counted"]["total"]["low"]) and min(parts) > 0
    boards = [energy.joules(e, lambda call, s=s: call.section == s)["board"]["mid"] for s in e.sections]
    around = e.seconds["mid"] - sum(e.launches)
    assert sum(boards) == pytest.approx(e.device.watts[1] * (e.seconds["mid"] - around))
