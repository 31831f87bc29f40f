"""The seam: a backend of the tests' own, whose arrays the host cannot touch, trains to the bits of the reference."""

import numpy as np
import pytest
from own import remote

import refimpl as ri
from refimpl.compiler.lower import BACKENDS, register_backend

PLANS = {
    "backprop": ri.Plan(step=ri.Backprop(ri.SGD(lr=0.05, momentum=0.9), clip_norm=1.0), batch_norm="train"),
    "adam": ri.Plan(2, step=ri.Backprop(ri.Adam(lr=0.01)), train_bias=True),
    "filter": ri.Plan(rules=[ri.GradientFilter(2), ri.ErrorMapPruning(0.5)]),
    "by gradient": ri.Plan(rules=[ri.SparseUpdate(0.5, order="gradient")]),
    "instances": ri.Plan(instances=ri.InstanceFilter(keep=0.4)),
    "depth": ri.Plan(depth=ri.StochasticDepth(0.5)),
}


@pytest.fixture
def backend():
    found = remote.Recording()
    register_backend("recording", found)
    yield found
    del BACKENDS["recording"]


def trained(plan, backend, epochs=2):
    graph = ri.models.build("resnet8", classes=4, size=(16, 16))
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(14, 16, 16, 3)).astype(np.float32), rng.integers(0, 4, 14)
    t = ri.Trainer(ri.compile(graph, plan, 6, backend=backend, threads=1), seed=2)
    t.fit(x, y, epochs)
    return t, x, y


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_it_trains_to_the_bits_of_the_reference(plan, backend, tmp_path):
    mine, x, y = trained(plan, "recording")
    theirs, _, _ = trained(plan, "reference")
    assert mine.losses == theirs.losses
    np.testing.assert_array_equal(mine.predict(x), theirs.predict(x))
    for name, value in theirs.evaluated().items():
        np.testing.assert_array_equal(mine.evaluated()[name], value, err_msg=name)
    state, other = mine.resume_arrays(), theirs.resume_arrays()
    assert state.keys() == other.keys()
    for name, value in other.items():
        np.testing.assert_array_equal(state[name], value, err_msg=name)
    for t, name in ((mine, "a"), (theirs, "b")):
        t.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_run_is_taken_up_there(backend):
    whole, x, y = trained(PLANS["backprop"], "recording", 3)
    first, _, _ = trained(PLANS["backprop"], "recording", 1)
    second = ri.Trainer(first.program, seed=2)
    second.resume(first.resume_arrays(), first.step, first.losses)
    list(second.steps(x, y, 3))
    assert second.losses == whole.losses
    for name, value in whole.resume_arrays().items():
        np.testing.assert_array_equal(second.resume_arrays()[name], value, err_msg=name)


def test_every_launch_and_copy_goes_through_it(backend):
    t, x, _ = trained(PLANS["backprop"], "recording", 1)
    step = [launch.name for launch in t.program.order]
    assert backend.launched[: 3 * len(step)] == 3 * step
    assert backend.copied.count(("in", (6, 16, 16, 3))) == 2 and ("in", (2, 16, 16, 3)) in backend.copied
    assert [s for way, s in backend.copied if way == "out"].count((1,)) >= 3  # the losses


def test_what_diverges_is_told_and_kept_as_by_the_reference(backend):
    ends = []
    for name in ("recording", "reference"):
        t, x, y = trained(PLANS["filter"], name, 1)
        with pytest.raises(ri.NonFiniteError, match="first in layer") as told:
            for factor in (1, 1e6, 1e12, 1e25, 1e36):
                t.train_step(x[:6] * np.float32(factor), y[:6], 100)
        ends.append((str(told.value), t.step, {n: a.tobytes() for n, a in t.evaluated().items()}))
    assert ends[0] == ends[1]


def test_the_host_cannot_touch_its_arrays(backend):
    t, _, _ = trained(PLANS["filter"], "recording", 1)
    with pytest.raises(TypeError, match="the host cannot read this array"):
        np.asarray(t.runner.host("loss", 6))
    with pytest.raises(TypeError):
        t.runner.host("loss", 6) + np.ones(1)


def test_names_are_taken_once(backend):
    with pytest.raises(ValueError, match="there is a backend 'recording' already: give yours another name"):
        register_backend("recording", remote.Recording())
    with pytest.raises(ValueError, match="backend must be one of fast, reference, rows, cuda, recording, got 'gpu'"):
        ri.compile(ri.models.build("lenet"), ri.Plan(), 2, backend="gpu")
