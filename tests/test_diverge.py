"""Training that diverges stops in a sentence that names the layer where the first NaN or infinity arises."""

import re

import numpy as np
import pytest
from nets import NETS

import refimpl as ri
from refimpl.kernels.running import threads
from refimpl.training.trainer import Runner, Trainer, new_block

BATCH = 6


def judge() -> ri.Graph:
    g = ri.Graph("judge", (7, 6), 3)
    g.linear("fc", g.flatten("flat", g.relu("relu", g.conv2d("conv", "input", 4, 3, pad=1))), 2)
    return g


EMP, GF, SU = ri.ErrorMapPruning(0.5), ri.GradientFilter(2), ri.SparseUpdate(0.4)
PLANS = {
    "plain": {},
    "gradient-filter": {"rules": (GF,)},
    "error-map-pruning": {"rules": (EMP,)},
    "sparse-update": {"rules": (SU,)},
    "all rules": {"rules": (EMP, SU, GF)},
    "bias-only": {"bias_only": True},
    "batch norm": {"batch_norm": "train"},
    "random-skip": {"instances": ri.RandomSkip(0.3)},
    "hard-examples": {"instances": ri.HardExamples(0.5)},
    "hard-examples, batch norm": {"instances": ri.HardExamples(0.5), "batch_norm": "train"},
    "instance-filter": {"instances": ri.InstanceFilter(judge(), keep=0.3)},
    "instance-filter, its own lr": {"instances": ri.InstanceFilter(judge(), keep=0.3, optimizer=ri.SGD(lr=1e12))},
    "instance-filter + error-map-pruning": {"instances": ri.InstanceFilter(judge(), keep=0.3), "rules": (EMP,)},
    "stochastic-depth": {"depth": ri.StochasticDepth(0.3), "batch_norm": "train"},
    "stochastic-depth + gradient-filter": {"depth": ri.StochasticDepth(0.3), "rules": (GF,)},
}


def plan(name: str, lr: float) -> ri.Plan:
    return ri.Plan(train_bias=not PLANS[name].get("bias_only"), step=ri.Backprop(ri.SGD(lr=lr)), **PLANS[name])


class Recorded:
    """What each section of the last step was given, copied when it began, to run it anew elsewhere."""

    def __init__(self, monkeypatch):
        self.given = {}
        run = Runner.run

        def recording(runner, section, n):
            hosts = runner.program.step.host_writes
            values = {name: runner.host(name, n).copy() for name in hosts if name != "input"}
            values["input"] = runner.array(hosts["input"]).copy()
            parameters = {name: runner.owned[b].copy() for name, b in runner.program.step.parameters.items()}
            constants = {name: runner.owned[c.buffer].copy() for name, c in runner.program.step.constants.items()}
            self.given[section] = self.last = runner.program, n, values, parameters, constants
            self.section = section
            run(runner, section, n)

        monkeypatch.setattr(Runner, "run", recording)

    def first_bad(self) -> str:
        """The node of the first launch that writes a NaN or infinity, in new memory, from the section's own input."""
        net, _, phase = self.section.rpartition(".")
        sections = [self.section] if phase != "backward" else [f"{net}.forward".lstrip("."), self.section]
        program, n, values, parameters, constants = self.given[sections[0]]
        runner = Runner(program, parameters, new_block(program.peak_bytes))
        runner.block.fill(0xFF)
        for name, value in values.items():
            (runner.array(program.step.host_writes[name]) if name == "input" else runner.host(name, n))[...] = value
        for name, value in constants.items():
            runner.owned[program.step.constants[name].buffer][...] = value
        with threads(program.threads):
            for section in sections:
                launches = program.launches[section]
                for launch, (function, args) in zip(launches, runner.prepared(section, n), strict=True):
                    function(*args)
                    floats = (runner.array(b, n) for b in launch.writes if b.dtype.kind == "f")
                    if not all(np.isfinite(a).all() for a in floats):
                        return launch.covers[-1].node
        raise AssertionError(f"nothing in {sections} is bad")


def diverge(trainer: Trainer, steps: int = 60) -> str:
    """Train on noise until it stops; the layer that the sentence names."""
    rng = np.random.default_rng(5)
    for _ in range(steps):
        x = rng.normal(size=(BATCH, *trainer.program.size, 3)).astype(np.float32)
        try:
            trainer.train_step(x, rng.integers(0, 3, BATCH), steps)
        except ri.NonFiniteError as e:
            return re.search(r"first in layer (\S+);", str(e))[1]
    raise AssertionError("it did not diverge")


@pytest.mark.parametrize("backend", ["reference", "fast"])
@pytest.mark.parametrize("lr", [1e15, 1e20, 1e36])
@pytest.mark.parametrize("name", PLANS)
def test_the_layer_is_that_of_a_fresh_run(name, lr, backend, monkeypatch):
    trainer = Trainer(ri.compile(NETS["residual"](), plan(name, lr), BATCH, backend=backend), seed=1)
    recorded = Recorded(monkeypatch)
    said = diverge(trainer)
    assert said == recorded.first_bad()
    assert all(np.isfinite(a).all() for a in trainer.parameters.values())


@pytest.mark.parametrize("seed", range(3))
def test_lenet_under_gradient_filtering(seed, monkeypatch):
    graph = ri.models.lenet5()
    plan = ri.Plan(rules=(GF,), step=ri.Backprop(ri.SGD(lr=1e5)), train_bias=True)
    trainer = Trainer(ri.compile(graph, plan, 32), seed)
    rng, recorded = np.random.default_rng(seed), Recorded(monkeypatch)
    x = rng.normal(size=(320, *trainer.program.size, graph.channels)).astype(np.float32)
    with pytest.raises(ri.NonFiniteError) as stopped:
        trainer.fit(x, rng.integers(0, 10, 320), 30)
    assert f"first in layer {recorded.first_bad()};" in str(stopped.value)


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_the_layer_where_a_gradient_goes_wrong(backend, monkeypatch):
    """The classifier's weights make the gradient overflow behind them while every activation is finite."""
    g = ri.Graph("steep", (7, 6), 3)
    x = g.conv2d("conv2", g.relu("relu1", g.conv2d("conv1", "input", 4, 3, bias=True)), 4, 3)
    g.linear("fc", g.global_avg_pool("mean", x), 3)
    trainer = Trainer(ri.compile(g, ri.Plan(train_bias=True), BATCH, backend=backend), seed=1)
    trainer.parameters["fc.w"][...] = np.arange(12).reshape(4, 3) * 1e25
    trainer.parameters["conv2.w"] *= 1e20
    trainer.parameters["conv1.w"] *= 1e-20
    trainer.parameters["conv1.w"][:, :, :, 1:] = 0
    recorded = Recorded(monkeypatch)
    with pytest.raises(ri.NonFiniteError, match="^the gradient of conv1.w is not finite at step 1, first in layer "):
        x = np.random.default_rng(0).normal(size=(BATCH, 7, 6, 3)).astype(np.float32)
        trainer.train_step(1e-25 * x, np.arange(BATCH) % 3, 1)
    assert recorded.section == "backward" and recorded.first_bad() != "conv1"


@pytest.mark.parametrize("backend", ["reference", "fast"])
@pytest.mark.parametrize("name", PLANS)
def test_no_launch_of_a_healthy_step_is_called_bad(name, backend):
    """Whatever the memory held before, at a full and at a partial batch."""
    p = ri.compile(NETS["residual"](), plan(name, 1e-3), BATCH, backend=backend)
    rng = np.random.default_rng(0)
    for n in (BATCH, BATCH - 2):
        trainer = Trainer(p, seed=1)
        trainer.runner.block.fill(0xFF)
        trainer._batch = rng.normal(size=(n, *p.size, 3)).astype(np.float32)
        hosts = p.step.host_writes
        for net in {name.removesuffix("labels") for name in hosts if name.endswith("labels")}:
            trainer.put(np.arange(n) % 2, net, np.arange(n) if f"{net}chosen" in hosts else None)
            phases = ["forward", "backward"] if f"{net}forward" in p.sections else [""]
            with pytest.raises(ri.NonFiniteError, match="^this, first in layer loss;"), threads(p.threads):
                trainer.stop("this", net, n, 1, *phases)


@pytest.mark.parametrize("rule", [ri.HardExamples(0.5), ri.InstanceFilter(judge(), keep=0.3)], ids=lambda r: r.method)
def test_an_instance_that_is_only_judged_must_have_a_loss(rule):
    """Overflow that its choice would leave out of the step."""
    trainer = Trainer(ri.compile(NETS["residual"](), ri.Plan(instances=rule), BATCH), seed=1)
    if rule.method == "instance-filter":
        trainer.parameters["filter.fc.w"][...] = 0  # nothing is High, everything is in doubt
    x = np.random.default_rng(0).normal(size=(BATCH, 7, 6, 3)).astype(np.float32)
    x[2] *= 1e37
    trainer.parameters["conv0.w"] *= 100
    with pytest.raises(ri.NonFiniteError, match="^the loss of an instance is not finite at step 1, first in layer "):
        trainer.train_step(x, np.arange(BATCH) % 3, 1)
