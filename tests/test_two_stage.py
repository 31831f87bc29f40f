"""Few items with long sums in two stages: which passes say so, what it gives, holds and executes."""

import math

import numpy as np
import pytest
from own import in_stages

import refimpl as ri
from costmodel import predict
from costmodel.formulas import cost
from refimpl.compiler.executed import CUT
from refimpl.compiler.lower import BACKENDS, register_backend
from refimpl.compiler.two_stage import Pays, slices_of
from refimpl.kernels.passes import ShapeError, declare, dims, dtype_of
from validation.instruments import drawn, drawn_passes, measured

PASSES = {name: p for name, p in drawn_passes.passes().items() if p.sums}
SMALL = 4000  # loads and stores of a drawn call that runs in plain Python
ALWAYS = Pays(items=10**9, terms=1)


def can_be_cut(passed, letter):
    """May the arrays that a pass reads be cut along a letter?"""
    entries = [d for a in passed.arrays for d in dims(passed.shapes[a])]
    written = [d for a in passed.writes for d in dims(passed.shapes[a])]
    return not (letter in written or letter in passed.indices.values() or "/" in letter) and not any(
        "/" in d and letter in d.split("/") for d in entries
    )


def arrays_of(case, rng):
    """Random arrays of a drawn call, all that it reads."""
    found = {}
    for a in case.passed.reads:
        if a in case.passed.optional and a not in case.present:
            continue
        shape, dtype = case.passed.shape(a, case.sizes), dtype_of(case.passed.shapes[a], np.float64)
        if a in case.passed.examples:
            found[a] = np.asarray(case.passed.examples[a](case.sizes)).astype(dtype)
        elif a in case.passed.indices:
            found[a] = rng.integers(0, case.sizes[case.passed.indices[a]], shape).astype(dtype)
        else:
            found[a] = rng.uniform(0.5, 1.5, shape).astype(dtype)
    return found


def ran(passed, arrays, attrs, sizes):
    """What a pass writes, by its body in plain Python."""
    new = {a: np.empty(passed.shape(a, sizes), dtype_of(passed.shapes[a], np.float64)) for a in passed.writes}
    args = passed.arguments(arrays | new, attrs, np.float64)
    with np.errstate(all="ignore"):
        for t in range(passed.count_items(sizes)):
            passed.body(t, *args)
    return new


def added(passed, arrays, attrs, sizes, letter, at):
    """The same from two slices that meet at an index along a letter; None where one of them cannot stand alone."""
    total = {a: 0.0 for a in passed.writes}
    for part in (slice(0, at), slice(at, sizes[letter])):
        own = {**sizes, letter: part.stop - part.start}
        try:
            if passed.derive:
                passed.derive(own, attrs)
        except ShapeError:
            return None
        seen = {}
        for a, v in arrays.items():
            letters = dims(passed.shapes[a])
            seen[a] = v[(*(slice(None),) * letters.index(letter), part)] if letter in letters else v
        for a, v in ran(passed, seen, attrs, own).items():
            total[a] = total[a] + v * passed.divisors.get(a, lambda sizes: 1)(own)
    return {a: v / passed.divisors.get(a, lambda sizes: 1)(sizes) for a, v in total.items()}


def adds(passed, letter, wanted=6):
    """Is a pass the sum of its slices in every one of some drawn calls?"""
    found = []
    for seed in range(500):
        case, rng = drawn_passes.pass_case(str(passed), seed), np.random.default_rng(seed)
        units = cost.counts(passed.operator, passed.name, case.sizes, case.attrs, case.present)
        if case.sizes[letter] < 2 or units.get("load", 0) + units.get("store", 0) > SMALL:
            continue
        arrays = arrays_of(case, rng)
        both = added(passed, arrays, case.attrs, case.sizes, letter, int(rng.integers(1, case.sizes[letter])))
        if both is None:
            continue
        whole = ran(passed, arrays, case.attrs, case.sizes)
        found.append(all(np.allclose(both[a], whole[a], rtol=1e-11, atol=1e-12) for a in whole))
        if len(found) == wanted:
            return all(found)
    raise AssertionError(f"of 500 drawn calls of {passed} only {len(found)} can be tried along {letter}")


@pytest.mark.parametrize("name", sorted(PASSES))
def test_a_pass_states_exactly_the_letters_along_which_it_adds(name):
    passed = PASSES[name]
    letters = [d for d in passed.sums if can_be_cut(passed, d)]
    assert set(passed.adds) <= set(letters)
    assert {d for d in letters if adds(passed, d)} == set(passed.adds)


def test_a_statement_that_cannot_be_is_refused():
    for sums, stated, message in (
        ("K", "N", "adds are letters of its sums and divisors are of what it writes: {'N'}"),
        ("K G", "G", "no arrays can be cut into slices along G, so it adds nothing along it"),
        ("K M", "M", "no arrays can be cut into slices along M"),
    ):
        with pytest.raises(TypeError, match=message):

            @declare({"x": "N K", "y": "N", "w": "K/G"}, items="N", writes="y", sums=sums, adds=stated)
            def forward(t, y, x, w): ...


def net(norm=False, groups=1):
    """A convolution, with a norm behind it or a bias, and a classifier."""
    g = ri.Graph("small", (9, 8), 2)
    x = g.conv2d("conv", "input", 4, 3, groups=groups, bias=not norm)
    g.linear("fc", g.flatten("flat", g.batch_norm("bn", x) if norm else x), 3)
    return g


FC = {"fc linear.grad_w", "fc linear.grad_b"}
PLANS = {  # the net, its plan, the calls that are cut
    "bias": (net(), ri.Plan(train_bias=True), FC | {"conv conv2d.grad_w", "conv conv2d.grad_b"}),
    "norm": (
        net(norm=True), ri.Plan(batch_norm="train", loss="mse"),
        FC | {"conv conv2d.grad_w", "loss mse.mean_loss"}
        | {f"bn batch_norm.{name}" for name in ("mean", "var", "grad_gamma", "grad_beta")},
    ),
    "filter": (net(), ri.Plan(rules=[ri.GradientFilter(2)]), FC | {"conv gradient_filter.patch_grad_w"}),
    "ratio": (net(groups=2), ri.Plan(rules=[ri.SparseUpdate(0.5)]), FC | {"conv sparse_update.grad_w"}),
}  # fmt: skip


@pytest.fixture
def stages():
    """Registers a backend with two stages where they pay."""
    registered = []

    def register(pays=ALWAYS):
        name = f"stages {len(registered)}"
        registered.append(name)
        register_backend(name, in_stages.InStages(pays))
        return name

    yield register
    for name in registered:
        del BACKENDS[name]


def compiled(key, backend, threads=1):
    graph, plan, _ = PLANS[key]
    return ri.compile(graph, plan, 6, backend=backend, threads=threads, dtype=np.float64)


def data(key, samples=14):
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(samples, 9, 8, 2)), rng.integers(0, 3, samples)
    return x, np.eye(3)[y] if PLANS[key][1].loss == "mse" else y


def trained(key, backend, threads=1):
    """A trainer after two epochs of batches of 6, 6 and 2."""
    t = ri.Trainer(compiled(key, backend, threads), seed=2)
    t.fit(*data(key), 2)
    return t


def in_two(program):
    """Names of the calls in two stages."""
    return {launch.name for launch in program.order if launch.function in CUT}


@pytest.mark.parametrize("key", PLANS)
def test_it_trains_as_the_reference(key, stages):
    mine, theirs = trained(key, stages()), trained(key, "reference")
    assert in_two(mine.program) == PLANS[key][2]
    np.testing.assert_allclose(mine.losses, theirs.losses, rtol=1e-12)
    state, other = mine.resume_arrays(), theirs.resume_arrays()
    for name, value in other.items():
        np.testing.assert_allclose(state[name], value, rtol=1e-11, atol=1e-14, err_msg=name)


@pytest.mark.parametrize("key", ["bias", "norm"])
@pytest.mark.parametrize("n", [6, 5, 1])
def test_gradients_are_those_of_the_reference(key, n, stages):
    if key == "norm" and n == 1:
        n = 2
    found = []
    for backend in (stages(Pays(items=150, terms=10)), "reference"):
        t = ri.Trainer(compiled(key, backend), seed=2)
        x, y = data(key, n)
        t.train_step(x, y, 1)  # nothing of the backward section's gradients is overwritten by the update
        found.append({name: t.runner.array(b).copy() for name, b in t.program.step.gradients.items()})
    for name, g in found[1].items():
        assert np.linalg.norm(found[0][name] - g) <= 1e-13 * np.linalg.norm(g), name


def test_bits_depend_neither_on_threads_nor_on_the_run(stages):
    name = stages()
    first, *others = [trained("norm", name, threads).resume_arrays() for threads in (1, 1, 2)]
    for other in others:
        for key, value in first.items():
            np.testing.assert_array_equal(other[key], value, err_msg=key)


@pytest.mark.parametrize("key", PLANS)
def test_partial_results_have_their_place_in_memory(key, stages):
    program = compiled(key, stages())
    order, checked = program.order, 0
    for i, launch in enumerate(order):
        if launch.function in CUT:
            for partial, follower in zip(launch.writes, order[i + 1 :], strict=False):
                assert follower.covers == () and follower.reads == (partial,)
                lifetime = program.lifetimes[partial]
                assert lifetime.first == i and order[lifetime.last] is follower
                assert lifetime.nbytes == partial.shape[0] * follower.writes[0].nbytes
                checked += 1
    assert checked >= len(PLANS[key][2])
    t = ri.Trainer(program, seed=2)
    x, y = data(key, 6)
    assert measured.touched_bytes(program, x, y, t.parameters) == program.peak_bytes


@pytest.mark.parametrize("key", PLANS)
@pytest.mark.parametrize("n", [6, 5])
def test_what_they_execute_is_what_their_bodies_do(key, n, stages):
    program = compiled(key, stages(Pays(items=500, terms=5)))
    compared = drawn.compare_kernels(program, n)
    assert len(compared) >= 2 * len(in_two(program)) >= 2
    for one in compared:
        assert one.ok, one


def test_the_additions_of_the_second_stage_are_executed_and_not_counted(stages):
    mine, theirs = (predict.estimate(compiled("bias", b)) for b in (stages(), "reference"))
    assert mine.units == theirs.units
    extra = 0
    for launch in mine.program.order:
        if launch.function in CUT:
            partial = launch.writes[0]
            extra += math.prod(partial.shape[1:]) * (partial.shape[0] - 1)
    assert mine.executed_flops == theirs.executed_flops + extra > theirs.executed_flops


def call_of(program, name):
    return next(c for c in program.step if c.name == name)


def test_a_call_is_cut_where_it_has_few_items_and_long_sums():
    program = compiled("bias", "reference")
    grad_b = call_of(program, "conv conv2d.grad_b")  # 4 items of 6·7·6 terms
    assert slices_of(grad_b, Pays(4, 1)) is None
    assert slices_of(grad_b, Pays(5, 1)) == ("N", 3, 2)
    assert slices_of(grad_b, Pays(28, 36)) == ("P", 1, 7)
    assert slices_of(grad_b, Pays(28, 126)) == ("N", 3, 2)
    assert slices_of(grad_b, Pays(28, 127)) is None
    grad_x = call_of(program, "fc linear.grad_x")  # a row for each sample
    assert grad_x.passed.adds == ["K"] and slices_of(grad_x, ALWAYS) is None
    assert slices_of(call_of(program, "conv conv2d.forward"), ALWAYS) is None


def test_a_single_value_has_no_variance_and_is_no_slice():
    g = ri.Graph("wide", (1, 5), 2)
    g.linear("fc", g.flatten("flat", g.batch_norm("bn", "input")), 3)
    program = ri.compile(g, ri.Plan(batch_norm="train"), 4, backend="reference")
    assert (
        slices_of(call_of(program, "bn batch_norm.var"), ALWAYS).letter == "N"
    )  # of W, one sample would leave one value
    assert slices_of(call_of(program, "bn batch_norm.mean"), ALWAYS).letter == "W"


def test_what_a_smaller_batch_leaves_of_the_partial_results_is_not_looked_at(stages):
    t = trained("bias", stages())
    x, y = data("bias", 2)
    t.runner.block[...] = 255  # NaN, whatever lies there
    t.fill(t.runner, x)
    t.put(y)
    t.begin("", 2, 1)
    for section in t.program.sections:
        assert t.runner.first_bad(section, 2) is None
