"""Prices ask the dtypes of a program's arrays: the same step in float64 next to float32."""

from dataclasses import replace

import numpy as np
import pytest

import refimpl as ri
from costmodel import closed_form
from costmodel.advice import advice, expected_error
from costmodel.advice.screening import Screen
from costmodel.device import kernels, process
from costmodel.device.device import find
from costmodel.device.kernels import Caches
from refimpl import models

PLAN = ri.Plan("all", rules=(ri.SparseUpdate(0.5),), batch_norm="train", step=ri.Backprop(ri.SGD(0.1)))
DENSE = ri.Plan("all", step=ri.Backprop(ri.SGD(0.1)))


def programs(plan, model="resnet8", batch=4, **how):
    return (ri.compile(models.build(model), plan, batch, dtype=dtype, **how) for dtype in (np.float32, np.float64))


def test_resident_memory_asks_the_arrays():
    single, double = (process.terms(p, process.Base(0, 0), 0, 0) for p in programs(DENSE))
    for term in ("weights", "kept", "batch"):
        assert double[term] == 2 * single[term] > 0
    p = next(programs(DENSE))
    first = next(iter(p.step.parameters.values()))
    first.dtype = np.dtype(np.int8)  # a quantized parameter takes a byte an element
    assert process.terms(p, process.Base(0, 0), 0, 0)["weights"] == single["weights"] - 3 * first.nbytes


@pytest.mark.parametrize("model", ["resnet8", "lenet5", "watch"])
def test_what_tiles_go_over_again_asks_the_arrays(model):
    """A product's kernel, or the gradient of it, that does not stay in the fast cache from one tile to the next."""
    found = 0
    for launches in zip(*(p.order for p in programs(DENSE, model)), strict=True):
        (single, often), (double, again) = (kernels.amounts(x, 2).get("again", (0, 1)) for x in launches)
        assert double == 2 * single and often == again
        found += single > 0
    assert found > 3
    middle = [sum(t.get("middle", 0) for t in kernels.work(p, Caches(64, 2**30))) for p in programs(DENSE, model)]
    assert middle[1] == pytest.approx(2 * middle[0], rel=0.05)  # but for masks and labels


def test_closed_forms_are_those_of_the_dtype():
    single, double = programs(PLAN, backend="reference")
    for p in (single, double):
        form = closed_form.of(p.graph, PLAN, 4, fixed=("H", "W", "width"), dtype=p.dtype.name)
        found = form.bytes_at(N=4)
        assert found["weights"] == sum(b.nbytes for b in p.step.parameters.values())
        assert found["saved"] == p.saved_bytes
    assert double.saved_bytes > 1.8 * single.saved_bytes


def test_screening_is_that_of_the_precision():
    graph = models.build("resnet8")
    points = [(1, None), (8, None)]
    single, double = (
        Screen(graph, DENSE, None, dtype).at(points, find("reference"), 1)[0] for dtype in ("float32", "float64")
    )
    assert (1.8 * single < double).all() and (double <= 2 * single).all()


def test_advice_screens_each_precision_by_itself(monkeypatch):
    graph, found = models.build("lenet5"), {}
    table = expected_error.ErrorTable({"measured": {"classifier": 0.5, "exact": [0.25, 0.25], "methods": {}}})
    for precisions in (("float32",), ("float64",), ("float32", "float64")):
        monkeypatch.setattr(advice, "PRECISIONS", precisions)
        search = advice.Search(graph, find("raspberry-pi-4"), 64, "fast", 2, advice.searched()[:1], (1, 8), table)
        found[precisions] = {c: row for c, row in zip(search.candidates, search.screened.tolist(), strict=True)}
    single, double, both = found.values()
    assert both == single | double and len(both) == 2 * len(single)
    fixed, ram = find("raspberry-pi-4").base.fixed, find("raspberry-pi-4").ram_bytes
    for c, (memory, _, _, share) in double.items():
        other = single[replace(c, precision="float32")]
        assert 1.8 * other[0] < memory <= 2 * other[0]
        grown = (share * ram - fixed) / (other[3] * ram - fixed)  # but for the runtime
        assert 1.8 < grown < 2 + 1e-9
