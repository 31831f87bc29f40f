"""What belongs together is found from the calls alone: a backend that launches it at once has the reference's bits."""

import nets
import numpy as np
import pytest
from own import grouped

import refimpl as ri
from refimpl.compiler import grouping
from refimpl.compiler.compose import derive
from refimpl.compiler.lower import BACKENDS, Lowering, register_backend
from refimpl.ops import batch_norm
from validation.instruments import measured

MOMENTUM = {"step": nets.MOMENTUM, "train_bias": True}
PLANS = {
    "frozen": ri.Plan(**MOMENTUM),
    "train": ri.Plan(**MOMENTUM, batch_norm="train"),
    "the last two": ri.Plan(2, step=ri.Backprop(ri.Adam(lr=0.01)), batch_norm="train"),
    "filter": ri.Plan(rules=[ri.GradientFilter(2)]),
    "filter, keep": ri.Plan(rules=[ri.GradientFilter(2), ri.ErrorMapPruning(0.5)], batch_norm="train"),
    "keep": ri.Plan(rules=[ri.ErrorMapPruning(0.5)]),
    "by gradient": ri.Plan(rules=[ri.SparseUpdate(0.5, order="gradient")]),
    "depth": ri.Plan(depth=ri.StochasticDepth(0.5), batch_norm="train"),
    "instances": ri.Plan(instances=ri.InstanceFilter(keep=0.4)),
    "instances, train": ri.Plan(**MOMENTUM, instances=ri.InstanceFilter(keep=0.4), batch_norm="train"),
}


@pytest.fixture
def backend():
    register_backend("grouped", grouped.Grouped())
    yield "grouped"
    del BACKENDS["grouped"]


def trained(net, plan, backend):
    graph = nets.NETS[net]()
    rng = np.random.default_rng(3)
    x = rng.normal(size=(11, *graph.size, graph.channels)).astype(np.float32)
    t = ri.Trainer(ri.compile(graph, plan, 4, backend=backend, threads=1), seed=2)
    t.fit(x, rng.integers(0, 3, 11), 2)
    return t, x


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("net", ["residual", "depthwise"])
def test_groups_train_to_the_bits_of_the_reference_in_fewer_launches(net, plan, backend):
    mine, x = trained(net, PLANS[plan], backend)
    theirs, _ = trained(net, PLANS[plan], "reference")
    assert mine.losses == theirs.losses and len(mine.losses) == 6
    np.testing.assert_array_equal(mine.predict(x), theirs.predict(x))
    for name, value in theirs.resume_arrays().items():
        np.testing.assert_array_equal(mine.resume_arrays()[name], value, err_msg=name)
    calls = len(list(mine.program.step))
    assert len(theirs.program.order) == calls
    assert len(mine.program.order) < 0.85 * calls
    assert measured.all_flops(mine.program, mine.made, measured.executed_flops) == measured.all_flops(
        theirs.program, theirs.made
    )


BETWEEN = {  # what two convolutions of `nets.residual` are launched with, and their gradients
    "frozen": {
        "conv1 conv2d.forward + bn1 frozen_batch_norm.forward + relu1 relu.forward + relu1 relu.pack_mask",
        "down conv2d.forward + down.bn frozen_batch_norm.forward + sum add.forward + relu2 relu.forward"
        " + relu2 relu.pack_mask",
        "relu1 relu.grad_x + bn1 frozen_batch_norm.grad_x + conv1 conv2d.grad_w + conv1 conv2d.grad_x",
        "relu2 relu.grad_x",  # both branches read it
    },
    "train": {
        "conv1 conv2d.forward + bn1 batch_norm.mean + bn1 batch_norm.var + bn1 batch_norm.inv_std"
        " + bn1 batch_norm.forward + relu1 relu.forward + relu1 relu.pack_mask",
        "down conv2d.forward + down.bn batch_norm.mean + down.bn batch_norm.var + down.bn batch_norm.inv_std"
        " + down.bn batch_norm.forward",
        "relu1 relu.grad_x + bn1 batch_norm.grad_gamma + bn1 batch_norm.grad_beta + bn1 batch_norm.grad_x",
        "down conv2d.grad_w + down conv2d.grad_x + pool0 add.forward",
        "pool0 max_pool.forward + pool0 max_pool.argmax",
    },
    "filter": {
        "relu1 relu.grad_x + bn1 frozen_batch_norm.grad_x + conv1 gradient_filter.pool_dy",
        "conv1 gradient_filter.patch_grad + conv1 gradient_filter.expand",
        "conv1 gradient_filter.patch_grad_w + conv1 gradient_filter.expand_w",
    },
}


@pytest.mark.parametrize("plan", BETWEEN)
def test_what_belongs_together_is_launched_together(plan, backend):
    program = ri.compile(nets.residual(), PLANS[plan], 4, backend=backend, threads=1)
    assert BETWEEN[plan] <= {launch.name for launch in program.order}


def lowering(graph, plan=None):
    return Lowering(derive(graph, plan or ri.Plan(), 4, graph.size, np.float32), 1)


def call(low, name):
    return next(c for c in low.calls if c.name == name)


def test_a_chain_is_cut_where_a_kernel_ends():
    low = lowering(nets.depthwise())
    chain = grouping.chain(low, call(low, "stem conv2d.forward"))
    assert [c.name for c in chain.calls] == [
        "stem conv2d.forward", "stem.bn frozen_batch_norm.forward", "stem.relu6 relu6.forward",
        "stem.relu6 relu6.pack_mask",
    ]  # fmt: skip
    assert chain.y.name == "stem.relu6" and chain.mask.name == "stem.relu6.mask" and chain.residual is None
    assert chain.before("sum") == chain
    without = chain.before("pack")
    assert without.rectifier and without.mask is None and without.y is chain.y
    assert chain.before("norm").calls == (chain.start,) and chain.before("norm").y.name == "stem"
    added = grouping.chain(low, call(low, "project conv2d.forward"))
    assert added.residual.name == "stem.relu6" and added.y.name == "sum"


def test_what_others_read_or_what_is_launched_already_ends_a_chain():
    g = ri.Graph("twice", (4, 4), 2)
    x = g.conv2d("conv", "input", 3, 3, pad=1)
    y = g.relu("relu", x)
    g.linear("fc", g.global_avg_pool("mean", g.add("sum", x, y)), 2)
    low = lowering(g)
    assert grouping.chain(low, call(low, "conv conv2d.forward")).calls == (call(low, "conv conv2d.forward"),)
    rectifier = call(low, "relu relu.forward")
    chain = grouping.chain(low, rectifier)
    assert chain.rectifier is rectifier and [c.passed.name for c in chain.calls] == ["forward", "pack_mask"]
    low.groups[chain.pack] = None
    assert grouping.chain(low, rectifier).calls == (rectifier,)


def test_what_follows_a_rectifier_begins_anew():
    g = ri.Graph("before", (4, 4), 2)
    g.conv2d("conv", g.batch_norm("bn", g.relu("relu", "input")), 3, 3)
    low = Lowering(derive(g, None, 4, (4, 4), np.float32), 1)
    assert grouping.chain(low, call(low, "relu relu.forward")).calls == (call(low, "relu relu.forward"),)


def test_the_host_ends_a_chain():
    g = ri.Graph("seen", (4, 4), 2)
    x = g.conv2d("conv", "input", 3, 3)
    g.relu("relu", x)
    g.outputs = ("conv", "relu")
    low = Lowering(derive(g, None, 4, (4, 4), np.float32), 1)
    assert grouping.chain(low, call(low, "conv conv2d.forward")).calls == (call(low, "conv conv2d.forward"),)


def test_a_gradient_tells_what_it_passes_and_who_reads_it():
    low = lowering(nets.residual(), PLANS["frozen"])
    start = call(low, "relu1 relu.grad_x")
    way = grouping.arrival(low, start, *grouping.GRADIENTS)
    assert [c.name for c in way.passed] == ["relu1 relu.grad_x", "bn1 frozen_batch_norm.grad_x"]
    assert [c.name for c in way.readers] == ["conv1 conv2d.grad_w", "conv1 conv2d.grad_x"]
    assert way.dy is start.arrays["dy"] and way.dx.name == "bn1.dx"
    assert way.mask.name == "relu1.mask" and way.scale.name == "bn1.scale"
    assert grouping.arrival(low, start, *grouping.GRAD_W).readers == ()  # the gradient of x reads it, too
    alone = grouping.arrival(low, way.readers[0], *grouping.GRADIENTS)
    assert alone.passed == () and alone.readers == way.readers[:1] and alone.mask is alone.scale is None
    assert alone.dy is alone.dx is way.readers[0].arrays["dy"]


def test_the_later_of_two_norms_does_the_sum_of_their_branches():
    low = lowering(nets.residual(), PLANS["train"])
    known = grouping.norms(low)
    assert grouping.norms(low) is known and len(set(known.by_call.values())) == 4
    earlier, later = (known.by_call[call(low, f"{n} batch_norm.mean")] for n in ("down.bn", "bn2"))
    assert earlier.map.sum is None and later.map.sum.name == "sum add.forward"
    assert later.map.residual is earlier.map.y and later.map.pack.name == "relu2 relu.pack_mask"
    assert later.rectifier_grad.name == "relu2 relu.grad_x" and later.rows == 4 * 4
    assert [c.name for c in later.readers] == ["mean global_avg_pool.forward"]
    assert later.receives(later.rectifier_grad.arrays["dx"]) and not later.receives(later.map.y)
    conv = grouping.beside(low, call(low, "conv2 conv2d.grad_x"))
    assert conv.after is later and conv.before is known.by_call[call(low, "bn1 batch_norm.mean")]
    assert [c.name for c in conv.gradients] == ["conv2 conv2d.grad_w", "conv2 conv2d.grad_x"]


def test_a_norm_is_a_group_where_a_forward_pass_in_inference_mode_reads_its_running_statistics():
    low = Lowering(ri.compile(nets.residual(), PLANS["instances, train"], 4).step, 1)
    update = call(low, "bn1 batch_norm.update_mean")
    assert "uncertain" in {c.section for c in low.readers(update.writes[0])}
    known = grouping.norms(low).by_call
    assert update in known and all(c in known for c in low.calls if c.passed is batch_norm.mean)


def test_a_norm_whose_gradients_some_steps_do_without_is_no_group(backend):
    g = ri.Graph("ends", (4, 4), 2)
    x = g.conv2d("stem", "input", 3, 3, pad=1)
    x = g.add("sum", x, g.batch_norm("inner", g.conv2d("left out", x, 3, 3, pad=1)))
    x = g.relu("relu", g.conv2d("conv", g.batch_norm("bn", x), 3, 3, pad=1))
    g.linear("fc", g.global_avg_pool("mean", x), 2)
    plan = ri.Plan(2, depth=ri.StochasticDepth(0.5), batch_norm="train")
    low = lowering(g, plan)
    mean, back = call(low, "bn batch_norm.mean"), call(low, "bn batch_norm.grad_x")
    assert mean.when != back.when  # where the block is left out, nothing before the norm trains
    known = grouping.norms(low)
    assert mean not in known.by_call and call(low, "inner batch_norm.mean") in known.by_call
    assert grouping.beside(low, call(low, "conv conv2d.grad_x")).before is None
    for name in (backend, "fast"):
        ri.compile(g, plan, 4, backend=name)  # no launch covers calls of different steps


def test_a_sum_is_the_norms_where_a_convolution_could_do_it_too(backend):
    g = ri.Graph("both", (4, 4), 2)
    a = g.conv2d("a", "input", 3, 3, pad=1)
    b = g.batch_norm("b.bn", g.conv2d("b", "input", 3, 3, pad=1))
    g.linear("fc", g.global_avg_pool("mean", g.relu("relu", g.add("sum", b, a))), 2)
    low = lowering(g, PLANS["train"])
    norm = grouping.norms(low).by_call[call(low, "b.bn batch_norm.mean")]
    assert norm.map.sum.name == "sum add.forward" and norm.map.residual.name == "a"
    assert grouping.chain(low, call(low, "a conv2d.forward")).calls == (call(low, "a conv2d.forward"),)
    for name in (backend, "fast"):
        ri.compile(g, PLANS["train"], 4, backend=name)  # each call is covered once


def test_poolings_of_one_map_have_their_own_places():
    g = ri.Graph("pools", (4, 4), 2)
    x = g.relu("relu", g.conv2d("conv", "input", 3, 3, pad=1))
    g.linear("fc", g.global_avg_pool("mean", g.add("sum", g.max_pool("a", x, 2), g.max_pool("b", x, 2))), 2)
    low = lowering(g)
    for name in "ba":
        assert grouping.places(low, call(low, f"{name} max_pool.forward")) is call(low, f"{name} max_pool.argmax")
    low.groups[call(low, "a max_pool.argmax")] = None
    assert grouping.places(low, call(low, "a max_pool.forward")) is None
