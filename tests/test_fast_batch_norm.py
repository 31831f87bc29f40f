"""Batch norm tables and whole-map kernels against PyTorch in float64."""

import numba
import numpy as np
import pytest
import torch
from fast_oracles import HIGH, LIMIT, LOW, assert_near, wide
from hypothesis import given, settings
from hypothesis import strategies as st

import refimpl as ri
from refimpl.backends.cpu import batch_norm

EPS, MOMENTUM = 1e-5, 0.1


@st.composite
def cases(draw):
    shape = draw(st.sampled_from([(2, 1, 1), (1, 3, 5), (3, 7, 6), (2, 33, 40), (2, 90, 91)]))
    case = {"shape": (*shape, draw(st.sampled_from([1, 5, 16, 24, 70]))), "act": draw(st.integers(0, 2))}
    case |= {"other": draw(st.sampled_from(["none", "plain", "normed"])), "training": draw(st.booleans())}
    return case | {"seed": draw(st.integers(0, 2**31))}


class Branch:
    """A raw map with the parameters of its batch norm, and the tables computed from them."""

    def __init__(self, rng, shape, dtype, training):
        c = shape[3]
        self.y = (rng.standard_normal(shape) * rng.uniform(0.5, 2, c) + rng.standard_normal(c)).astype(dtype)
        self.gamma, self.beta, self.mean = (rng.standard_normal(c).astype(dtype) for _ in range(3))
        self.var = rng.uniform(0.5, 2, c).astype(dtype)
        self.training, self.dtype, self.count = training, dtype, self.y[..., 0].size
        self.affine, self.moments = np.full((2, c), np.nan, dtype), np.full((2, c), np.nan)
        self.sums = np.full((batch_norm.slices(self.count, c), 2, c), np.nan)
        self.new_mean, self.new_var = self.mean.copy(), self.var.copy()
        if training:
            batch_norm.statistics(self.sums, self.y)
            batch_norm.training_table(
                self.affine, self.moments, self.new_mean, self.new_var, self.sums.copy(), self.gamma, self.beta,
                self.count, EPS, MOMENTUM,
            )  # fmt: skip
        else:
            batch_norm.frozen_table(self.affine, self.moments, self.mean, self.var, self.gamma, self.beta, EPS)

    def spread(self):
        """Terms of a·y + b, counting those of var = S2 / M − mean² from which a comes: they cancel in a small batch."""
        mean, rstd = self.moments
        terms = 1 + ((wide(self.y) ** 2).mean((0, 1, 2)) + mean**2) * rstd**2 * self.training
        return abs(wide(self.affine[0])) * (abs(wide(self.y)) + abs(mean)) * terms + abs(wide(self.beta)), terms

    def torch(self):
        """(leaves y, gamma, beta; normalised map; running statistics) in float64."""
        leaves = [torch.tensor(wide(v), requires_grad=True) for v in (self.y, self.gamma, self.beta)]
        mean, var = torch.tensor(wide(self.mean)), torch.tensor(wide(self.var))
        out = torch.nn.functional.batch_norm(
            leaves[0].permute(0, 3, 1, 2), mean, var, leaves[1], leaves[2], self.training, MOMENTUM, EPS
        )
        return leaves, out.permute(0, 2, 3, 1), (mean, var)

    def finish(self, sums, g):
        """(dy, dgamma, dbeta) from the gradient g behind the norm and its sums."""
        c = self.gamma.shape[0]
        coef, dgamma, dbeta = np.full((3, c), np.nan, self.dtype), np.empty(c, self.dtype), np.empty(c, self.dtype)
        batch_norm.gradient_table(
            coef, dgamma, dbeta, sums.copy(), self.moments, self.gamma, self.count, int(self.training)
        )
        dy = np.full_like(g, np.nan)
        batch_norm.apply_gradient(dy, g, self.y if self.training else np.empty((0,) * 4, self.dtype), coef)
        return dy, dgamma, dbeta


def run(case, dtype):
    rng = np.random.default_rng(case["seed"])
    none4, none3, none2 = np.empty((0,) * 4, dtype), np.empty((0, 0, 0)), np.empty((0, 0), dtype)
    main = Branch(rng, case["shape"], dtype, case["training"])
    side = Branch(rng, case["shape"], dtype, case["training"])
    other = none4 if case["other"] == "none" else side.y
    z = np.full(case["shape"], np.nan, dtype)
    batch_norm.normalize(
        z, main.y, main.affine, other, side.affine if case["other"] == "normed" else none2, case["act"]
    )
    before = np.empty_like(z)
    batch_norm.normalize(before, main.y, main.affine, other, side.affine if case["other"] == "normed" else none2, 0)
    dz = rng.standard_normal(case["shape"]).astype(dtype)
    dz[np.minimum(abs(before), abs(before - 6)) < 1e-3] = 0  # rounding decides on which side of the kink these fall
    g, sums, other_sums = np.full_like(dz, np.nan), np.full_like(main.sums, np.nan), np.full_like(main.sums, np.nan)
    normed = case["other"] == "normed"
    batch_norm.gradient(
        g, dz, none4 if case["other"] == "none" else z, main.y, main.affine, sums, side.y if normed else none4,
        other_sums if normed else none3, case["act"],
    )  # fmt: skip
    return main, side, z, dz, g, sums, other_sums


@pytest.mark.parametrize("dtype", LIMIT)
@given(case=cases())
@settings(max_examples=35, deadline=None)
def test_against_torch(dtype, case):
    main, side, z, dz, g, sums, other_sums = run(case, dtype)
    leaves, out, running = main.torch()
    side_leaves, side_out, _ = side.torch()
    if case["other"] != "none":
        out = out + (side_out if case["other"] == "normed" else side_leaves[0])
    want = torch.clamp(out, LOW[case["act"]], HIGH[case["act"]])
    span = main.spread()[0]
    if case["other"] != "none":
        span = span + (side.spread()[0] if case["other"] == "normed" else abs(wide(side.y)))
    assert_near(z, want.detach().numpy(), span, dtype, "z")
    if case["training"]:
        assert_near(main.new_mean, running[0].numpy(), abs(wide(main.mean)) + 1, dtype, "running mean")
        assert_near(main.new_var, running[1].numpy(), wide(main.var), dtype, "running var")
    want.backward(torch.tensor(wide(dz)))
    branches = [(main, leaves, sums)] + ([(side, side_leaves, other_sums)] if case["other"] == "normed" else [])
    for branch, (y, gamma, beta), partial in branches:
        dy, dgamma, dbeta = branch.finish(partial, g)
        # terms of the sums: g, and g times the normalised value; of dy: each of those once more through the means
        normed = abs(wide(branch.y) - branch.moments[0]) * branch.moments[1]
        raw = abs(wide(branch.y)) * branch.moments[1] + abs(branch.moments[0]) * branch.moments[1]
        cancel = branch.spread()[1]
        terms, products = abs(wide(g)), abs(wide(g)) * raw * cancel
        assert_near(dbeta, beta.grad.numpy(), terms.sum((0, 1, 2)), dtype, "dbeta")
        assert_near(dgamma, gamma.grad.numpy(), products.sum((0, 1, 2)), dtype, "dgamma")
        scale = abs(branch.gamma * branch.moments[1]) * (
            terms * cancel + terms.mean((0, 1, 2)) + (normed + raw) * products.mean((0, 1, 2))
        )
        assert_near(dy, y.grad.numpy(), scale, dtype, "dy")


def test_kinks_stop_the_gradient():
    c = 20
    y = np.tile(np.array([-1, 0, 3, 6, 7], np.float32)[:, None, None, None], (1, 1, 1, c))
    affine, g, dz = np.stack([np.ones(c), np.zeros(c)]).astype(np.float32), np.empty_like(y), np.ones_like(y)
    none4, sums = np.empty((0,) * 4, np.float32), np.empty((1, 2, c))
    for act, passed in ((0, [1, 1, 1, 1, 1]), (1, [0, 0, 1, 1, 1]), (2, [0, 0, 1, 0, 0])):
        batch_norm.gradient(g, dz, none4, y, affine, sums, none4, np.empty((0, 0, 0)), act)
        assert g[:, 0, 0, 3].tolist() == passed
        assert sums[0, :, 3].tolist() == [sum(passed), np.dot(passed, y[:, 0, 0, 3])]


def test_slices_are_added_in_order():
    parts = np.random.default_rng(0).standard_normal((5, 3, 700)).astype(np.float32)
    out = np.empty((3, 700), np.float32)
    batch_norm.add_slices(out, parts)
    want = parts[0].copy()
    for part in parts[1:]:
        want += part
    assert np.array_equal(out, want)


def test_same_bits_for_any_number_of_threads():
    case = {"shape": (2, 90, 91, 24), "act": 2, "other": "normed", "training": True, "seed": 2}
    before, found = numba.get_num_threads(), []
    for threads in (1, 2):
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        main, _, z, _, g, sums, other_sums = run(case, np.float32)
        found.append([main.affine, main.new_var, z, g, sums, other_sums, *main.finish(sums, g)])
    numba.set_num_threads(before)
    assert all(np.array_equal(one, two) for one, two in zip(*found, strict=True))


def activated_before(activation: str) -> ri.Graph:
    """A training norm whose map a 1×1 convolution alone reads, with an activation and no norm after that."""
    g = ri.Graph("before", (4, 5), 2)
    x = g.relu("relu", g.batch_norm("bn", g.conv2d("stem", "input", 3, 1)))
    y = getattr(g, activation)("act", g.conv2d("pointwise", x, 4, 1))
    g.linear("fc", g.global_avg_pool("mean", g.conv2d("last", y, 3, 3, pad=1)), 3)
    return g


@pytest.mark.parametrize("activation", ["relu", "relu6"])
def test_a_gradient_through_an_activation_reads_a_map_that_is_written_nowhere_through_its_table(activation):
    rng, found = np.random.default_rng(2), {}
    x, y = rng.normal(size=(4, 4, 5, 2)).astype(np.float32), rng.integers(0, 3, 4)
    for backend in ("reference", "fast"):
        program = ri.compile(activated_before(activation), ri.Plan(batch_norm="train"), 4, backend=backend)
        t = ri.Trainer(program, seed=1)
        t.runner.block.fill(0xFF)
        t.train_step(x, y, 1)
        found[backend] = {name: view.copy() for name, view in t.runner.gradients("", t.trained[""])}
        written = {b.root for launch in program.order for b in launch.writes} | {*program.step.host_writes.values()}
        assert all(b.root in written or b.root.region != "arena" for launch in program.order for b in launch.reads)
    for name, gradient in found["reference"].items():
        np.testing.assert_allclose(found["fast"][name], gradient, rtol=1e-3, atol=1e-5, err_msg=name)
