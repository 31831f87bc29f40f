"""What a step finds in caches, followed page by page: the arrays in one loop, as `device.kernels` says in words."""

import numpy as np
import pytest

import refimpl as ri
from costmodel.device import kernels
from costmodel.device.kernels import PAGE, Caches
from refimpl import models
from refimpl.backends.cpu import tiles
from refimpl.surgery.for_step import outlined_for


def levels(program, caches, emptied):
    """`kernels._levels`, a page at a time."""
    pages, spans = kernels._spans(program)
    arena = tiles.ceil_div(program.peak_bytes, PAGE)
    fast, beyond = ((size - emptied) // PAGE for size in (caches.fast, max(caches.fast, caches.last)))
    last, seen, now = [0] * pages, {}, 0
    for turn in (0, 1):
        for launch, touched in zip(program.order, spans, strict=True):
            now += 1
            after = [0] * (now + 1)  # launch → pages that were touched last by a later one
            for launched in last:
                after[launched] += 1
            after = [sum(after[i + 1 :]) for i in range(now)]
            name, found = kernels.kernel(launch), np.zeros(4)
            whole = [page for first, end in touched for page in range(first, end)]
            for page in whole:
                between = after[last[page]] + len(whole)
                of_weights = page >= arena and name.startswith(("conv2d.forward", "conv2d.grad_w", "conv2d.grad_x"))
                found[0 if between <= fast else 1 if between <= beyond else 3 if of_weights else 2] += PAGE
            is_cold = after[seen.get(name, 0)] > fast
            for page in whole:
                last[page] = now
            seen[name] = now
            if turn:
                yield (*(found * sum(b.nbytes for b in launch.buffers) / max(found.sum(), 1)), is_cold)


@pytest.mark.parametrize("caches", [Caches(2**18, 2**20), Caches(2**17, 0), Caches(2**15, 2**18)], ids=str)
@pytest.mark.parametrize("emptied", [0, 2**16])
@pytest.mark.parametrize("rules", [(), (ri.GradientFilter(2),), (ri.SparseUpdate(0.5),)], ids=str)
def test_runs_of_pages_count_as_their_pages(caches, emptied, rules):
    plan = ri.Plan(2, rules, ri.Backprop(ri.SGD(0.1)))
    p = ri.compile(models.build("lenet5"), plan, 4, backend="fast", threads=2)
    found, wanted = (list(f(p, caches, emptied)) for f in (kernels._levels, levels))
    assert found == wanted and len({tuple(np.sign(row)) for row in wanted}) > 1


@pytest.mark.parametrize("bits", [None, "16w8a"])
@pytest.mark.parametrize("backend", ["fast", "reference"])
def test_what_draws_works_once_for_each_draw_of_each_element(bits, backend):
    graph = models.build("watch", classes=7)
    elements = [64 * 7, 7]
    for m in (1, 3):
        step = ri.ForwardGradient(m=m, bits=bits, optimizer=ri.SGD(0.01))
        program = ri.compile(outlined_for(step, graph), ri.Plan(0, step=step), 8, backend=backend, threads=1)
        drawn = [
            terms["mac"]
            for launch, terms in zip(program.order, kernels.work(program, Caches()), strict=True)
            if launch.covers[0].passed.operator.endswith("perturbation") and "J" in launch.covers[0].sizes
        ]
        assert sorted(drawn) == sorted([*elements, *(m * e for e in elements)])  # a look has one draw, the update m
