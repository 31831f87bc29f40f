import pkgutil
import re
from pathlib import Path

import numpy as np
import pytest

import refimpl.ops
from refimpl.graph import Graph
from refimpl.kernels.passes import ShapeError, canonical, declare, dims, dtypes_of, merged, read_sizes
from refimpl.ops import operator, relu, sgd


def test_merged_axes():
    assert dims("uint8: N B") == ["N", "B"] and dims("N E*") == ["N", "E"]
    assert merged("N E*", (2, 3, 4, 5)) == (2, 60) and merged("N E*", (2, 3)) == (2, 3)
    assert merged("N E*", (2,)) == (2, 1) and merged("E*", (2, 3)) == (6,)
    assert read_sizes({"x": "N E*"}, {"x": np.ones((0, 3, 2))}) == {"N": 0, "E": 6}


def test_results_have_the_unmerged_shape_of_the_inputs():
    x = np.ones((2, 3, 4, 5))
    y = relu.forward(x)
    assert y.shape == x.shape and relu.grad_x(x, relu.pack_mask(y)).shape == x.shape
    assert sgd.step(x, x, np.ones(1)).shape == x.shape


def test_in_place_passes_leave_their_arguments_alone():
    w = np.ones((2, 3))
    assert not np.array_equal(sgd.step(w, w, np.ones(1)), w) and (w == 1).all()


def test_merged_arrays_must_have_one_shape():
    with pytest.raises(ShapeError, match=r"dw has shape \(3, 2\), but w has \(2, 3\)"):
        sgd.step(np.ones((2, 3)), np.ones((3, 2)), np.ones(1))


def test_graph_keeps_the_shape_of_element_by_element_nodes():
    graph = Graph("net", (6, 6), 3)
    graph.relu("b", graph.linear("fc", graph.flatten("f", graph.relu("a", "input")), 4))
    assert graph.shapes(5)["a"] == (5, 6, 6, 3) and graph.shapes(5)["b"] == (5, 4)


def test_unknown_operator():
    with pytest.raises(KeyError, match="there is no operator 'rely' in refimpl.ops"):
        operator("rely")


@pytest.mark.parametrize(
    "items, writes, message",
    [
        ("N E", "dz", "it writes dz, which must be among its parameters and in SHAPES"),
        ("N K", "y", "its items run over K, a letter of none of its arrays"),
    ],
)
def test_a_declaration_that_its_arrays_do_not_bear_out_is_refused(items, writes, message):
    with pytest.raises(TypeError, match=rf"^test_passes\.forward: {message}$"):

        @declare({"x": "N E*", "y": "N E*"}, items=items, writes=writes)
        def forward(t, y, x):
            """Nothing."""


def test_a_switch_is_true_or_false():
    assert canonical("bias", 1, False) is True and canonical("bias", np.False_, True) is False
    for value in ("yes", 2, None):
        with pytest.raises(ShapeError, match=f"^bias must be True or False, got {value!r}$"):
            canonical("bias", value, False)


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(refimpl.ops.__path__)])
def test_who_has_a_gradient_goes_through_the_checks(name):
    """Oracle, slope, PyTorch, counts and threads; one of many inputs is checked in graphs.

    Whole numbers have no slope: they are held against a statement in integers, a whole step at a time (test_niti.py).
    """
    op = operator(name)
    written = (a for p in op.passes.values() for a in p.writes if a.startswith("d") and a[1:] in op.shapes)
    gradients = [a for a in written if not dtypes_of(op.shapes[a])]
    if gradients and all(dtypes_of(op.shapes[local]) for local in op.inputs if local in op.shapes):
        pytest.skip("a gradient through whole numbers has no slope: tests/test_quantized_gradients.py")
    if gradients and not op.bind:
        path = Path(__file__).with_name(f"test_{name}.py")
        stated = re.search(rf'= Subject\(\s*"{name}"', path.read_text(encoding="utf-8") if path.exists() else "")
        assert stated, f"{name} computes {', '.join(gradients)}: state a Subject of it (tests/checks.py) in {path.name}"
