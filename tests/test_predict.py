"""Predicted operations of every call of small programs are those that its own body does on counting arrays."""

import pytest
from nets import LOSSES, NETS, RULES, STEPS

import costmodel
import refimpl as ri
from costmodel import predict
from validation.counting import count_call

BATCH = 5


def program(net, rules=(), batch=BATCH, backend="reference", **plan):
    return ri.compile(NETS[net](), ri.Plan(rules=rules, **plan), batch, backend=backend)


def check(p, n):
    for call in p.step:
        assert dict(predict.call_counts(call, n)) == count_call(call, n), f"{call.name} on {n} of {p.batch} samples"


@pytest.mark.parametrize("n", [BATCH, 3, 1])
@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
@pytest.mark.parametrize("net", NETS)
def test_predicted_is_counted(net, rules, batch_norm, n):
    check(program(net, rules, batch_norm=batch_norm, train_bias=True), n)


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_predicted_updates_are_counted(step):
    check(program("residual", step=step), BATCH)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_predicted_losses_are_counted(loss):
    check(program("residual", **loss), 4)


def test_predicted_inference_is_counted():
    p = ri.compile(NETS["depthwise"](), None, BATCH, backend="reference")
    check(p, 2)
    assert set(predict.estimate(p).sections["backward"]) == set()


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_totals_are_sums_of_counted_calls(backend):
    p = program("residual", RULES["patch 2"], backend=backend)
    for n in (BATCH, 2):
        found = costmodel.estimate(p, n)
        for section in p.sections:
            counted = [count_call(c, n) for c in p.step.calls[section]]
            for unit in ("mul", "add", "load", "store", "cmp"):
                assert found.sections[section][unit] == sum(c.get(unit, 0) for c in counted)
        assert found.flops == sum(c.get("mul", 0) + c.get("add", 0) for c in map(lambda c: count_call(c, n), p.step))
        assert found.flops == sum(layer.flops for layer in found.layers)
        assert found.macs * 2 == found.flops
    assert predict.run_macs(p, [BATCH, 2, BATCH]) == 2 * costmodel.estimate(p).macs + costmodel.estimate(p, 2).macs


def test_operations_do_not_depend_on_the_backend():
    assert (
        costmodel.estimate(program("depthwise")).units == costmodel.estimate(program("depthwise", backend="fast")).units
    )


def test_layers_follow_the_graph_and_hold_their_updates():
    p = program("residual", step=STEPS["nesterov, clipped"])
    layers = costmodel.estimate(p).layers
    nodes = [n.name for n in p.graph.nodes]
    assert [layer.name for layer in layers][: len(nodes)] == nodes
    assert {layer.name for layer in layers[len(nodes) :]} == {"loss", "clip"}
    by_name = {layer.name: layer for layer in layers}
    weights = 3 * 3 * 4 * 6
    # per weight: the square for the norm, then 5 multiply-adds of momentum, decay, update and Nesterov's step and ·clip
    assert by_name["conv1"].sections["update"]["mul"] == weights * (1 + 5)
    assert by_name["relu1"].sections["update"] == {}


def test_seconds_are_ordered_and_follow_the_device():
    p = program("residual")
    slow, fast = (costmodel.estimate(p, device=d).seconds for d in (device(1e6), device(1e9)))
    assert slow["low"] < slow["mid"] < slow["high"]
    assert all(fast[k] < slow[k] for k in fast)
    # so slow that only arithmetic counts: the roofline is operations over rate
    flops = costmodel.estimate(p).flops
    assert slow["low"] == pytest.approx(flops / 1e6, rel=1e-3)


def device(flops):
    return costmodel.device.Device("test", flops, 1e15, launch=0.0)


def test_unknown_device():
    with pytest.raises(KeyError, match="there is no device 'pi'; known: this-machine, nominal"):
        costmodel.estimate(program("residual"), device="pi")


def test_an_estimate_prints_its_totals():
    p = program("residual")
    found = costmodel.estimate(p)
    for figure in (found.flops, found.macs, found.traffic_bytes, p.peak_bytes, p.state_bytes):
        assert f"{figure:,}" in str(found)
    assert "on nominal" in str(found)
