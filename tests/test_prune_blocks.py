"""Block pruning inside a graph: where it stands, what it leaves alone, how much of real maps it zeroes."""

import numpy as np
import pytest
from nets import NETS

import oracles
import refimpl as ri
from checks import distance
from refimpl.surgery import prune as pr


def inserted(graph) -> list:
    return [n.inputs[0] for n in graph.nodes if n.op == "block_prune"]


def weighted(name, seed=0) -> ri.Graph:
    """A net with the weights of its seed."""
    graph = NETS[name]()
    graph.weights = ri.Trainer(ri.compile(graph, None, 1), seed).parameters
    return graph


def samples(graph, n=4) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, *graph.shape("input")[1:])).astype(np.float32)


def step(graph, backend="reference") -> ri.Trainer:
    """A trainer after one step."""
    trainer = ri.Trainer(ri.compile(graph, ri.Plan(), 4, backend=backend))
    trainer.fit(samples(graph), np.arange(4) % 3, 1)
    return trainer


@pytest.mark.parametrize(
    ("name", "maps"),
    [
        ("residual", ["pool0", "relu1"]),
        ("depthwise", ["stem.relu6", "expand.relu6", "dw.relu6", "sum", "grouped"]),
        ("watch", ["pool1", "pool2"]),
    ],
)
def test_by_default_every_map_that_a_convolution_reads_is_pruned(name, maps):
    graph = NETS[name]()
    pruned = pr.with_block_pruning(graph, 2, 0.1)
    assert inserted(pruned) == maps
    names = {m: f"{m}.block_prune" for m in maps}
    for node in graph.nodes:
        assert pruned.node(node.name).inputs == tuple(names.get(t, t) for t in node.inputs)
        assert pruned.node(node.name).attrs == node.attrs
    assert pruned.parameters == graph.parameters
    assert {tuple(n.attrs.values()) for n in pruned.nodes if n.op == "block_prune"} == {((2, 2), 0.1)}


@pytest.mark.parametrize("backend", ["reference", "fast"])
@pytest.mark.parametrize("name", ["residual", "watch"])
def test_threshold_0_leaves_a_step_as_it_is(name, backend):
    graph = weighted(name)
    plain = step(graph, backend)
    with_blocks = step(pr.with_block_pruning(graph, (1, 2), 0.0), backend)
    assert np.isclose(with_blocks.losses, plain.losses, rtol=1e-6).all()
    for p in plain.parameters:
        assert distance(with_blocks.parameters[p], plain.parameters[p]) < 1e-5


def test_a_huge_threshold_leaves_biases_only():
    graph = weighted("residual")
    pruned = pr.with_block_pruning(graph, 2, 1e30, after=["relu2"])
    trainer = step(pruned)
    before = graph.weights
    for p in pr.trainable(graph):
        assert np.array_equal(before[p], trainer.parameters[p]) == (p != "fc.b"), p
    assert np.ptp(trainer.predict(samples(graph)), axis=0).max() == 0


def test_both_tiers_take_the_same_step():
    graph = pr.with_block_pruning(weighted("residual"), 2, 0.7)
    steps = [step(graph, backend) for backend in ("reference", "fast")]
    for p in steps[0].parameters:
        assert distance(steps[1].parameters[p], steps[0].parameters[p]) < 1e-5


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_backward_keeps_the_mask_and_what_convolutions_need(backend):
    graph = pr.with_block_pruning(NETS["residual"](), 2, 0.7, after=["relu1"])
    saved = {b.name: b for b in ri.compile(graph, ri.Plan(), 4, backend=backend).saved}
    assert "relu1" not in saved and "relu1.block_prune" in saved
    assert saved["relu1.block_prune.mask"].shape == (4, 3)  # 2 × 2 blocks of 6 channels: 24 bits


def only_blocks(threshold=0.8) -> ri.Graph:
    """A net whose pruned map is the rectified input."""
    g = ri.Graph("only_blocks", (5, 7), 3)
    x = g.conv2d("conv", g.relu("relu", "input"), 2, 3)
    g.linear("fc", g.global_avg_pool("mean", x), 3)
    g.weights = ri.Trainer(ri.compile(g, None, 1)).parameters
    return pr.with_block_pruning(g, (2, 3), threshold)


def test_zeroed_blocks_are_counted_over_all_batches():
    graph = only_blocks()
    x = samples(graph, 5)
    (found,) = pr.zeroed_blocks(graph, x, batch=2).values()
    a = {"x": np.maximum(x, 0), "dy": np.ones_like(x)}
    expected = oracles.block_prune(a, {"block": (2, 3), "threshold": np.float32(0.8)})
    bits = np.unpackbits(expected["mask"], axis=1, bitorder="little").sum()
    blocks = 5 * 3 * 3 * 3
    assert (found.blocks, found.zeroed) == (blocks, blocks - bits)
    assert 0 < found.zeroed < blocks and found.share == found.zeroed / blocks
    assert found.dense_bytes == x.nbytes
    assert found.kept_bytes == 4 * expected["dx"].sum() + expected["mask"].nbytes


@pytest.mark.parametrize(("threshold", "share"), [(0.0, 0.0), (1e30, 1.0)])
def test_shares_at_both_ends(threshold, share):
    graph = only_blocks(threshold)
    (found,) = pr.zeroed_blocks(graph, samples(graph)).values()
    assert found.share == share
    assert found.kept_bytes == (1 - share) * found.dense_bytes + 4 * 4  # ⌈27 / 8⌉ bytes of mask a sample


def test_a_higher_threshold_zeroes_more_in_every_map():
    graph = weighted("depthwise")
    x = samples(graph, 8)
    low, high = (pr.zeroed_blocks(pr.with_block_pruning(graph, 2, t), x) for t in (0.1, 0.4))
    first = next(iter(low))  # what comes after it is pruned less or more already
    assert list(low) == [n.name for n in pr.with_block_pruning(graph, 2, 0.1).nodes if n.op == "block_prune"]
    assert low[first].zeroed < high[first].zeroed


def test_refused():
    graph = weighted("residual")
    with pytest.raises(ValueError, match=r"after names conv9, mean, but residual computes no such map \(N, H, W, C\)"):
        pr.with_block_pruning(graph, 2, 0.1, after=["mean", "conv9", "relu1"])
    with pytest.raises(ri.ShapeError, match=r"node pool0.block_prune \(block_prune\): threshold must be at least 0"):
        pr.with_block_pruning(graph, 2, -1)
    with pytest.raises(ValueError, match="residual has no block_prune: make one by with_block_pruning"):
        pr.zeroed_blocks(graph, samples(graph))
    pruned = pr.with_block_pruning(graph, 2, 0.1)
    with pytest.raises(ValueError, match=r"x must be \(M, H, W, 3\) with M ≥ 1, but its shape is \(7, 6, 3\)"):
        pr.zeroed_blocks(pruned, samples(graph)[0])
    del pruned.weights["fc.w"]
    with pytest.raises(ValueError, match="weights has no array fc.w"):
        pr.zeroed_blocks(pruned, samples(graph))
