"""Drawn cases of every pass and method: reproducible, all equal, and a wrong formula or arena shows with its seed."""

import re
from collections import Counter

import pytest

from costmodel.formulas import cost
from refimpl.methods.stochastic_depth import residual_blocks
from refimpl.plan.combinations import COMBINATIONS, METHODS
from validation.instruments import drawn, drawn_nets, drawn_passes, measured


@pytest.fixture
def formula(monkeypatch):
    """Puts another formula in a pass's place."""

    def replace(operator, name, change):
        monkeypatch.setitem(cost.COSTS, (operator, name), change(cost.cost(operator, name)))
        cost._function.cache_clear()

    yield replace
    monkeypatch.undo()
    cost._function.cache_clear()


def test_every_pass_does_what_its_formula_says():
    told = []
    found = drawn.run_passes(3, 7, lambda *progress: told.append(progress))
    assert found["wrong"] == [] and found["mismatches"] == 0
    assert found["passes"].keys() == drawn_passes.passes().keys() and len(found["passes"]) > 70
    assert all(n["cases"] == 3 for n in found["passes"].values())
    assert found["cases"] == 3 * len(found["passes"]) == told[-1][1] > found["full"] > found["cases"] / 2
    assert told[0] == (0, found["cases"], "absolute_value.forward")


def test_a_wrong_formula_is_found_with_its_seed(formula, capsys):
    formula("conv2d", "grad_w", lambda c: c + cost.N * cost.K * cost.add)
    found = drawn.run_passes(2, 1)
    assert found["mismatches"] == found["passes"]["conv2d.grad_w"]["mismatches"] == 2 == len(found["wrong"])
    first = found["wrong"][0]
    assert first["case"] == "conv2d.grad_w" and first["seed"] == 1_000_000
    assert first["command"] == "python -m validation.instruments.drawn conv2d.grad_w 1000000"
    assert re.search(r"\): add \d+ by the formula, \d+ by the loops$", first["what"])
    assert drawn.main(["conv2d.grad_w", "1000000"]) == 1
    assert first["what"].split(": ")[-1] in capsys.readouterr().out


def test_a_missing_formula_is_a_mismatch(monkeypatch):
    monkeypatch.delitem(cost.COSTS, ("relu", "forward"))
    cost._function.cache_clear()
    assert drawn.compare_pass("relu.forward", 0).problem.startswith("relu.forward has no cost: register one")
    assert not drawn.compare_pass("relu.forward", 0).ok


def test_an_unknown_unit_counts_as_zero():
    assert not drawn.Compared("x", {"mul": 1}, {"mul": 1, "exp": 1}).ok
    assert str(drawn.Compared("x", {"mul": 1}, {"mul": 1, "exp": 2})) == "x: exp 0 by the formula, 2 by the loops"


@pytest.mark.parametrize("name", ["conv2d.grad_x", "max_pool.forward", "sgd.momentum_step"])
def test_a_case_follows_from_name_and_seed(name):
    cases = {str(drawn_passes.pass_case(name, seed)) for seed in range(20)}
    assert len(cases) > 15
    assert cases == {str(drawn_passes.pass_case(name, seed)) for seed in range(20)}


def test_drawn_geometry_reaches_groups_strides_padding_and_real_sizes():
    cases = [drawn_passes.pass_case("conv2d.forward", seed) for seed in range(60)]
    sizes = [c.sizes for c in cases]
    assert {True, False} == {z["G"] > 1 for z in sizes} == {max(c.attrs["stride"]) > 1 for c in cases}
    assert any(1 < z["G"] == z["C"] == z["K"] for z in sizes) and any(1 < z["G"] < z["C"] for z in sizes)
    assert max(z["H"] for z in sizes) > 15 and max(z["C"] for z in sizes) > 100
    assert any(c.attrs["pad"][0][0] != c.attrs["pad"][0][1] for c in cases) and {(), ("b",)} == {
        c.present for c in cases
    }


def test_arrays_of_several_dtypes_are_drawn_with_each():
    found = [drawn_passes.pass_case("quantized_perturbation.perturb", seed) for seed in range(30)]
    assert {str(c.dtypes["w"]) for c in found} == {"int8", "int16", "int32"}
    assert all(c.dtypes["w"] == c.dtypes["moved"] and f"w of {c.dtypes['w']}" in str(c) for c in found)
    assert not drawn_passes.pass_case("quantized_add.forward", 0).dtypes


def test_nets_take_every_method_and_every_pair_in_turn():
    sets = [drawn_nets.methods_of(seed) for seed in range(len(drawn_nets.sets()))]
    assert {m for methods in sets for m in methods} == set(METHODS)
    assert {pair for pair, found in COMBINATIONS.items() if found.supported} <= set(sets)


def test_nets_and_plans_compile_and_follow_from_the_seed():
    programs = {}
    for seed in range(2 * len(drawn_nets.sets())):
        case = drawn_nets.net_case(seed)
        programs[seed] = str(case)
        assert set(case.program.plan.methods or ["backprop"]) == set(case.methods)
        assert "stochastic-depth" not in case.methods or residual_blocks(case.program.graph)
    assert len(set(programs.values())) == len(programs)
    again = drawn_nets.net_case(5)
    assert str(again) == programs[5] and (again.x == drawn_nets.net_case(5).x).all()


def test_nets_do_what_is_predicted():
    operations, memory = drawn.run_nets(3)
    assert operations["wrong"] == memory["wrong"] == []
    assert (operations["cases"], operations["mismatches"], memory["checked"], memory["mismatches"]) == (3, 0, 3, 0)
    assert memory["filled"] == 3
    assert operations["calls"] > 50 and list(operations["methods"]) == list(METHODS[:3])
    assert [seed for seed, _, _ in memory["arenas"]] == [0, 1, 2]
    assert all(predicted == touched > 0 for _, predicted, touched in memory["arenas"])


@pytest.mark.parametrize("outside", [False, True])
def test_a_wrong_arena_is_found_with_its_seed(monkeypatch, capsys, outside):
    def touched_bytes(program, *arrays):
        if outside:
            raise AssertionError("a kernel wrote outside the arena")
        return program.peak_bytes + 4

    monkeypatch.setattr(measured, "touched_bytes", touched_bytes)
    operations, memory = drawn.run_nets(2, 3)
    assert operations["mismatches"] == 0 and memory["mismatches"] == len(memory["wrong"]) == 2
    named = Counter(name for seed in (3_000_000, 3_000_001) for name in drawn_nets.methods_of(seed))
    assert memory["methods"] == {name: {"cases": n, "mismatches": n} for name, n in named.items()}
    assert memory["wrong"][0]["command"] == "python -m validation.instruments.drawn net 3000000"
    assert ("a kernel wrote outside the arena" if outside else " bytes touched") in memory["wrong"][0]["what"]
    assert drawn.main(["net", "3000000"]) == 1
    assert memory["wrong"][0]["what"].split(": ")[-1] in capsys.readouterr().out


def test_an_array_that_nothing_touches_is_named(monkeypatch):
    monkeypatch.setattr(measured, "touched_bytes", lambda program, *arrays: 1)
    _, memory = drawn.run_nets(1)
    assert re.search(r" 1 bytes touched, above which lies \w", memory["wrong"][0]["what"])


def test_a_working_array_that_a_tiny_net_does_not_fill_counts_whole(monkeypatch):
    monkeypatch.setattr("refimpl.ops._REGISTERED", {})  # what other tests register would be in the net

    def highest(program):
        scratch = {b.root for launch in program.order for b in launch.scratch}
        return max(at + b.nbytes for b, at in program.offsets.items() if b not in scratch)

    cases = map(drawn_nets.net_case, range(1000))
    case = next(c for c in cases if highest(c.program) < c.program.peak_bytes)
    end, problem = drawn.touched(case)
    assert highest(case.program) <= end <= case.program.peak_bytes and not problem
    assert drawn.beside(case.program, end) == "" and drawn.beside(case.program, highest(case.program) - 1) != ""


def test_a_net_that_does_not_compile_is_a_mismatch(monkeypatch, capsys):
    def net_case(seed):
        raise AssertionError("sum add.forward is covered by a and b")

    monkeypatch.setattr(drawn_nets, "net_case", net_case)
    operations, memory = drawn.run_nets(1)
    assert (operations["mismatches"], memory["mismatches"], memory["checked"]) == (1, 0, 0)
    assert operations["wrong"][0]["what"] == (
        "backprop: the net: does not compile: sum add.forward is covered by a and b"
    )
    assert drawn.main(["net", "0"]) == 1 and "does not compile" in capsys.readouterr().out


def test_a_wrong_formula_shows_in_nets(formula, monkeypatch):
    monkeypatch.setattr(drawn, "touched", lambda case: (case.program.peak_bytes, ""))
    formula("linear", "grad_b", lambda c: 2 * c)
    operations, memory = drawn.run_nets(12)
    assert operations["mismatches"] == len(operations["wrong"]) >= 3 and memory["mismatches"] == 0
    assert all("linear.grad_b" in w["what"] for w in operations["wrong"])


@pytest.mark.parametrize("args", [[], ["net"], ["nett", "1"], ["net", "x"], ["net", "-1"], ["net", "1", "2"]])
def test_bad_arguments_are_answered_in_one_sentence(capsys, args):
    assert drawn.main(args) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "python -m validation.instruments.drawn NAME SEED" in err


def test_a_good_case_is_shown(capsys):
    assert drawn.main(["linear.forward", "3"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("linear.forward\n  mac   D*K*N\n") and out.endswith("equal\n")
