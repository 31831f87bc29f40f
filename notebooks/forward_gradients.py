# %% [markdown]
# # Learning without a backward pass, and without floats
#
# Back-propagation keeps what every layer saw until the gradient comes back: on a small device that is most of the
# memory. A **forward gradient** never goes back. It nudges all weights at once along a random direction $z$, looks
# whether the loss went up or down, and steps the other way.
#
# **Fixed-point forward gradients** ([arXiv 2411.04036](https://arxiv.org/abs/2411.04036), QZO-FF) do this in whole
# numbers from end to end, so that a chip that can only just *infer* in int8 can train.
#
# This page goes from the directional derivative to a microcontroller: what a direction tells, what it costs that it
# tells so little, and how the same step looks in integers. You need to know what a gradient is.
#
# *How to read it.* **[paper]** is an equation of the paper, with its number; **[ours]** is our reading or our own
# measurement. Every number is printed by the cell above it.
#
# | | |
# |---|---|
# | [paper] (1) | forward gradient: $g = (\nabla f \cdot z)\, z$ |
# | [paper] (2) | a slope instead: $\hat g = \frac{L(w+\epsilon z) - L(w-\epsilon z)}{2\epsilon}\, z$ |
# | [paper] (3) | its sign, of $m$ directions: $\hat g = \frac1m \sum_i \mathrm{sign}(L(w+\epsilon z_i) - \dots) z_i$ |
# | [paper] (4) | $w \leftarrow w - \eta \hat g$ |
# | [paper] (5)–(8), (10) | the same in whole numbers: 16 bits for weights, 8 for maps and for $z$ |

# %%
import math
import os

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown, display

import refimpl as ri
from refimpl import data
from refimpl.kernels import requantize
from refimpl.ops import quantized_perturbation as qp
from refimpl.surgery.quantize import outline

SMALL = os.environ.get("GRADLEDGER_SMALL") == "1"  # short settings, to see that every cell runs
COLOURS = {"backprop": "#000000", "m = 1": "#0072B2", "m = 3": "#56B4E9", "16w8a": "#E69F00"}
plt.rcParams |= {"figure.dpi": 80, "font.size": 11, "axes.titlesize": 11, "axes.spines.top": False}
plt.rcParams |= {"axes.spines.right": False}


def table(head, rows):
    """Show rows of text as a table; the first column is on the left."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    display(Markdown("\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)))


# %% [markdown]
# ## 1. What one direction tells
#
# The loss $L(w)$ of a network is a landscape over its weights. Along a direction $z$ it has a slope, the *directional
# derivative* $\nabla L \cdot z$. Forward mode computes it beside the forward pass, layer by layer, exactly: every
# operator states how a change of its inputs changes its output. No map is kept for a way back.
#
# The network is one for ten people's movements (accelerometer and gyroscope at the wrist, seven exercises, embedded in
# this package), trained on nine of them; the data are those of the tenth.

# %%
PERSON, BATCH = 1, 64
person = data.watch(PERSON)
net = ri.models.build("watch", classes=len(person.classes))
net.weights = ri.models.watch_weights(PERSON)
x, y = person.x_train[:BATCH], person.y_train[:BATCH]

rng = np.random.default_rng(0)
trained = {name: net.weights[name] for name in ("fc.w", "fc.b")}
z = {name: rng.standard_normal(w.shape) for name, w in trained.items()}
exact = ri.directional_derivative(net, x, y, z)
print(f"loss {exact.loss:.6f}, slope along z {exact.derivative:.6f}")

# %% [markdown]
# Two looks at the loss, a little to either side, tell the same slope [paper] (2), up to two errors: for a large
# $\epsilon$ the landscape bends, for a small one the difference drowns in rounding. In float32, which is what a device
# has, there is little room between the two:

# %%
epsilons = 10.0 ** np.arange(-7, 1.01, 0.5)


def looked(epsilon, dtype):
    """The slope by two looks."""
    sides = []
    for sign in (1, -1):
        moved = {name: (w + sign * epsilon * z[name]).astype(dtype) for name, w in trained.items()}
        found = ri.directional_derivative(net, x, y, z, parameters=moved, dtype=dtype)
        sides.append(found.loss)
    return (sides[0] - sides[1]) / (2 * epsilon)


figure, axis = plt.subplots(figsize=(8, 3.6), layout="constrained")
for dtype, colour in ((np.float64, "0.6"), (np.float32, "#0072B2")):
    errors = [abs(looked(e, dtype) / exact.derivative - 1) for e in epsilons]
    axis.loglog(epsilons, errors, "o-", color=colour, label=np.dtype(dtype).name)
axis.axvline(1e-3, color="0.4", linestyle="--", linewidth=1)
axis.annotate(
    "the paper's ε", (1e-3, 0.9), xycoords=("data", "axes fraction"), xytext=(6, 0), textcoords="offset points"
)
axis.set(xlabel="ε", ylabel="relative error of the slope", title="a slope by two looks at the loss")
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# ## 2. What it does not tell
#
# $(\nabla L \cdot z)\, z$ [paper] (1) is right *on average*: over all directions it is the gradient. A single one is
# nearly at a right angle to it, the more so the more weights there are: for $m$ directions and $D$ weights the mean
# cosine is about $\chi_m / \sqrt{D + m}$, where $\chi_m$, near $\sqrt m$, is the mean length of $m$ normal numbers
# [ours]. Here is the cosine, for a gradient of $D$ random numbers:

# %%
SIZES, DRAWS = ((10, 100) if SMALL else (10, 100, 1000, 10_000)), (1, 3, 30)
figure, axis = plt.subplots(figsize=(8, 3.6), layout="constrained")
for m, mark in zip(DRAWS, "os^", strict=True):
    length = math.sqrt(2) * math.exp(math.lgamma((m + 1) / 2) - math.lgamma(m / 2))
    found = []
    for size in SIZES:
        g = rng.standard_normal(size)
        estimates = [((z_i := rng.standard_normal((m, size))) @ g) @ z_i for _ in range(100)]
        found.append(np.mean([e @ g / np.linalg.norm(e) / np.linalg.norm(g) for e in estimates]))
    axis.loglog(
        SIZES, found, mark, color="#0072B2", alpha=0.4 + 0.3 * DRAWS.index(m), label=f"m = {m}, 100 estimates each"
    )
    axis.loglog(SIZES, length / np.sqrt(np.array(SIZES) + m), color="0.6", linewidth=1, zorder=0)
axis.set(xlabel="weights D", ylabel="cosine to the gradient", title="lines: as the formula says")
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# So a step helps little, and fewer trained weights help more than more directions. That is the trade: many small steps,
# each as cheap in memory as inference.
#
# ## 3. Many steps
#
# The classifier alone learns (455 weights and biases; the layers below stay), the same number of forward passes for one
# direction a step and for three. The perturbed weights are made where a layer reads them and the direction is drawn
# again from its number for the update: nothing of the size of the weights is stored [ours].

# %%
PASSES = 200 if SMALL else 6000
COSINE = ri.Schedule("cosine")
WAYS = {
    "backprop": ri.Backprop(ri.SGD(0.05, 0.9, schedule=COSINE)),
    "m = 1": ri.ForwardGradient(m=1, optimizer=ri.SGD(0.01, schedule=COSINE)),
    "m = 3": ri.ForwardGradient(m=3, optimizer=ri.SGD(0.01, schedule=COSINE)),
    "16w8a": ri.ForwardGradient(m=1, bits="16w8a", optimizer=ri.SGD(0.01, schedule=COSINE)),
}


def learn(graph, step, train_last=0, points=20):
    """Forward passes so far and accuracy on windows that are not trained on, in percent; the trainer."""
    trainer = ri.Trainer(ri.compile(graph, ri.Plan(train_last, step=step), BATCH), seed=0)
    each = 2 * step.m if isinstance(step, ri.ForwardGradient) else 1
    total = PASSES // each if each > 1 else PASSES // 10  # backprop needs fewer
    epochs = max(1, total * BATCH // len(person.x_train))
    curve = [(0, 100 * trainer.evaluate(person.x_test, person.y_test))]
    for progress in trainer.steps(person.x_train, person.y_train, epochs):
        if progress.step % max(1, total // points) == 0:
            curve.append((each * progress.step, 100 * trainer.evaluate(person.x_test, person.y_test)))
    curve.append((each * progress.step, 100 * trainer.evaluate(person.x_test, person.y_test)))
    return np.array(curve), trainer


whole = ri.surgery.quantize(net, net.weights, person.x_train, bits=16, headroom=1.5)
runs = {name: learn(whole if name == "16w8a" else net, step) for name, step in WAYS.items()}
figure, axis = plt.subplots(figsize=(8, 3.8), layout="constrained")
for name, (curve, _) in runs.items():
    axis.plot(*curve.T, color=COLOURS[name], label=name, linewidth=2)
axis.set(xlabel="forward passes", ylabel="accuracy, %", title=f"person {PERSON}, classifier alone")
axis.legend(frameon=False, loc="lower right")
plt.show()
table(["", "before", "after", "forward passes"], [
    [name, f"{curve[0, 1]:.1f} %", f"{curve[-1, 1]:.1f} %", f"{int(curve[-1, 0]):,}"]
    for name, (curve, _) in runs.items()
])  # fmt: skip

# %% [markdown]
# One person, one seed, one learning rate each: a picture, no measurement. The record over ten people and three seeds is
# that of `gradledger reproduce forward-gradient-watch`.
#
# ## 4. What it saves
#
# A step is compiled before it runs, so every byte is known. The arena is what lives at once: maps, what is kept for the
# way back, gradients, the kernels' workspace.

# %%
STEPS = {
    "inference": None,
    "forward\ngradient": ri.ForwardGradient(m=1, optimizer=ri.SGD(0.01)),
    "back-\npropagation": ri.Backprop(ri.SGD(0.01)),
}
figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
for axis, (what, layers) in zip(axes, (("classifier alone", 0), ("all layers", "all")), strict=True):
    peaks = {
        name: ri.compile(net, step and ri.Plan(layers, step=step), BATCH, threads=1).peak_bytes
        for name, step in STEPS.items()
    }
    bars = axis.bar(list(peaks), [p / 1024 for p in peaks.values()], color=["0.7", "#0072B2", "#000000"])
    axis.bar_label(bars, fmt="{:,.0f}")
    axis.set(title=f"{what}, batch {BATCH}", ylabel="arena, KiB")
    print(f"{what}: " + ", ".join(f"{name.replace(chr(10), ' ')} {p:,} bytes" for name, p in peaks.items()))
plt.show()

# %% [markdown]
# ## 5. The same step in whole numbers
#
# A weight is $\Delta_w \cdot w_q$ with $w_q$ of 16 bits and $\Delta_w = \max|w| / 32767$ [paper] (5) (here with half as
# much room again to grow [ours]); $z$ is $\Delta_z \cdot z_q$ with $z_q$ of 8 bits, $\Delta_z = 3.5 / 127$ (here
# $1/36$, so that $1_q \Delta_z$ is exactly 1 [ours]). One stands for $1_q = \mathrm{round}(1 / \Delta_z)$, and
# $\epsilon_q = \mathrm{round}(\epsilon / \Delta_w)$. Then [paper] (6)
#
# $$ w_q^\pm = \mathrm{requantized}\left(w_q \cdot 1_q \pm \epsilon_q \cdot z_q\right) $$
#
# where *requantized* is a multiplication and a shift, $(\cdot)\, M \gg k$ with $M / 2^k \approx \Delta_z$. One weight
# by hand, and the same by the library:

# %%
scale = 1.5 * abs(net.weights["fc.w"]).max() / 32767
numbers = qp.variable_settings(z_max=127 / 36)
w_q, seed, draw = np.array([1200, -30, 32767], np.int16), np.array([7]), np.array([5])
of_z = (numbers["one"], numbers["z_multiplier"], numbers["z_shift"])
z_q = np.array([int(qp.variable(t, seed, draw[0], 0, False, *of_z)) for t in range(3)])
epsilon_q = qp.whole_epsilon(1e-3, scale)
sums = [int(w) * numbers["one"] + epsilon_q * int(z) for w, z in zip(w_q, z_q, strict=True)]
right = 31 - numbers["unit_shift"]
by_hand = [(total * numbers["unit_multiplier"] + (1 << right - 1)) >> right for total in sums]
sign, epsilons_q = np.array([1], np.int32), np.array([epsilon_q], np.int32)
moved = qp.perturb(w_q, seed, draw, sign, epsilons_q, low=-32768, high=32767, **numbers)
print(f"Δw {scale:.3g}, ε_q {epsilon_q}, 1_q {numbers['one']}, w_q {w_q}, z_q {z_q}")
print(f"w_q·1_q + ε_q·z_q = {sums}")
print(f"requantized by hand {by_hand}, by the library {moved}")

# %% [markdown]
# The last weight is at the end of int16: it *saturates*, it does not wrap around. (With the paper's $\Delta_z$,
# $1_q \Delta_z$ is 0.992, and all weights shrink by 0.8 % in both looks [ours].)
#
# **Rounding has two published forms**, and one must say which: once, of the whole product; or twice, first of the high
# half and then of the shift. They differ, as this published vector shows:

# %%
for name, twice in (("once", False), ("twice", True)):
    print(f"{name}: {requantize.requantized(7984, 1583594044, -9, twice)}")

# %% [markdown]
# The update is [paper] (7), (8): $w_q \leftarrow w_q - \mathrm{round}\left(\frac{\eta \Delta_z}{\Delta_w}\, g_q\right)$
# with $g_q = \frac1m \sum_i \mathrm{sign}_i \cdot z_q$. With 16 bits a step of $\eta = 0.01$ moves a weight by many of
# its last digits. With 8 bits, $\epsilon$ itself rounds to nothing: both looks see the same weights, and their losses
# are the same to the last bit. That is the paper's own finding, "8w8a does not train":

# %%
rows = []
for bits in (16, 8):
    step_of = 1.5 * abs(net.weights["fc.w"]).max() / (2 ** (bits - 1) - 1)
    multiplier, shift = qp.whole_rate(0.01, step_of, draws=1)
    per_z = multiplier / 2.0**31 * 2.0**shift
    rows.append([f"{bits}w8a", f"{step_of:.2e}", qp.whole_epsilon(1e-3, step_of), f"{per_z:.3g}", f"{per_z * 36:.3g}"])
table(["", "Δw", "ε_q for ε = 0.001", "steps of Δw that an update takes for g_q = 1", "for g = 1"], rows)

# %% [markdown]
# ## 6. On a microcontroller
#
# A network of MobileNetV2's blocks, at width 0.35 and 128×128, one picture at a time: what the arena takes in whole
# numbers and in floats, beside the 256 KiB that many such chips have. Weights that do not train stay in flash.

# %%
SIDE, CLASSES = (32, 2) if SMALL else (128, 2)
BLOCKS = [
    (16, 3, 1, 8), (48, 3, 2, 8), (48, 3, 1, 8), (48, 3, 2, 16), (96, 3, 1, 16), (96, 3, 1, 16), (96, 3, 2, 24),
    (144, 3, 1, 24), (144, 3, 1, 24), (144, 3, 1, 24), (144, 3, 1, 32), (192, 3, 1, 32), (192, 3, 1, 32),
    (192, 3, 2, 56), (336, 3, 1, 56), (336, 3, 1, 56), (336, 3, 1, 112),
]  # fmt: skip
small = ri.models.build("mobilenet_folded", classes=CLASSES, size=(SIDE, SIDE), stem=16, blocks=BLOCKS)
integers = outline(small, bits=16, headroom=1.5)
QZO = ri.ForwardGradient(m=1, bits="16w8a", optimizer=ri.SGD(0.01))
programs = {
    "inference, int8": (outline(small, bits=8), None),
    "classifier, 16w8a": (integers, ri.Plan(0, step=QZO)),
    "all layers, 16w8a": (integers, ri.Plan("all", step=QZO)),
    "inference, float32": (small, None),
    "all layers, backprop": (small, ri.Plan("all", step=ri.Backprop(ri.SGD(0.01)))),
}
peaks = {name: ri.compile(g, plan, 1, threads=1).peak_bytes / 1024 for name, (g, plan) in programs.items()}
figure, axis = plt.subplots(figsize=(9, 3.6), layout="constrained")
bars = axis.barh(list(peaks), list(peaks.values()), color=["#E69F00"] * 3 + ["0.6", "#000000"])
axis.bar_label(bars, fmt="{:,.1f}", padding=8)
axis.axvline(256, color="#D55E00", linestyle="--")
axis.invert_yaxis()
axis.set(xlabel="arena, KiB (weights aside); dashed: 256 KiB", xlim=(0, 1.12 * max(peaks.values())))
plt.show()

# %% [markdown]
# In whole numbers learning takes what inference takes, and where the peak lies at a layer that trains, that layer's
# perturbed weights. What is left to pay is time: section 3 shows how many forward passes a few hundred weights need,
# section 2 why all of them would need far more.
#
# ## Where to go on
#
# `gradledger adapt --method forward-gradient:m=1,bits=16w8a --train-last 0` adapts a network so;
# `gradledger cost --method forward-gradient:m=1` says what a step costs before it runs.
