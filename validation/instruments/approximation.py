"""What an approximate gradient costs: its error against the exact one, layer by layer, on real data.

Two programs are compiled from one graph and run on the same batches with the same weights: the plan as it is, and the
same plan without its rules. Each approximate gradient a_i of batch i is compared with the exact g_i, e_i = a_i − g_i,
E the mean over batches:

    cosine          E ⟨a_i, g_i⟩ / (‖a_i‖·‖g_i‖)
    relative_error  E ‖e_i‖ / ‖g_i‖
    bias            ‖E e‖ / ‖E g‖          what no number of batches averages away
    variance        E ‖e − E e‖² / ‖E g‖²  what it adds to the noise of the steps
    noise           E ‖g − E g‖² / ‖E g‖²  that noise, which the exact gradient has too

For dx, a map for each sample, E of bias, variance and noise runs over the samples of all batches. A quotient over a
zero norm is None. All are those of the batches at hand: with few, bias holds a part of the variance.

Two views. *local*: the layer's own approximation, given the exact dy that reaches it. *whole*: the same layer in the
network, where dy carries the errors of the layers above. Gradients are float64 throughout, so that a difference is the
method's and not rounding. The weights stay as they are; a rule
that changes its choice from step to step makes the choices of a run of as many steps as there are batches.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from refimpl.compiler.compile import compile
from refimpl.compiler.ir import Call
from refimpl.compiler.program import Program
from refimpl.graph import INPUT, Graph
from refimpl.kernels import random
from refimpl.kernels.passes import Pass
from refimpl.kernels.running import threads
from refimpl.plan.plan import Plan, counted, kind_of
from refimpl.training.learnt_constants import learn_constants
from refimpl.training.trainer import Runner, Trainer

from . import gradient_filter_spectrum as spectrum

VIEWS = ("local", "whole")
COLUMNS = (  # what a reader of a table of errors is told
    "local: the layer given the exact dy; whole: with the errors of the layers above. Cosine and relative error: mean "
    "over the batches. Bias: what is left of the error after averaging over them, as a share of the mean gradient; "
    "variance: the error around that, noise: the exact gradient's own variance, both as shares of its squared norm."
)
BESIDE = {  # part of a plan that changes no gradient → why
    "instances": "chooses which samples enter, it approximates no layer's gradient",
    "depth": "leaves blocks out of a step, what remains has its exact gradient",
}
Arrays = dict[tuple[str, str], np.ndarray]  # (node, array) → values


@dataclass
class Comparison:
    """Running sums over pairs of an approximate and an exact gradient."""

    cosines: list[float | None] = field(default_factory=list)
    errors: list[float | None] = field(default_factory=list)
    draws: int = 0
    sum_error: np.ndarray | float = 0.0
    sum_exact: np.ndarray | float = 0.0
    squares: float = 0.0  # Σ‖e‖²
    signal: float = 0.0  # Σ‖g‖²

    def add(self, approximate: np.ndarray, exact: np.ndarray, per_sample: bool = False) -> None:
        """Add one batch's gradients, of one shape; per_sample: their first axis counts independent draws."""
        a, g = np.asarray(approximate, np.float64), np.asarray(exact, np.float64)
        if a.shape != g.shape:
            raise ValueError(f"the approximate gradient has shape {a.shape}, but the exact one has {g.shape}")
        e = a - g
        norms = float(np.linalg.norm(a)), float(np.linalg.norm(g))
        self.cosines.append(float(np.vdot(a, g)) / (norms[0] * norms[1]) if all(norms) else None)
        self.errors.append(quotient(float(np.linalg.norm(e)), norms[1]))
        self.squares += float(np.vdot(e, e))
        self.signal += float(np.vdot(g, g))
        self.draws += len(e) if per_sample else 1
        self.sum_error = self.sum_error + (e.sum(0) if per_sample else e)
        self.sum_exact = self.sum_exact + (g.sum(0) if per_sample else g)

    def summary(self) -> dict[str, float | None]:
        """cosine, relative_error, bias, variance and noise of what was added."""
        bias, exact = (float(np.linalg.norm(s)) / self.draws for s in (self.sum_error, self.sum_exact))
        return {
            "cosine": mean(self.cosines),
            "relative_error": mean(self.errors),
            "bias": quotient(bias, exact),
            "variance": quotient(max(self.squares / self.draws - bias**2, 0.0), exact**2),
            "noise": quotient(max(self.signal / self.draws - exact**2, 0.0), exact**2),
        }


def mean(values: list[float | None]) -> float | None:
    """Mean of the values that there are."""
    given = [v for v in values if v is not None]
    return float(np.mean(given)) if given else None


def quotient(over: float, under: float) -> float | None:
    """over / under, None where `under` is zero; 0 where both are."""
    return over / under if under else None if over else 0.0


def full_gradient(program: Program, runner: Runner, parameter: str) -> np.ndarray:
    """∂L/∂parameter in the parameter's own shape, float64, once the backward section has run.

    Where a rule has an update of its own, it is what that takes from zeros at a rate of 1: 0 for what does not train.
    """
    gradient = np.array(runner.array(program.step.gradients[parameter]), np.float64)
    dense = program.plan.step.optimizer.operator
    updates = (c for c in program.step if c.node == parameter and "w" in c.passed.inplace)
    own = next((c for c in updates if c.passed.operator != dense), None)
    if own is None:
        return gradient
    read = {a: np.array(runner.array(b)) for a, b in own.arrays.items() if a not in ("w", "dw", "lr", "clip")}
    zeros, rate = np.zeros(program.graph.parameters[parameter].shape), np.ones(1)
    return -own.passed(**read, w=zeros, dw=gradient, lr=rate, G=own.sizes["G"])


def gradient_errors(
    graph: Graph,
    plan: Plan,
    x: np.ndarray,
    y: np.ndarray,
    batch: int,
    batches: int,
    seed: int = 0,
    watch: Callable[[int, int, str], None] = lambda done, total, name: None,
) -> list[dict]:
    """Errors of the gradients of `plan` on x (M, H, W, C) and y (M,), an entry for each trained convolution in order.

    The weights are those of `graph`, else drawn from `seed`, which gives the order of the samples too. batch, batches:
    samples of a batch and how many, none drawn twice. watch: called with (done, all, name) before each.

    An entry has `layer`, `kernel` [R, S], `map` [P, Q], for each view `{"dw": …, "dx": …}` as `Comparison.summary`
    tells (dx where the step computes it), and `filter`, None where no gradient filter works there, else
      patch               [rows, columns]
      snr_dy              SNR(g̃), as measured; every SNR is None where nothing is lost
      snr_dy_closed_form  by Proposition 1 (arXiv 2301.00330)
      snr_dx              where the step computes dx: of dx by eq. (3), from the patch sums of the kernel
      snr_dx_full_kernel  of g̃ through the whole kernel, which is the dx̃ of Proposition 1
      condition, energy_ratio  as `spectrum.spectral_condition`
    ValueError where the data do not fit the model or are too few.
    """
    check_samples(batch, batches, len(x))
    exact, approximate = (
        Trainer(compile(graph, p, batch, backend="reference", dtype=np.float64), seed)
        for p in (replace(plan, rules=()), plan)
    )
    exact.check(x, y)
    layers = [LayerComparison(name, exact, approximate) for name in convolutions(graph, plan)]
    order = random.permutation(seed, random.SHUFFLE, 0, len(x))
    with threads(exact.program.threads):
        learn_constants(approximate, x[order[:batch]], y[order[:batch]])
        for i in range(batches):
            watch(i, batches, f"batch {i + 1}")
            chosen = order[i * batch : (i + 1) * batch]
            true = gradients(exact, x[chosen], y[chosen], i, batches)
            dy = {node: a for (node, array), a in true.items() if array == "dy"}
            local = gradients(approximate, x[chosen], y[chosen], i, batches, dy)
            whole = gradients(approximate, x[chosen], y[chosen], i, batches)
            for layer in layers:
                layer.add(true, {"local": local, "whole": whole})
    return [layer.entry() for layer in layers]


def check_samples(batch: int, batches: int, samples: int) -> None:
    """ValueError where `samples` are too few for so many batches."""
    for name, value in (("batch", batch), ("batches", batches)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if batch * batches > samples:
        raise ValueError(
            f"{batches} batches of {batch} need {batch * batches} samples, but there are {samples}: "
            "take fewer or smaller batches"
        )


def comparable(plan: Plan) -> tuple[Plan, list[str]]:
    """The plan without what changes no gradient, and of each part that is left out the sentence that says why."""
    found = [f"{chosen.method} {why}" for name, why in BESIDE.items() if (chosen := getattr(plan, name)) is not None]
    return replace(plan, **dict.fromkeys(BESIDE)), found


def convolutions(graph: Graph, plan: Plan) -> list[str]:
    """The convolutions whose weights train, in node order; ValueError where there is none."""
    _, beside = comparable(plan)
    if beside:
        raise ValueError(f"{beside[0]}: compare without it")
    if kind_of(plan.step) == "step":
        raise ValueError(
            f"{plan.step.method} makes a step without the gradients of back-propagation: compare without it"
        )
    layers = {name for name in counted(graph) if graph.node(name).operator.trains == "counted"}
    names = [name for name, arrays in plan.trained(graph).items() if name in layers and "w" in arrays]
    if not names:
        raise ValueError(
            f"no convolution of {graph.name} trains its weights under this plan, so there is none whose gradient could "
            "be approximated"
        )
    return names


def gradients(
    trainer: Trainer, x: np.ndarray, y: np.ndarray, step: int, steps: int, dy: Mapping[str, np.ndarray] | None = None
) -> Arrays:
    """Run forward and backward of `step` of `steps`; returns dy, dx and dw of each trained convolution.

    dy: node → values that take the place of the dy that reaches it. Every array is copied as it is read or written,
    for its memory soon holds another. A rule may work on parts of dy and dx under the same names: the first dy that is
    read, and the last dx that is written, are the node's own.
    """
    program, runner, n = trainer.program, trainer.runner, len(x)
    trained = convolutions(program.graph, program.plan)
    fill(trainer, x, y, step, steps)
    copies: Arrays = {}
    for section in ("forward", "backward"):
        for launch, (function, args) in zip(program.launches[section], runner.prepared(section, n), strict=True):
            (call,) = launch.covers  # as the reference backend launches them
            arrays, own = (call.arrays, (call.node, "dy")) if call.node in trained else ({}, None)
            if "dy" in call.passed.reads and "dy" in arrays and own not in copies:
                if dy:
                    runner.array(arrays["dy"], n)[...] = dy[call.node]
                copies[own] = runner.array(arrays["dy"], n).copy()
            function(*args)
            if "dx" in call.passed.writes and "dx" in arrays:
                copies[call.node, "dx"] = runner.array(arrays["dx"], n).copy()
    return copies | {(name, "dw"): full_gradient(program, runner, f"{name}.w") for name in trained}


def fill(trainer: Trainer, x: np.ndarray, y: np.ndarray, step: int, steps: int) -> None:
    """Put a batch where the program reads it, and what it is to know of being `step` (from 0) of `steps`."""
    given = trainer.program.step
    host = {INPUT: x, "labels": y, "target": y}
    host |= {name: value(step, steps, trainer.seed) for name, value in given.scalars.items()}
    for name in given.host_writes:
        trainer.runner.host(name, len(x))[...] = host[name]


class LayerComparison:
    """The comparisons of one convolution."""

    def __init__(self, name: str, exact: Trainer, approximate: Trainer):
        self.name, self.w = name, exact.parameters[f"{name}.w"]
        self.map = list(exact.program.graph.shapes(1, exact.program.size)[name][1:3])
        self.compared = {view: {"dw": Comparison(), "dx": Comparison()} for view in VIEWS}
        self.filter = spectrum.filter_of(approximate.program, name)
        self.grad_x = call_of(exact.program, name, exact.program.graph.node(name).operator.writer("dx"))
        self.energies = spectrum.Energies()
        self.lost_dx = 0.0  # energy of dx that g̃ loses through the whole kernel

    def add(self, true: Arrays, approximate: Mapping[str, Arrays]) -> None:
        """Compare one batch."""
        for view, arrays in approximate.items():
            for a, comparison in self.compared[view].items():
                if (self.name, a) in true:
                    comparison.add(arrays[self.name, a], true[self.name, a], per_sample=a == "dx")
        if self.filter:
            dy = true[self.name, "dy"]
            self.energies.add(dy, *self.filter)
            if self.grad_x:  # it is linear: dx of the error is the error of dx
                lost = dy - spectrum.patch_means(dy, *self.filter)
                sizes = {letter: self.grad_x.sizes[letter] for letter in "HWG"}
                dx = self.grad_x.passed(lost, self.w, **self.grad_x.attrs, **sizes)
                self.lost_dx += float(np.vdot(dx, dx))

    def entry(self) -> dict:
        """What `gradient_errors` returns for the layer."""
        views = {view: {a: c.summary() for a, c in arrays.items() if c.draws} for view, arrays in self.compared.items()}
        about = {"layer": self.name, "kernel": list(self.w.shape[:2]), "map": self.map}
        return about | views | {"filter": self.filtered()}

    def filtered(self) -> dict | None:
        """The part of the entry that tells of gradient filtering."""
        if not self.filter:
            return None
        record = {
            "patch": list(self.filter[0]),
            "snr_dy": self.energies.snr,
            "snr_dy_closed_form": self.energies.closed_form,
        }
        dx = self.compared["local"]["dx"]
        if dx.draws:
            record["snr_dx"] = spectrum.ratio(dx.signal, dx.squares)
            record["snr_dx_full_kernel"] = spectrum.ratio(dx.signal, self.lost_dx)
        return record | spectrum.spectral_condition(self.w)


def call_of(program: Program, node: str, passed: Pass) -> Call | None:
    """The call of `passed` at a node, if there is one."""
    return next((c for c in program.step if c.node == node and c.passed is passed), None)


def kernel_errors(
    graph: Graph, plan: Plan, x: np.ndarray, y: np.ndarray, backend: str = "fast", seed: int = 0
) -> dict[str, float]:
    """Are the kernels right? ‖ours − reference‖ / ‖reference‖ of each trained parameter's gradient, by its name.

    Ours is the float32 program of `backend`, the reference the float64 one of the reference kernels, both with the
    rules of `plan`, on the one batch x, y. A norm counts as at least a thousandth of the largest one, so that a
    gradient that nearly vanishes is no error.
    """
    runs = []
    for kind, dtype in ((backend, np.float32), ("reference", np.float64)):
        trainer = Trainer(compile(graph, plan, len(x), backend=kind, dtype=dtype), seed)
        trainer.check(x, y)
        fill(trainer, x, y, 0, 1)
        with threads(trainer.program.threads):
            trainer.runner.run("forward", len(x))
            trainer.runner.run("backward", len(x))
        program = trainer.program
        runs.append({name: full_gradient(program, trainer.runner, name) for name in program.step.gradients})
    ours, true = runs
    norms = {name: float(np.linalg.norm(g)) for name, g in true.items()}
    least = max(norms.values()) / 1000
    return {name: float(np.linalg.norm(ours[name] - g)) / max(norms[name], least) for name, g in true.items()}


def step_differences(graph: Graph, plan: Plan, x: np.ndarray, y: np.ndarray, seed: int = 0) -> dict[str, int]:
    """Do fast and reference kernels train whole numbers alike? Elements that differ after a step, by parameter's name.

    Both begin with the same weights and make one step of `plan` on the batch x, y, in float32 where floats are.
    """
    after = []
    for backend in ("fast", "reference"):
        trainer = Trainer(compile(graph, plan, len(x), backend=backend), seed)
        learn_constants(trainer, x, y)
        trainer.train_step(x, y, 1)
        after.append({name: trainer.parameters[name] for name in whole_trained(trainer.program)})
    ours, true = after
    return {name: int(np.count_nonzero(ours[name] != a)) for name, a in true.items()}


def whole_trained(program: Program) -> list[str]:
    """Names of the parameters of whole numbers that a step of a program changes."""
    return [name for name, b in program.step.parameters.items() if b.region == "state" and b.dtype.kind in "iu"]


def slopes(graph: Graph, plan: Plan, x: np.ndarray, y: np.ndarray, seed: int = 0, h: float = 1e-8) -> dict[str, float]:
    """Are the exact gradients true? Each trained parameter's g against the slope of the loss along d = sign(g):

        |(L(w + h·d) − L(w − h·d)) / 2h − Σ g·d| / Σ |g|

    by the parameter's name, in float64 with the reference kernels, without the rules of `plan`, on the one batch x, y.
    Where g is 0, the sign is random. The sum below counts as at least a thousandth of the largest one. h is so small
    that rectifiers rarely turn in between. ValueError where the data do not fit.
    """
    program = compile(graph, replace(plan, rules=()), len(x), backend="reference", dtype=np.float64)
    trainer = Trainer(program, seed)
    trainer.check(x, y)
    rng, runner, gaps = np.random.default_rng(seed), trainer.runner, {}

    def loss() -> float:
        fill(trainer, x, y, 0, 1)
        runner.run("forward", len(x))
        return float(runner.host("loss", len(x))[0])

    with threads(program.threads):
        loss()
        runner.run("backward", len(x))
        exact = {name: full_gradient(program, runner, name) for name in program.step.gradients}
        for name, g in exact.items():
            w = trainer.parameters[name]
            before, d = w.copy(), np.where(g, np.sign(g), rng.choice([-1.0, 1.0], g.shape))
            ends = []
            for sign in (1, -1):
                w[...] = before + sign * h * d
                ends.append(loss())
            w[...] = before
            gaps[name] = abs((ends[0] - ends[1]) / (2 * h) - float(np.vdot(g, d)))
    scales = {name: float(np.abs(g).sum()) for name, g in exact.items()}
    least = max(scales.values()) / 1000
    return {name: error / max(scales[name], least) for name, error in gaps.items()}
