"""Operators of ONNX at which gradients stop: read as onnxruntime runs them, and what they freeze."""

import json

import numpy as np
import pytest

import refimpl as ri

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx_models import as_ours, by_runtime, floats, ours, saved  # noqa: E402

from gradledger import cli  # noqa: E402
from refimpl.formats.onnx import imported, load_onnx  # noqa: E402
from refimpl.formats.onnx.exporting import exported  # noqa: E402
from refimpl.formats.onnx.value import FORWARD, TRAINS  # noqa: E402

FLOAT, INT64, BOOL = 1, 7, 9
HALF = np.float32(0.5)


def to(kind, x, y):
    return "Cast", [x], [y], {"to": kind}


def compared(op, *inputs):
    return op, list(inputs), ["c"], {}


COMPARED = ("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal")
BOTH = [("Round", ["x"], ["r"], {}), ("Neg", ["r"], ["f"], {})]  # equal where they are 0
CASES = {  # nodes, constants
    **{op: ([(op, ["x"], ["y"], {})], {}) for op in ("Floor", "Ceil", "Round", "Sign")},
    "to whole numbers": ([to(INT64, "x", "i"), to(FLOAT, "i", "y")], {}),
    "to truth": ([("Floor", ["x"], ["f"], {}), to(BOOL, "f", "b"), to(FLOAT, "b", "y")], {}),
    **{f"{op} of two": ([*BOTH, compared(op, "r", "f"), to(FLOAT, "c", "y")], {}) for op in COMPARED},
    **{f"{op} a number": ([BOTH[0], compared(op, "r", "n"), to(FLOAT, "c", "y")], {"n": np.float32(1)})
       for op in COMPARED},
    "a number below": ([compared("Less", "n", "x"), to(FLOAT, "c", "y")], {"n": HALF}),
    "above an array": ([compared("Greater", "x", "n"), to(FLOAT, "c", "y")], {"n": floats(4, 1, 6)}),
    "not": ([compared("Greater", "x", "n"), ("Not", ["c"], ["d"], {}), to(FLOAT, "d", "y")], {"n": HALF}),
    **{op: ([compared("Greater", "x", "n"), ("Less", ["x", "m"], ["d"], {}), (op, ["c", "d"], ["e"], {}),
             to(FLOAT, "e", "y")], {"n": n, "m": -n}) for op, n in (("And", -HALF), ("Or", HALF), ("Xor", HALF / 2))},
    "one of two": ([compared("Greater", "x", "n"), ("Neg", ["x"], ["m"], {}), ("Where", ["c", "x", "m"], ["y"], {})],
                   {"n": HALF}),
    "a number in the place": ([compared("Greater", "x", "n"), ("Where", ["c", "n", "x"], ["y"], {})], {"n": HALF}),
    "an array in the place": ([compared("Greater", "x", "n"), ("Where", ["c", "a", "x"], ["y"], {})],
                              {"n": HALF, "a": floats(4, 1, 6)}),
    "a mask": ([("Where", ["m", "x", "n"], ["y"], {})], {"m": floats(5, 6) > 0, "n": np.float32(-2)}),
    "a mask that is spread": (
        [("GlobalAveragePool", ["x"], ["g"], {}), compared("Less", "g", "n"), ("Where", ["c", "x", "n"], ["y"], {})],
        {"n": np.float32(0.1)}),
    "what is left of a mean": (
        [("GlobalAveragePool", ["x"], ["g"], {}), compared("Less", "g", "x"), ("Where", ["c", "x", "g"], ["y"], {})],
        {}),
    **{f"places of the {k} {kind} along axis {axis}": (
        [("TopK", ["x", "k"], ["v", "i"], {"axis": axis, "largest": int(kind == "largest")}), to(FLOAT, "i", "y")],
        {"k": np.array([k])}) for k, kind, axis in ((3, "largest", 1), (5, "smallest", 2), (2, "largest", -1))},
    "the largest, weighed by their places": (
        [("TopK", ["x", "k"], ["v", "i"], {"axis": 2}), to(FLOAT, "i", "f"), ("Mul", ["v", "f"], ["y"], {})],
        {"k": np.array([4])}),
    "the largest features": (
        [("Flatten", ["x"], ["f"], {}), ("TopK", ["f", "k"], ["v", "i"], {}), ("Neg", ["v"], ["y"], {})],
        {"k": np.array([7])}),
    **{f"one of {depth} along axis {axis}": (
        [("Round", ["x"], ["r"], {}), to(INT64, "r", "i"), ("OneHot", ["i", "d", "v"], ["y"], {"axis": axis})],
        {"d": np.array(depth), "v": np.array([-0.5, 2], np.float32)}) for depth, axis in ((3, -1), (2, 1), (4, 3))},
    "a row for the largest": (
        [("ArgMax", ["x"], ["a"], {"axis": 1, "keepdims": 0}), ("OneHot", ["a", "d", "v"], ["h"], {"axis": 1}),
         ("Mul", ["h", "x"], ["y"], {})], {"d": np.array([4]), "v": np.array([0, 1], np.float32)}),
    "larger": ([("Neg", ["x"], ["m"], {}), ("Max", ["x", "m"], ["y"], {})], {}),
    "smaller": ([("Min", ["n", "x"], ["y"], {})], {"n": HALF}),
    "larger than a mean": ([("GlobalAveragePool", ["x"], ["g"], {}), ("Max", ["g", "x"], ["y"], {})], {}),
    **{f"{op} along {axis}, {last}": ([
        BOTH[0], (op, ["r"], ["i"], {"axis": axis, "keepdims": keeps, "select_last_index": last}), to(FLOAT, "i", "f"),
        ("Neg", ["f"], ["y"], {})],
        {}) for op in ("ArgMax", "ArgMin") for axis, keeps, last in ((1, 1, 0), (2, 0, 1), (-1, 0, 0))},
    "spread": ([("GlobalAveragePool", ["x"], ["g"], {}), ("Expand", ["g", "to"], ["y"], {})],
               {"to": np.array([1, 4, 2, 3])}),
    "spread along channels": ([("ReduceMax", ["x", "a"], ["g"], {}), ("Expand", ["g", "to"], ["y"], {})],
                              {"to": np.array([3, 5, 6]), "a": np.array([1])}),
    "an array that is wider": (
        [("ReduceMax", ["x", "a"], ["r"], {}), ("Mul", ["r", "w"], ["m"], {}), ("Sub", ["v", "m"], ["y"], {})],
        {"a": np.array([2, 3]), "w": floats(4, 1, 3), "v": floats(1, 1, 2, 1)}),
    "each wider than the other": (
        [("ReduceMax", ["x", "a"], ["r"], {}), ("ReduceMax", ["x", "b"], ["s"], {}), ("Sub", ["r", "s"], ["y"], {})],
        {"a": np.array([2]), "b": np.array([1, 3])}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_operator_without_a_gradient_gives_what_onnxruntime_gives(tmp_path, case):
    nodes, constants = CASES[case]
    path = saved(tmp_path / "a.onnx", nodes, ("batch", 4, 5, 6), 18, constants=constants)
    x = floats(2, 4, 5, 6)
    x[0, 0, 0, 0] = 0.5
    wanted, y = by_runtime(path, x), ours(path, x)
    assert y.shape == wanted.shape and np.unique(wanted).size > 1
    np.testing.assert_allclose(y, wanted, 1e-5, 1e-5)


NODES = [("Conv", ["x", "front.weight"], ["c"], {}), ("Round", ["c"], ["r"], {}), ("Relu", ["r"], ["q"], {}),
         ("Conv", ["q", "behind.weight"], ["d"], {}), ("GlobalAveragePool", ["d"], ["g"], {}),
         ("Flatten", ["g"], ["f"], {}), ("Gemm", ["f", "fc.weight"], ["y"], {})]  # fmt: skip
GATED = [NODES[0], ("Greater", ["c", "n"], ["above"], {}), ("Where", ["above", "c", "n"], ["q"], {}), *NODES[3:]]


def net(path, nodes=NODES):
    weights = {"front.weight": floats(4, 3, 3, 3), "behind.weight": floats(5, 4, 3, 3), "fc.weight": floats(5, 3)}
    return saved(path, nodes, ("n", 3, 9, 8), constants=weights | {"n": np.float32(0)}, rank=2)


def test_what_lies_before_is_frozen_and_told(tmp_path):
    found = imported(net(tmp_path / "a.onnx"))
    told = {t.op: (t.what, t.why) for t in found.told}
    assert told["Round"] == (FORWARD, "gradients stop here: this freezes front")
    assert {what for op, (what, _) in told.items() if op != "Round"} == {TRAINS}
    assert found.notes == ["gradients stop at Round: 1 layers before that are frozen"]


def test_a_condition_freezes_nothing_that_has_another_way(tmp_path):
    found = imported(net(tmp_path / "a.onnx", GATED))
    told = {t.op: (t.what, t.why) for t in found.told}
    assert told["Greater"] == (FORWARD, "gradients stop here: no layer is frozen by that")
    assert told["Where"] == (TRAINS, "") and not found.notes
    assert found.graph.frozen() == []


@pytest.mark.parametrize("nodes, moves", [(NODES, False), (GATED, True)])
def test_the_rest_trains_and_is_written_back(tmp_path, nodes, moves):
    path = net(tmp_path / "a.onnx", nodes)
    graph, x = load_onnx(path), floats(6, 3, 9, 8)
    trainer = ri.Trainer(ri.compile(graph, ri.Plan(step=ri.Backprop(ri.SGD(0.05))), 6), 0)
    y = np.arange(6) % 3
    losses = [trainer.train_step(as_ours(x), y, 40) for _ in range(40)]
    assert losses[-1] < 0.9 * losses[0]
    (tmp_path / "b.onnx").write_bytes(exported(path, graph.stored, trainer.parameters, {}))
    before, after = (
        {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(tmp_path / f"{n}.onnx").graph.initializer}
        for n in "ab"
    )
    assert np.array_equal(before["front.weight"], after["front.weight"]) != moves
    assert not np.array_equal(before["behind.weight"], after["behind.weight"])
    np.testing.assert_allclose(by_runtime(tmp_path / "b.onnx", x), trainer.predict(as_ours(x)), 1e-4, 1e-4)


def test_check_says_what_is_forward_only(tmp_path, capsys):
    path = str(net(tmp_path / "a.onnx"))
    with pytest.raises(SystemExit, match="0"):
        cli.main(["check", path, "--json"])
    found = json.loads(capsys.readouterr().out)
    rows = {row["op"]: row["forward"] for row in found["operators"]}
    assert rows["Round"] == [{"node": "Round_1", "why": "gradients stop here: this freezes front"}]
    assert not any(row for op, row in rows.items() if op != "Round")
    assert {layer["name"]: layer["trains"] for layer in found["layers"]} == {
        "front": None, "behind": "counted", "fc": "always"
    }  # fmt: skip
    with pytest.raises(SystemExit, match="0"):
        cli.main(["check", path])
    said = " ".join(capsys.readouterr().out.split())
    assert "forward only: gradients stop here: this freezes front (Round_1)" in said
    assert "gradients stop at Round: 1 layers before that are frozen" in said
    assert "1 convolutions that --train-last counts" in said


def test_places_of_maxima_at_the_end_are_left_out(tmp_path):
    nodes = [*NODES[:-1], ("Gemm", ["f", "fc.weight"], ["s"], {}), ("ArgMax", ["s"], ["y"], {"axis": 1})]
    found = imported(net(tmp_path / "a.onnx", nodes))
    assert "the net ends with ArgMax; it trains, and gives scores, before it" in found.notes
    assert found.graph.shape(found.graph.output) == (1, 3)


def test_the_largest_at_the_end_are_left_out_and_train_elsewhere(tmp_path):
    top = ("TopK", ["s", "k"], ["v", "i"], {"axis": 1})
    ends = [*NODES[:-1], ("Gemm", ["f", "fc.weight"], ["s"], {}), top]
    weights = {"front.weight": floats(4, 3, 3, 3), "behind.weight": floats(5, 4, 3, 3), "fc.weight": floats(5, 3)}
    more = {"constants": weights | {"k": np.array([2])}, "rank": 2}
    found = imported(saved(tmp_path / "a.onnx", ends, ("n", 3, 9, 8), output="v", **more))
    assert "the net ends with TopK; it trains, and gives scores, before it" in found.notes
    found = imported(saved(tmp_path / "b.onnx", [*ends, ("Neg", ["v"], ["y"], {})], ("n", 3, 9, 8), **more))
    assert {t.op: t.what for t in found.told}["TopK"] == TRAINS and found.graph.shape(found.graph.output) == (1, 2)
    found = imported(saved(tmp_path / "c.onnx", [*ends, to(FLOAT, "i", "y")], ("n", 3, 9, 8), **more))
    assert {t.op: t.what for t in found.told}["TopK"] == FORWARD and len(found.graph.frozen()) == 3


@pytest.mark.parametrize("nodes, why", [
    ([("TopK", ["x", "k"], ["v", "i"], {"axis": 2}), ("Neg", ["v"], ["y"], {})], "it takes 9 of the 5 elements along"),
    ([("TopK", ["x", "k"], ["v", "i"], {"axis": 0}), ("Neg", ["v"], ["y"], {})], "it works along samples"),
    ([("OneHot", ["x", "k", "n"], ["y"], {"axis": 0})], "it makes a new axis before samples"),
    ([("Gather", ["x", "zero"], ["d"], {"axis": 1}), ("ReduceMax", ["d"], ["m"], {"axes": [1, 2], "keepdims": 0}),
      ("OneHot", ["x", "m", "n"], ["y"], {})], "its depth depends on the input of the graph"),
])  # fmt: skip
def test_what_of_these_is_not_read(tmp_path, nodes, why):
    constants = {"k": np.array([9]), "n": np.array([0, 1], np.float32), "zero": np.array(0)}
    used = {name for _, ins, _, _ in nodes for name in ins}
    kept = {name: a for name, a in constants.items() if name in used}
    found = imported(saved(tmp_path / "a.onnx", nodes, ("n", 4, 5, 6), constants=kept))
    assert why in found.missing[0].why
