"""Predicted operations of every call of small programs are those that its own body does on counting arrays."""

import pytest
from nets import LOSSES, NETS, RULES, STEPS

import costmodel
import refimpl as ri
from costmodel import predict
from costmodel.device import kernels
from validation.instruments.counting import count_call

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
    p = program("residual", backend="fast")
    slow, fast = (costmodel.estimate(p, device=d).seconds for d in ("raspberry-pi-zero-2", "raspberry-pi-5"))
    assert 0 < slow["low"] < slow["mid"] < slow["high"]
    assert all(fast[k] < slow[k] for k in fast)


def test_seconds_are_the_sum_over_launches_of_work_times_rate():
    p = ri.compile(NETS["residual"](), None, BATCH, threads=1)
    e = costmodel.estimate(p, device="reference")
    rates, caches = e.device.at(1)
    wanted = sum(
        rates.by_kernel[kernels.kernel(launch)].get(term, 0.0) * amount
        for launch, terms in zip(p.order, kernels.work(p, caches), strict=True)
        for term, amount in terms.items()
    )
    assert e.seconds["mid"] == pytest.approx(wanted)
    training = costmodel.estimate(ri.compile(NETS["residual"](), ri.Plan("all"), BATCH, threads=1))
    assert training.seconds["mid"] > sum(training.launches) > 0  # Python around the launches


def test_fewer_samples_take_less_time():
    p = program("residual", backend="fast")
    whole, part = costmodel.estimate(p), costmodel.estimate(p, 2)
    assert part.seconds["mid"] < whole.seconds["mid"]


def test_unknown_device():
    with pytest.raises(
        KeyError, match="there is no device 'pi'; known: this-machine, this-gpu, reference, esp32-s3, jet"
    ):
        costmodel.estimate(program("residual"), device="pi")


def test_an_estimate_prints_its_totals():
    p = program("residual")
    found = costmodel.estimate(p)
    for figure in (found.flops, found.macs, found.traffic_bytes, p.peak_bytes, p.state_bytes):
        assert f"{figure:,}" in str(found)
    assert "on reference" in str(found)
