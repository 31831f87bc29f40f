"""A method from a folder of its own is found everywhere, and no list of the packages names a method."""

import ast
import json
import subprocess
import sys
from dataclasses import make_dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from nets import NETS
from own.comb import Comb
from own.learnt import Learnt

import refimpl as ri
from costmodel import closed_form, predict
from costmodel.advice import advice
from costmodel.advice.expected_error import ErrorTable
from costmodel.device.device import find
from gradledger import advise_plot, options, recipe
from refimpl.methods.layer import Rule
from refimpl.methods.registry import Grid, Statement, Tried, forget_method, known, register_method
from refimpl.plan import combinations
from refimpl.training.trainer import Trainer
from tools.docs import sources
from validation.instruments import drawn, drawn_nets, drawn_passes, snapshot
from validation.instruments.counting import count_call

ROOT = Path(__file__).parents[1]
PACKAGES = ("refimpl", "costmodel", "validation", "gradledger", "tools")


@pytest.fixture(autouse=True)
def comb():
    register_method(Comb)
    yield
    forget_method("comb")


def compiled(texts, backend="reference", net="residual"):
    chosen = options.methods(texts)
    return ri.compile(NETS[net](), options.plan(chosen, None, 0.0), 5, backend=backend, threads=1)


@pytest.mark.parametrize("backend", ["reference", "fast"])
@pytest.mark.parametrize("texts", [["comb:every=2"], ["comb:every=3", "error-map-pruning:keep=0.5"]], ids=" + ".join)
def test_it_trains_and_what_is_counted_is_what_is_priced(texts, backend):
    p = compiled(texts, backend, "depthwise")
    trainer = Trainer(p, seed=2)
    before = {name: a.copy() for name, a in trainer.parameters.items()}
    x = np.random.default_rng(1).normal(size=(5, *p.size, 3)).astype(np.float32)
    losses = trainer.fit(x, np.arange(5) % 3, epochs=3)
    assert np.isfinite(losses).all() and len(set(losses)) > 1
    every, moved = p.plan.rules[0].every, 0
    for node in p.graph.nodes:
        if node.op == "conv2d":
            change = np.abs(trainer.parameters[node.params["w"]] - before[node.params["w"]]).max((0, 1, 2))
            assert not change[np.arange(len(change)) % every > 0].any()
            moved += change[::every].any()
    assert moved
    assert "comb" in {call.passed.operator for call in p.step}
    for call in p.step:
        assert dict(predict.call_counts(call, 5)) == count_call(call, 5), call.name


def test_its_closed_form_is_the_price_at_other_settings():
    form = closed_form.of(NETS["residual"](), ri.Plan(rules=[Comb(2)]))
    for every in (1, 2, 3, 5):
        program = ri.compile(NETS["residual"](), ri.Plan(rules=[Comb(every)]), 3, backend="reference", threads=1)
        assert form.at(N=3, every=every) == predict.estimate(program).units


def test_drawn_nets_have_it_and_do_what_is_predicted(monkeypatch):
    sets = drawn_nets.sets()
    own = [i for i, methods in enumerate(sets) if "comb" in methods]
    assert {("comb",), ("error-map-pruning", "comb"), ("random-skip", "comb")} <= {sets[i] for i in own}
    for seed in own:
        assert Comb in map(type, drawn_nets.net_case(seed).program.plan.rules) and drawn.show("net", seed)
    monkeypatch.setattr(Comb, "drawn", classmethod(lambda cls, pick, other: cls(pick(3, 5))), raising=False)
    drawn_settings = {drawn_nets.net_case(own[0] + i * len(sets)).program.plan.rules[0].every for i in range(20)}
    assert drawn_settings == {3, 4, 5}


def test_it_combines_as_it_states():
    pairs = combinations.COMBINATIONS
    assert pairs["error-map-pruning", "comb"] == combinations.Combination(True, "dx is pruned, dw is the comb's")
    assert pairs["random-skip", "comb"].supported and pairs["comb", "stochastic-depth"].supported
    for other, why in (("gradient-filter", "neither says"), ("bias-only", "trains no weights"), ("backprop", "alone")):
        with pytest.raises(options.Malformed, match=why):
            options.methods(["comb", other])
    assert ("random-skip", "comb", "stochastic-depth") in list(snapshot.combinations())
    assert snapshot.plan_of(("comb",)).rules == (Comb(),)


def test_a_trait_says_what_it_does_with_others(monkeypatch):
    monkeypatch.setattr(Comb, "states", replace(Comb.states, traits=("prunes",)))
    found = combinations.pairs()["comb", "gradient-filter"]
    assert found.supported and found.text.startswith("the kept channels of the error map are filtered")
    assert combinations.pairs()["error-map-pruning", "comb"].text == "dx is pruned, dw is the comb's"  # by its name
    monkeypatch.setattr(Comb, "states", replace(Comb.states, refuses={"filters": "one of the two"}))
    assert combinations.pairs()["comb", "gradient-filter"] == combinations.Combination(False, "one of the two")


def test_what_it_states_of_layers_and_of_checks_is_done(monkeypatch):
    variants = {"=5": ({"every": 5}, {"train_bias": True})}
    stated = replace(Comb.states, at_most=(1, "its errors add up"), tried=Tried({"every": 3}, variants=variants))
    monkeypatch.setattr(Comb, "states", stated)
    graph, plan = NETS["residual"](), ri.Plan(rules=[Comb()], step=ri.Backprop(ri.SGD(0.5)))
    chosen = recipe.with_layers(plan, graph, None)
    assert (chosen.train_last, recipe.with_layers(plan, graph, "all").train_last) == (1, "all")
    assert recipe.reasons(chosen, graph, 32)[-1].endswith("the default here: its errors add up")
    assert options.layers_rule().startswith("all, with comb at most the last 1, with gradient-filter at most")
    assert snapshot.plan_of(("comb",)).rules == (Comb(3),)
    variant = snapshot.plans("lenet5")["comb=5"]
    assert (variant.rules, variant.train_bias) == ((Comb(5),), True)


@pytest.mark.parametrize("by_gradient", [False, True])
def test_a_rule_gives_its_passes_constants_and_numbers(by_gradient):
    register_method(Learnt)
    try:
        plan = ri.Plan(rules=[Learnt(by_gradient)], train_bias=True, step=ri.Backprop(ri.SGD(lr=0.5)))
        graph = ri.models.lenet5(classes=3)
        trainer, dense = (Trainer(ri.compile(graph, p, 4), seed=3) for p in (plan, replace(plan, rules=())))
    finally:
        forget_method("learnt")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, *trainer.program.size, 1)).astype(np.float32), np.arange(4) % 3
    before = {name: a.copy() for name, a in trainer.parameters.items()}
    dense.train_step(x, y, 9)
    for _ in range(2):
        trainer.train_step(x, y, 9)
    for node in ("conv1", "conv2"):
        w = before[f"{node}.w"]
        scale = np.abs((w - dense.parameters[f"{node}.w"]) / 0.5 if by_gradient else w).sum((0, 1, 2))
        moved = before[f"{node}.b"] - trainer.parameters[f"{node}.b"]
        np.testing.assert_allclose(moved, 0.5 * scale * (1 + 2), rtol=1e-3, atol=1e-5)
    saved = {name: a.copy() for name, a in trainer.resume_arrays().items()}
    assert {"scale/conv1", "scale/conv2"} <= saved.keys() if by_gradient else "scale/conv1" not in saved
    if by_gradient:
        with pytest.raises(ValueError, match="^the saved run's scale/conv2 has a sum below 0$"):
            trainer.resume(saved | {"scale/conv2": -saved["scale/conv2"]}, 2, [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("comb:every=0", "^method comb: every must be at least 1, got 0$"),
        ("comb:every=x", "^every of comb must be a whole number, got 'x'$"),
        ("comb:ever=2", "^there is no setting of comb 'ever'; did you mean 'every'[?] known: every$"),
        ("com", "^there is no method 'com'; did you mean 'comb'[?]"),
    ],
)
def test_bad_settings_are_refused(text, message):
    with pytest.raises(options.Malformed, match=message):
        options.methods([text])


def test_the_command_line_offers_it():
    start = (
        "import sys; from own.comb import Comb; from refimpl.methods.registry import register_method as r; r(Comb); "
    )
    start += "from gradledger.cli import app; sys.argv = ['gradledger', *sys.argv[1:]]; app()"

    def run(*words):
        command = [sys.executable, "-c", start, "cost", *words]
        env = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PATH": "", "HOME": str(Path.home()), "COLUMNS": "200"}
        return subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout

    assert "comb:every=2" in run("--help")
    found, dense = (
        json.loads(run("--model", "lenet5", "--train-last", "all", "--json", "--device", "raspberry-pi-4", *method))
        for method in (["--method", "comb:every=3"], ["--method", "backprop"])
    )
    assert found["macs"] < dense["macs"]


def test_the_advice_searches_it_where_its_error_was_measured():
    graph, points = NETS["residual"](), [{"every": n, "dot": [0.1], "square": [0.1]} for n in (2, 3)]
    nets = {"net": {"classifier": 0.5, "exact": [0.5], "methods": {}}}

    def names(net):
        table = ErrorTable({"net": nets["net"] | {"methods": net}})
        search = advice.Search(graph, find("raspberry-pi-4"), 8, "reference", 1, batches=(1,), table=table)
        return {c.text for c in search.candidates}

    assert {"comb:every=2", "comb:every=3"} <= names({"comb": points})
    assert names({}) == {"backprop"}
    assert advise_plot.markers()["comb"] == "P"


def test_the_tables_of_the_docs_have_it():
    assert "| `every` | a whole number | 2 |" in sources.settings("comb")
    assert "dx is pruned, dw is the comb's" in sources.combines("error-map-pruning")
    assert "every n-th output channel" in sources.equations("comb").lower()
    assert "(methods/comb.md)" in sources.method_links()
    assert "| error-map-pruning | comb | yes: dx is pruned" in combinations.combinations_table()


def test_two_methods_of_one_name_and_half_a_statement_are_refused():
    with pytest.raises(ValueError, match="^the method comb is registered twice: give one of them another name$"):
        register_method(type("Other", (), {"method": "comb", "states": Comb.states}))
    with pytest.raises(ValueError, match="^the kind of a method must be one of plain, .*, got 'filter'$"):
        Statement("filter", 1, "x")
    with pytest.raises(ValueError, match="^the traits of a method are of prunes, filters, got 'prune'$"):
        Statement("rule", 1, "x", traits=("prune",))
    with pytest.raises(ValueError, match="^a method that states a grid for the advice needs a mark"):
        Statement("rule", 1, "x", mark="o")


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"states": None}, "^the class Other must have states to be a method$"),
        ({"method": None}, "^the class Other must have method to be a method$"),
        ({"settings": {"evry": int}}, "^settings of the method other must be of every, layers, got 'evry'$"),
        ({"priced": ("evry",)}, "^priced of the method other must be of every, got 'evry'$"),
        ({"grid": Grid("evry", (2,)), "mark": "x"}, "^the grid of the method other must be of every, got 'evry'$"),
    ],
)
def test_a_method_that_states_what_it_has_not_is_refused(stated, message):
    parts = {"method": "other", "priced": ("every",), "states": Statement("rule", 1, "x", {"every": int})}
    parts["states"] = replace(parts["states"], **{k: v for k, v in stated.items() if k not in parts})
    parts |= {k: v for k, v in stated.items() if k in parts}
    parts = {k: v for k, v in parts.items() if v is not None}
    with pytest.raises(ValueError, match=message):
        register_method(make_dataclass("Other", [("every", int, 2)], namespace=parts, frozen=True))
    assert "other" not in known()


def test_a_rule_without_passes_is_told():
    other = make_dataclass("Other", [], bases=(Rule,), namespace={"states": Comb.states, "method": "o"}, frozen=True)
    with pytest.raises(NotImplementedError, match=r"^the rule Other must have bind\(node\), which adds its passes$"):
        ri.compile(NETS["residual"](), ri.Plan(rules=[other()]), 2)


def test_its_passes_are_drawn_with_the_others(capsys):
    assert all(drawn.compare_pass("comb.grad_w", seed).ok for seed in range(30))
    assert {drawn_passes.pass_case("comb.grad_w", seed).attrs["every"] for seed in range(30)} == {1, 2, 3, 4}
    forget_method("comb")
    with pytest.raises(KeyError, match="there is no pass 'comb.grad_w' of an operator or a method, here or registered"):
        drawn.compare_pass("comb.grad_w", 0)
    register_method(Comb)


def ours() -> dict[str, type]:
    """The methods of this package; of backprop, the plain method and a common word, none is counted."""
    return {n: m for n, m in known().items() if m.states.kind != "plain" and m.__module__.startswith("refimpl.")}


def named_in(path: Path) -> set[str]:
    """Methods that a file names in its code: a string that is or begins with its name, its class, its module."""
    found, every = set(), ours()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    words = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" not in node.value:
            words.add(node.value)
        elif isinstance(node, ast.Name):
            words.add(node.id)
        elif isinstance(node, ast.Attribute):
            words.add(node.attr)
        elif isinstance(node, ast.alias):
            words |= set(node.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            words |= set((node.module or "").split("."))
    for name, method in every.items():
        own = {method.__name__} if name in SHARED else {method.__name__, name, name.replace("-", "_")}
        if own & words or name not in SHARED and any(name in word.split(":")[0].split() for word in words):
            found.add(name)
    return found


# Names that other things have too, of which the class alone is counted.
SHARED = {"quantized": "what tells the scale of an array of whole numbers"}
MOST = 3  # files that may name a method beside its own, its tests, experiments and benchmarks


def test_few_other_files_name_a_method():
    found: dict[str, list[str]] = {name: [] for name in ours()}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            where = path.relative_to(ROOT).as_posix()
            if where.startswith(("validation/experiments/", "validation/bench/", "validation/campaign/")):
                continue
            for name in named_in(path):
                own = Path(sys.modules[known()[name].__module__].__file__).stem
                if path.stem != own and not path.stem.startswith(f"{own}_"):
                    found[name].append(where)
    for name, files in found.items():
        print(f"{name}: {len(files)}: {', '.join(files)}")
    assert {name: files for name, files in found.items() if len(files) > MOST} == {}
