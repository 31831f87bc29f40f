# %% [markdown]
# # What a training step costs, before it runs
#
# Whoever wants to train on a small device asks three things first: how much does it compute, does it fit, and how long
# does it take? This page answers them without running the step: from one loop nest to a formula, from formulas to a
# whole network, from operations and bytes to seconds on a board, and back again: from a budget to the methods that meet
# it. You need to know what a convolution and back-propagation are.
#
# Every number is printed by the cell above it; none was measured on the machine that made this page, so it comes out
# the same everywhere. Where a figure was measured, its record is named.

# %%
import json
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import sympy as sp
from IPython.display import Markdown, Math, display

import costmodel
import refimpl as ri
from costmodel import closed_form
from costmodel.advice import advice, budget, convergence, questions
from costmodel.device import device as devices
from costmodel.device import kernels
from costmodel.formulas.cost import evaluator, show
from validation.experiments import lenet_mnist
from validation.instruments import counting

SMALL = os.environ.get("GRADLEDGER_SMALL") == "1"  # short settings, to see that every cell runs
COLOURS = {"dense": "#000000", "patch 2": "#0072B2", "patch 4": "#56B4E9", "last 4": "#009E73", "sparse": "#E69F00"}
plt.rcParams |= {"figure.dpi": 80, "font.size": 11, "axes.titlesize": 11, "axes.spines.top": False}
plt.rcParams |= {"axes.spines.right": False}


def table(head, rows):
    """Show rows of text as a table; the first column is on the left."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    display(Markdown("\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)))


# %% [markdown]
# ## 1. From a loop nest to a formula
#
# A convolution is seven nested loops around one multiplication and one addition:
#
# ```
# for n in N:  for p, q in P×Q:  for k in K:  for r, s in R×S:  for c in C:
#     y[n, p, q, k] += x[n, p·stride + r − pad, q·stride + s − pad, c] · w[r, s, c, k]
# ```
#
# Multiply the lengths of the loops and you have its cost, nearly: at the border of the map some taps of the window lie
# in the padding, and nobody multiplies zeros there. Let us count, for a map of 6×6 and a window of 3×3. The kernel's
# own body runs on numbers that count what is done to them, once for each element: there is nothing to derive.

# %%
small = ri.Graph("one", (6, 6), 4)
small.linear("fc", small.global_avg_pool("mean", small.conv2d("conv", "input", 8, 3, pad=1)), 3)
step = ri.compile(small, ri.Plan("all"), batch=2, backend="reference")
call = next(c for c in step.step if c.node == "conv" and c.passed.name == "forward")
counted = counting.count_call(call, 2)
nested = 2 * 6 * 6 * 8 * 3 * 3 * 4
print(
    f"loops alone: {nested:,} multiplications; counted: {counted['mul']:,}; in the padding: {nested - counted['mul']:,}"
)

# %% [markdown]
# Along one axis of `H` rows the window's `R` taps meet the map in `taps(H, R, P, …)` pairs of (output row, tap), where
# `P·R` would be all of them. With it the formula is exact, and it stays readable:

# %%
print(show("conv2d", "forward"))
print()
print(show("conv2d", "grad_w"))

# %% [markdown]
# Every pass of every operator and method has such a line in `costmodel`, and each is compared with counted loops on
# drawn sizes. A formula without its count fails the tests.
#
# ## 2. From formulas to a network
#
# `closed_form.of` derives the training step of a network as the compiler does, but on sizes that remember how they came
# about. What comes out is one SymPy expression in N (samples), H and W (the picture), the width of the network and the
# settings of the method. This is LeNet-5, all of it trained, in the large:

# %%
lenet = closed_form.of("lenet5", ri.Plan("all"))
N, H, W = (lenet.symbols[name] for name in "NHW")
display(Math(r"\text{operations} \;\sim\; " + sp.latex(questions.leading(lenet.flops, N))))
print(f"exact, with 28×28 pixels and a batch of 8: {sum(lenet.at()[u] for u in ('mul', 'add')):,}")
compiled = costmodel.estimate(ri.compile(ri.models.build("lenet5"), ri.Plan("all"), 8))
print(f"the compiled program's own price:          {compiled.flops:,}")

# %% [markdown]
# MobileNetV2 has 52 convolutions and no nice formula, but the same questions have answers. Its step, dense and with the
# gradients of its last four convolutions filtered (patch 2 and 4), as a function of the picture's side. Lines are the
# closed forms; rings are compiled programs, which have to lie on them.

# %%
NET, SIDES = ("resnet8", (16, 32, 48)) if SMALL else ("mobilenet_v2", (64, 96, 128, 160, 192, 224))
OPTIONS = {} if SMALL else {"classes": 10}
STEP = ri.Backprop(ri.SGD(lr=0.05))
PLANS = {
    "dense": ri.Plan("all", step=STEP),
    "last 4": ri.Plan(4, step=STEP),
    "patch 2": ri.Plan(4, [ri.GradientFilter(2)], STEP),
    "patch 4": ri.Plan(4, [ri.GradientFilter(4)], STEP),
}


def net(side):
    return ri.models.build(NET, size=(side, side), **OPTIONS)


def flops_of(form):
    """A function of the symbols' values: the operations of a step."""
    names, function = evaluator(form.flops)
    return lambda **values: function(*({**form.given, **values}[name] for name in names))


forms = {name: closed_form.of(net(SIDES[1]), plan) for name, plan in PLANS.items()}
price = {name: flops_of(form) for name, form in forms.items()}
fine = np.arange(SIDES[0], SIDES[-1] + 1, 32 if not SMALL else 8)
figure, (left, right) = plt.subplots(1, 2, figsize=(12.5, 4), layout="constrained")
for name, plan in PLANS.items():
    curve = [price[name](N=8, H=int(side), W=int(side)) / 1e9 for side in fine]
    left.plot(fine, curve, color=COLOURS[name], label=name)
    some = SIDES[:: 1 if SMALL else 2]
    dots = [costmodel.estimate(ri.compile(net(side), plan, 8, threads=1)).flops for side in some]
    assert dots == [price[name](N=8, H=side, W=side) for side in some]
    left.plot(some, [d / 1e9 for d in dots], "o", mfc="none", color=COLOURS[name])
left.set(xlabel="side of the picture, pixels", ylabel="operations of a step, 10⁹", title="batch 8", ylim=(0, None))
left.legend(frameon=False)
patches = np.arange(1, 15)
deep = flops_of(forms["patch 2"])
side = SIDES[-1]
exact = price["last 4"](N=8, H=side, W=side)
back = [deep(N=8, H=side, W=side, patch=int(r)) / exact for r in patches]
right.plot(patches, back, "o-", color=COLOURS["patch 2"])
right.axhline(1, color="0.5", linewidth=1)
right.set(xlabel="patch", ylabel="operations, exact gradients = 1", title=f"the last four filtered, {side}×{side}")
plt.show()
first = questions.pays_from(
    forms["patch 2"].flops, forms["last 4"].flops, forms["patch 2"].symbols["patch"], range(1, 15),
    forms["patch 2"].given | {"N": 8, "H": side, "W": side},
)  # fmt: skip
print(f"filtering pays from patch {first} on; the least that any patch leaves is {min(back):.1%}")

# %% [markdown]
# The forward pass stays, whatever is done to the gradients: that is the floor on the right. A method that saves nine
# tenths of the backward pass saves much less of the step. (An exact count is a staircase: sizes that are no multiple of
# the patch or the stride waste taps at the border.)
#
# ## 3. Does it fit?
#
# The compiler lays every array of a step into one block of memory, the arena, where arrays that are not needed at the
# same time share bytes. So the peak is known to the byte before the run. Its terms, for batches and pictures of several
# sizes, dense and with the last four layers filtered:

# %%
TERMS = {
    "kept for backward": ("stored_features", "masks", "indices"),
    "maps": ("input", "activations", "error_maps"),
    "gradients of weights": ("weight_gradients",),
    "workspace, gaps": ("tables", "workspace", "host_scalars", "slack"),
    "weights, optimizer": ("state", "constants"),
}
SHADES = ["#0072B2", "#999999", "#E69F00", "#DDDDDD", "#009E73"]


def memory(side, batch, plan):
    found = budget.terms(ri.compile(net(side), plan, batch, threads=1))
    whole = found["arena"] | {kind: sum(found[kind].values()) for kind in ("state", "constants")}
    return {label: sum(whole[k] for k in keys) / 2**20 for label, keys in TERMS.items()}


def stacks(axis, cases, labels):
    bottom = np.zeros(len(cases))
    for (label, shade), values in zip(
        zip(TERMS, SHADES, strict=True), np.array([[*c.values()] for c in cases]).T, strict=True
    ):
        axis.bar(range(len(cases)), values, 0.7, bottom=bottom, color=shade, label=label)
        bottom += values
    for i, total in enumerate(bottom):
        axis.annotate(f"{total:.0f}", (i, total), ha="center", va="bottom")
    axis.set_xticks(range(len(cases)), labels)
    axis.set(ylabel="MiB", ylim=(0, 1.1 * bottom.max()))


BATCHES = (1, 2) if SMALL else (1, 4, 8, 16)
figure, (left, right) = plt.subplots(1, 2, figsize=(12.5, 4.2), layout="constrained")
pairs = [(n, name) for n in BATCHES for name in ("dense", "patch 2")]
stacks(left, [memory(SIDES[1], n, PLANS[name]) for n, name in pairs], [f"{n}\n{name}" for n, name in pairs])
left.set(xlabel=f"batch, {SIDES[1]}×{SIDES[1]} pixels")
pairs = [(side, name) for side in SIDES[:: 2 if not SMALL else 1] for name in ("dense", "patch 2")]
stacks(right, [memory(side, 4, PLANS[name]) for side, name in pairs], [f"{side}\n{name}" for side, name in pairs])
right.set(xlabel="side of the picture, batch 4")
left.legend(frameon=False, fontsize=9)
plt.show()

# %% [markdown]
# Dense training pays for every sample with the maps that it keeps until the gradient comes back; with the last four
# layers filtered there is almost nothing to keep, and what remains is what inference needs as well.
#
# The other way round: the arena of a step is a formula too, a maximum over its launches, and can be solved for the
# batch. Which batch fits 512 MiB?

# %%
LIMIT = (8 if SMALL else 512) * 2**20
rows = []
for name in ("dense", "patch 2"):
    form = closed_form.of(net(SIDES[-1]), PLANS[name])
    need = questions.arena(form) + sum(form.memory[k] for k in ("weights", "optimizer"))
    batch = questions.largest(need, form.symbols["N"], LIMIT, form.given)
    needs = []
    for n in (batch, batch + 1):
        p = ri.compile(net(SIDES[-1]), PLANS[name], n, threads=1)
        needs.append(f"{(p.peak_bytes + p.state_bytes + p.constant_bytes) / 2**20:,.1f}")
    rows.append([name, batch, *needs])
table(["", f"largest batch by the formula, {LIMIT / 2**20:.0f} MiB", "compiled, MiB", "one more, MiB"], rows)

# %% [markdown]
# A process is more than its arena. Python, NumPy, Numba and LLVM take what `gradledger calibrate` measures on a device,
# every kernel launch some KiB, the weights are held once more to go back to if a step diverges. `device.process`
# adds it up, term by term; `validation/results/resident.json` has 20 processes whose resident memory it predicts within
# 0.7 %. So `gradledger cost --device raspberry-pi-zero-2` can say whether training fits its 427 MiB.
#
# ## 4. How long does it take?
#
# Operations alone are a bad clock: a depthwise convolution does few of them for each byte it reads, a small layer is
# gone before its call is paid for. So each launch is described by what a reader of its kernel would count: bytes by
# where they lie (first caches, last cache, memory), products, elements gathered before a product, tiles, the call
# itself. Seconds are a sum of these amounts, each times a rate of the device. For three launches of this network:

# %%
program = ri.compile(net(SIDES[1]), PLANS["dense"], 8, threads=1)
estimate = costmodel.estimate(program, device="reference")
work = list(zip(program.order, estimate.work, estimate.launches, strict=True))
shown = {}
for launch, terms, seconds in work:
    shown.setdefault(kernels.kernel(launch), (launch, terms, seconds))
rates, _ = estimate.device.at(1)
for name in [
    k for k in ("conv2d.forward gathered", "depthwise.forward", "depthwise.backward", "sgd.step") if k in shown
]:
    launch, terms, seconds = shown[name]
    print(f"{name} of {launch.covers[0].node}: {1e6 * seconds:,.0f} µs")
    for term, amount in terms.items():
        rate = rates.by_kernel[name].get(term, 0.0)
        if amount * rate > 0.02 * seconds:
            print(f"    {term:12s} {amount:14,.0f} × {1e12 * rate:10,.1f} ps = {1e6 * amount * rate:8,.1f} µs")

# %% [markdown]
# The rates come from single layers only, which `gradledger calibrate` times in some minutes. Whole networks were not
# among them; so they are the test. Each dot is a network at some size and batch with some method, forward only or a
# whole training step; crosses are a model that knows operations only (record: `validation/results/seconds.json`).

# %%
record = json.loads(Path("validation/results/seconds.json").read_text())
figure, panels = plt.subplots(1, len(record["threads"]), figsize=(12.5, 4.6), layout="constrained", squeeze=False)
for axis, (threads, found) in zip(panels[0], record["threads"].items(), strict=True):
    measured, predicted, by_flops = (
        1e3 * np.array([row[f"{key}_seconds"] for row in found["rows"]])
        for key in ("measured", "predicted", "flops_model")
    )
    line = np.array([0.6 * measured.min(), 1.6 * measured.max()])
    axis.fill_between(line, line / 1.15, 1.15 * line, color="0.9", linewidth=0, label="within 15 %")
    axis.plot(measured, by_flops, "x", color=COLOURS["sparse"], markersize=4, label="operations only")
    axis.plot(measured, predicted, "o", color=COLOURS["patch 2"], markersize=4, label="this model")
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="measured, ms",
        ylabel="predicted, ms",
        xlim=line,
        title=f"threads: {threads}",
    )
panels[0][0].legend(frameon=False)
plt.show()
rows = []
for threads, found in record["threads"].items():
    for label, key in (("this model", ""), ("operations only", "flops_model_")):
        shares = [f"{found[f'{key}{k}']:.1%}" for k in ("median_error", "within_15_percent")]
        rows.append([f"{label}, threads: {threads}", found["cases"], *shares])
table(["", "cases", "median error", "within 15 %"], rows)

# %% [markdown]
# ### On a board that nobody has measured
#
# For the boards below only data sheets and published measurements are at hand: clock, vector width, caches, bandwidth,
# each with its source in `costmodel/devices`. The reference machine's rates are scaled by them, and the interval is
# wide, a factor of 2.5 both ways, because that is an assumption and no measurement. A step at batch 8:

# %%
boards = [n for n in devices.names() if not n.endswith(("-gpu", "-machine")) and not devices.find(n).flash_bytes]
figure, axis = plt.subplots(figsize=(12.5, 3.8), layout="constrained")
for i, (name, plan) in enumerate(PLANS.items()):
    for j, board in enumerate(boards):
        on = devices.find(board)
        p = ri.compile(net(SIDES[1]), plan, 8, threads=on.cores)
        found = costmodel.estimate(p, device=on).seconds
        at = j + 0.17 * (i - 1.5)
        axis.plot([at, at], [found["low"], found["high"]], color=COLOURS[name], linewidth=2 if on.measured else 1)
        axis.plot(at, found["mid"], "o", color=COLOURS[name], label=name if not j else None)
axis.set_xticks(range(len(boards)), [b.replace("raspberry-pi", "pi") for b in boards])
axis.set(yscale="log", ylabel="seconds of a step", title=f"{NET}, {SIDES[1]}×{SIDES[1]}, batch 8 (reference: measured)")
axis.legend(frameon=False, ncols=4)
plt.show()

# %% [markdown]
# The order is not the same everywhere. The maps of the last four layers have only 3×3 pixels here. On the reference
# machine the calls of the filter cost more than its smaller products save; on the boards, whose products are slower by
# more than their calls, it saves a tenth. (At 224×224 it saves time on the reference machine too.)
#
# ## 5. From a budget to a plan
#
# Now the question is turned round. These are the bytes, this is the time that an epoch may take: how should one train?
# The search goes over methods, their settings, how many of the last layers train, and the batch. What it trades for
# memory and time is the *expected error of the gradient*: √(1 − cosine²) to the exact gradient of the whole network,
# frozen layers counted as zero. Its table was measured once, on three networks with real data (record:
# `costmodel/advice/gradient-errors.json`); for a new network and new data it is an expectation and no promise.
#
# The plans that no other plan beats in memory, time and error at once are the Pareto front.

# %%
BOARD, SAMPLES = "raspberry-pi-4", 1000
LIMITS = advice.Limits(memory=(16 if SMALL else 64) * 2**20, seconds=60)
search = advice.Search(net(SIDES[1]), devices.find(BOARD), SAMPLES)
found = search.advise(LIMITS)
print(f"{found.searched:,} plans screened, {len(found.front) + len(found.others)} compiled and priced exactly")
figure, axis = plt.subplots(figsize=(12.5, 4.6), layout="constrained")
rest = np.array([p.figures for p in found.others])
axis.plot(rest[:, 0] / 2**20, rest[:, 1], "x", color="0.6", label="compiled, beaten or beyond a limit")
best = np.array([p.figures for p in found.front])
some = [found.front[i] for i in np.unique(np.linspace(0, len(best) - 1, 12).round().astype(int))]  # to be named
dots = axis.scatter(best[:, 0] / 2**20, best[:, 1], c=best[:, 2], cmap="viridis", vmin=0, vmax=1, s=60, zorder=3)
for i, p in enumerate(some, start=1):
    axis.annotate(f"{i}", (p.memory_bytes / 2**20, p.seconds["mid"]), xytext=(7, 5), textcoords="offset points")
axis.axvline(LIMITS.memory / 2**20, color="0.4", linestyle="--", linewidth=1)
axis.axhline(LIMITS.seconds, color="0.4", linestyle="--", linewidth=1)
axis.set(
    xscale="log", ylim=(0, None), xlabel="state and arena, MiB", ylabel=f"seconds of an epoch of {SAMPLES:,} samples"
)
figure.colorbar(dots, label="expected error of the gradient")
axis.legend(frameon=False, loc="lower left")
plt.show()

# %%
rows = []
for i, p in enumerate(some, start=1):
    c = p.candidate
    rows.append([
        i, f"`--method {c.text} --train-last {c.train_last} --batch {c.batch}`", f"{p.memory_bytes / 2**20:,.1f}",
        f"{p.seconds['mid']:,.0f} ({p.seconds['low']:,.0f} to {p.seconds['high']:,.0f})", f"{p.error.error:.2f}",
    ])  # fmt: skip
table(["", "plan", "MiB", f"seconds on {BOARD}", "gradient error"], rows)

# %% [markdown]
# `gradledger cost --advise` prints this table with a command for each plan, ready to run; where nothing fits, it says
# which limit binds and what the smallest one is that would do.
#
# An error of the gradient is not a loss of accuracy. A step that is cheap and crude may need more steps, or fewer:
# that only runs tell. `gradledger compare validation/results/lenet-mnist.json` takes recorded learning curves and asks
# what each method had cost when it reached the same accuracy:

# %%
curves = lenet_mnist.curves(json.loads(Path("validation/results/lenet-mnist.json").read_text()))["LeNet"]
target = convergence.common(curves)
rows = [
    [
        r["method"],
        f"{r['steps']:,.0f}",
        f"{r['macs_per_step'] / 1e6:,.1f}",
        f"{r['macs'] / 1e12:,.3f}",
        f"{r['ratio']:.2f}",
    ]
    for r in convergence.compare(curves, target)
]
print(f"LeNet on MNIST, until {100 * target:.2f} % are reached (means of three seeds)")
table(["", "steps", "MMAC a step", "TMAC in all", "to SGD"], rows)

# %% [markdown]
# The cheapest step there is not the cheapest training.
#
# ## 6. In short
#
# - Operations are counted by formulas that loops were compared with; a network's step is one expression in its sizes.
# - Memory is known to the byte before the run, and what a batch or a method does to it is known with it.
# - Seconds need rates of the device. They are measured in minutes on single layers, and whole networks follow; on a
#   board that nobody measured they are an estimate with a wide interval.
# - From all three, a budget leads back to the plans worth trying. Which of them learns best, a run has to tell.
