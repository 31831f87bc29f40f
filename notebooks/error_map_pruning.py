# %% [markdown]
# # Error map pruning: send back only the channels of the gradient that matter
#
# For every layer of a convolutional network, the backward pass of training makes two more convolutions as expensive as
# the forward one. Both read the gradient that arrives from above, the *error map* $dy$: a map for each output channel.
#
# **Error map pruning** (EMP, one of the two methods of [arXiv 2007.03213](https://arxiv.org/abs/2007.03213)) gives each
# channel of the error map a score before anything is computed from it, keeps the best ones, and leaves the others out
# of both products. The forward pass stays exact.
#
# This page shows the score and the kept channels, the equations beside the code that runs them, what is saved and what
# it costs. You need to know what a convolution is, and no more.
#
# *How to read it.* **[paper]** is what the paper says, numbers in brackets are its equations; **[ours]** is our reading
# or our own measurement. Every number is printed by the cell above it, from data inside this package.

# %%
import os
import time

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown, display

import costmodel
import refimpl as ri
from costmodel.cost import show
from refimpl import data
from refimpl.methods import error_map_pruning as emp
from refimpl.ops import conv2d
from refimpl.train import threads
from validation import errors, watch

SMALL = os.environ.get("GRADLEDGER_SMALL") == "1"  # short settings, to see that every cell runs
KEEPS = (0.75, 0.5, 0.25, 0.1)  # shares of the channels that are kept
COLOURS = {1.0: "#000000", 0.75: "#CC79A7", 0.5: "#0072B2", 0.25: "#E69F00", 0.1: "#009E73"}
plt.rcParams |= {"figure.dpi": 80, "font.size": 11, "axes.titlesize": 11, "axes.spines.top": False}
plt.rcParams |= {"axes.spines.right": False, "image.interpolation": "nearest"}


def table(head, rows):
    """Show rows of text as a table; the first column is on the left."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    display(Markdown("\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)))


# %% [markdown]
# ## 1. Not all channels of the gradient are equal
#
# The network of this page is small: three convolutions along time, which read two seconds of movement at the wrist and
# name one of seven exercises. It was trained on nine people and meets a tenth one now (weights and data are embedded in
# this package). Its maps are one row of 100, 50 or 25 moments. One batch of the new person goes forward and backward;
# `validation.errors.gradients` runs the compiled step call by call and copies each convolution's $dy$, $dx$ and $dw$.

# %%
BATCH = 8 if SMALL else 64
person = data.watch(1)
net = ri.models.build("watch", classes=len(person.classes))
net.weights = ri.models.watch_weights(1)


def reference(*rules):
    """A step whose calls can be watched one by one, in float64."""
    return ri.Trainer(ri.compile(net, ri.Plan("all", rules), BATCH, backend="reference", dtype=np.float64))


exact = errors.gradients(reference(), person.x_train[:BATCH], person.y_train[:BATCH], 0, 1)
LAYERS = [node.name for node in net.nodes if node.op == "conv2d"]
for name in LAYERS:
    dy = exact[name, "dy"]
    energy = np.sort((dy**2).sum((0, 1, 2)))[::-1]
    half = np.searchsorted(energy.cumsum(), 0.5 * energy.sum()) + 1
    print(f"{name}: dy {dy.shape}; {half} of its {len(energy)} channels hold half of its energy")

# %% [markdown]
# ## 2. The score
#
# Channel $k$ of the error map matters if it is large, and if the kernel that made it is large, for $dx$ is their
# product. For one picture $n$, and for a batch, in which all pictures keep the same channels [paper]:
#
# $$ s_{n,k} = \gamma_1 \lVert w_k \rVert_1 + \gamma_2 \lVert dy_{n,k} \rVert_1 \tag{11} $$
#
# $$ S_k = \sum_n s_{n,k} \tag{14} $$
#
# The $L$ channels with the largest $S_k$ are kept. [ours] $\gamma_1 = \gamma_2 = 1$, for the paper prints no value;
# $L = \max(1, \mathrm{round}(\text{keep} \cdot K))$, and of equal scores the lower channel comes first. (The paper's
# $\alpha$ is called "pruning ratio" in one place, but its formula is the share that is *kept*: hence `keep` here.)
#
# In code, on the last convolution, and once more in plain NumPy:

# %%
LAYER, KEEP = "conv3", 0.25
w, dy = net.weights[f"{LAYER}.w"].astype(np.float64), exact[LAYER, "dy"]
scores = emp.score(dy, w)
rank = emp.rank(scores)
kept = emp.keep(rank, L=ri.ErrorMapPruning(KEEP).kept(len(scores)))

of_kernel, of_map = np.abs(w).sum((0, 1, 2)), np.abs(dy).sum((1, 2))
plain = (of_kernel + of_map).sum(0)
print(f"score and NumPy differ by {np.abs(scores - plain).max() / plain.max():.0e}")
print(
    f"the two terms, mean over channels: {len(dy)}·|w| {len(dy) * of_kernel.mean():.3g}, "
    f"|dy| {of_map.sum(0).mean():.3g}"
)
print(f"kept channels: {kept}")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(12.5, 4.4), layout="constrained", width_ratios=(1.5, 1))
order = np.argsort(rank)
high = np.quantile(np.abs(dy), 0.995)
drawn = left.imshow(np.abs(dy).mean((0, 1)).T, aspect="auto", cmap="viridis")
left.plot([-1.2] * len(kept), kept, ">", color="#D55E00", clip_on=False, markersize=7, label="kept")
left.set(xlabel="moment", ylabel=f"output channel of {LAYER}", title="|dy|, mean over the batch")
left.yaxis.set_label_coords(-0.09, 0.5)
left.tick_params(axis="y", pad=10)
left.legend(loc="upper right", fontsize=9)
figure.colorbar(drawn, ax=left, format="%.0e")
sums = of_map.sum(0)
colours = np.where(np.isin(order, kept), "#D55E00", "#BBBBBB")
right.bar(range(len(order)), len(dy) * of_kernel[order], 1, color=colours, edgecolor="white", linewidth=0.3)
right.bar(range(len(order)), sums[order], 1, bottom=len(dy) * of_kernel[order], color="#0072B2", label="of it |dy|")
right.set(xlabel="channels, by rank", ylabel="score S", title=f"keep = {KEEP}: the first {len(kept)} of {len(order)}")
right.legend(frameon=False)
plt.show()

# %% [markdown]
# Which of the two terms decides depends on the scale of the gradient, which the loss sets and the two $\gamma$ have to
# match. So how often does $dy$ have a say?

# %%
rows = []
for name in LAYERS:
    w_of, dy_of = net.weights[f"{name}.w"].astype(np.float64), exact[name, "dy"]
    count = ri.ErrorMapPruning(KEEP).kept(dy_of.shape[3])
    chosen = {}
    for key, gammas in (("both", (1.0, 1.0)), ("w", (1.0, 0.0)), ("dy", (0.0, 1.0))):
        ranked = emp.rank(emp.score(dy_of, w_of, gamma_w=gammas[0], gamma_dy=gammas[1]))
        chosen[key] = set(np.argsort(ranked)[:count])
    rows.append([name, count, len(chosen["both"] & chosen["w"]), len(chosen["both"] & chosen["dy"])])
table(["convolution", "kept", "of these also by |w| alone", "also by |dy| alone"], rows)

# %% [markdown]
# ## 3. What is computed from the kept channels
#
# Both products are those of an ordinary convolution, on the kept channels side by side [paper]:
#
# $$ dx = \sum_{k \text{ kept}} dy_k * w_k \tag{8} $$
#
# $$ dw_k = \begin{cases} x * dy_k & k \text{ kept} \\ 0 & \text{otherwise} \end{cases} \tag{12} $$
#
# Nothing is multiplied by a mask: the pruned channels are not touched. The price in arithmetic is exactly $L/K$ of the
# dense one. [ours] The bias of a pruned channel gets no gradient; a depthwise convolution keeps $L$ of its channels.

# %%
rng = np.random.default_rng(0)
H, W, C = net.shapes(BATCH)["pool2"][1:]
x = rng.normal(size=(BATCH, H, W, C))  # any input: what is checked holds for all
at = {"stride": (1, 1), "pad": ((0, 0), (2, 2))}

dy_kept, w_kept = emp.keep_dy(dy, kept), emp.keep_w(w, kept)
dx = conv2d.grad_x(dy_kept, w_kept, **at, H=H, W=W)  # (8)
dw = emp.spread_w(conv2d.grad_w(dy_kept, x, **at, R=1, S=5), rank)  # (12)

masked = np.where(np.isin(np.arange(dy.shape[3]), kept), dy, 0)  # the slow way: dense products of a masked map
for name, ours, slow in (
    ("(8)", dx, conv2d.grad_x(masked, w, **at, H=H, W=W)),
    ("(12)", dw, conv2d.grad_w(masked, x, **at, R=1, S=5)),
):
    print(f"eq. {name}: pruned and masked differ by {np.abs(ours - slow).max() / np.abs(slow).max():.0e}")
print(f"dw: {(np.abs(dw).sum((0, 1, 2)) > 0).sum()} of {dw.shape[3]} channels have a gradient")

# %% [markdown]
# ## 4. How wrong is the gradient?
#
# The **cosine** of the angle to the exact gradient: 1 is the same direction, 0 none in common. Below, *alone* gives
# each layer the exact $dy$; in *all layers* errors add up from the last layer down, as they do in training. Means over
# batches, in float64 (`validation.errors.gradient_errors`).

# %%
found = {}
for keep in KEEPS:
    plan = ri.Plan("all", (ri.ErrorMapPruning(keep),))
    found[keep] = errors.gradient_errors(
        net, plan, person.x_train, person.y_train, 8 if SMALL else 32, 1 if SMALL else 4
    )
figure, axes = plt.subplots(1, 2, figsize=(12.5, 3.8), layout="constrained", sharey=True)
for axis, array in zip(axes, ("dw", "dx"), strict=True):
    for keep, entries in found.items():
        named = [e for e in entries if array in e["whole"]]  # the first layer has no dx
        for view, style in (("local", "o--"), ("whole", "s-")):
            values = [e[view][array]["cosine"] for e in named]
            label = f"keep {keep}" if view == "whole" else None
            face = "white" if view == "local" else None
            axis.plot([e["layer"] for e in named], values, style, color=COLOURS[keep], mfc=face, label=label)
    axis.set(title=f"{array} (dashed: alone)", ylim=(0, 1.03))
axes[0].set_ylabel("cosine with the exact gradient")
axes[0].legend(frameon=False, loc="lower right")
plt.show()
for array in ("dw", "dx"):
    table(
        [f"cosine of {array}, all layers", *(f"keep {k}" for k in KEEPS)],
        [
            [name, *(f"{found[k][i]['whole'][array]['cosine']:.2f}" for k in KEEPS)]
            for i, name in enumerate(LAYERS)
            if array in found[KEEPS[0]][i]["whole"]
        ],
    )

# %% [markdown]
# ### Does the score choose well? [ours]
#
# For each layer alone: the cosine of $dw$ if the channels are kept by the score, by $\lVert dy_k \rVert_1$ only, at
# random (mean of 20 draws), and by the energy of $dw_k$ itself, which is the best possible choice and which nobody
# knows before computing it.

# %%
figure, axes = plt.subplots(1, len(LAYERS), figsize=(12.5, 3.6), layout="constrained", sharey=True)
for axis, name in zip(axes, LAYERS, strict=True):
    w_of, dy_of = net.weights[f"{name}.w"].astype(np.float64), exact[name, "dy"]
    energy = (exact[name, "dw"] ** 2).sum((0, 1, 2))
    K = len(energy)

    def curve(ranked, energy=energy):
        return np.sqrt(energy[np.argsort(ranked)].cumsum() / energy.sum())  # cosine of a part with its whole

    shares = np.arange(1, K + 1) / K
    axis.plot(shares, curve(np.argsort(np.argsort(-energy))), "k:", label="best possible")
    axis.plot(shares, curve(emp.rank(emp.score(dy_of, w_of, gamma_w=0.0))), color="#0072B2", label="|dy| only")
    axis.plot(shares, curve(emp.rank(emp.score(dy_of, w_of))), color="#D55E00", lw=2, label="score (11)")
    draws = [curve(rng.permutation(K)) for _ in range(20)]
    axis.plot(shares, np.mean(draws, 0), color="0.6", ls="--", label="random")
    axis.set(title=name, xlabel="share of channels kept", ylim=(0, 1.03))
axes[0].set_ylabel("cosine of dw with the exact one")
axes[-1].legend(frameon=False, loc="lower right")
plt.show()

# %% [markdown]
# ## 5. The saving
#
# The additional passes in the letters of the equations ($N$ samples, $P \times Q$ the output map): scoring reads $dy$
# once, which is little beside a convolution that reads it $R \cdot S \cdot C$ times.

# %%
for name in ("score", "rank", "keep_dy", "spread_w"):
    print(show("error_map_pruning", name))


# %%
def compiled(keep, batch=BATCH):
    """A training step of all layers; keep 1 is the dense one, without the rule."""
    rules = (ri.ErrorMapPruning(keep),) if keep < 1 else ()
    return ri.compile(net, ri.Plan("all", rules, ri.Backprop(ri.SGD(0.01, momentum=0.9))), batch=batch)


def milliseconds(program, repeats):
    """Backward pass of a step, the fastest of several."""
    runner, n, times = ri.Trainer(program).runner, program.batch, []
    with threads(program.threads):
        for _ in range(repeats):
            runner.host("input", n)[...] = person.x_train[:n]  # its memory is used again by the backward pass
            runner.host("labels", n)[...] = person.y_train[:n]
            runner.run("forward", n)
            started = time.perf_counter()
            runner.run("backward", n)
            times.append(time.perf_counter() - started)
    return 1e3 * min(times)


programs = {keep: compiled(keep) for keep in (1.0, *KEEPS)}
flops, scoring = {}, {}
for keep, program in programs.items():
    price = costmodel.estimate(program)
    back = [(call, u["mul"] + u["add"]) for call, u in price.calls.items() if call.section == "backward"]
    flops[keep] = sum(n for _, n in back)
    scoring[keep] = sum(n for call, n in back if call.passed is emp.score)
measured = {keep: milliseconds(program, 2 if SMALL else 30) for keep, program in programs.items()}
rows = [
    [
        keep,
        f"{flops[keep] / 1e6:,.1f}",
        f"{flops[keep] / flops[1.0]:.0%}",
        f"{scoring[keep] / flops[1.0]:.2%}",
        f"{measured[keep]:.2f}",
        f"{measured[keep] / measured[1.0]:.0%}",
    ]
    for keep in programs
]
table(["keep", "backward, Mflop", "of dense", "scoring, of dense", "backward, ms (this machine)", "of dense"], rows)

# %% [markdown]
# The operations follow the kept share almost exactly. The seconds follow more slowly: what does not shrink (pooling,
# batch norm, reading $dy$ for the score, copying) weighs more the less there is to multiply. Feature maps are kept in
# full, for $dw$ of any output channel reads all of $x$: this method saves time, not memory.
#
# ## 6. The price: accuracy
#
# The network adapts to each of ten people, whom it has never seen, each time from the weights trained on the nine
# others; all three convolutions train, twenty passes over the person's recordings, SGD with momentum, one seed.

# %%
PEOPLE = (1,) if SMALL else range(1, 11)
results = {}
for keep in (1.0, *((0.25,) if SMALL else KEEPS)):
    rules = (ri.ErrorMapPruning(keep),) if keep < 1 else ()
    results[keep] = np.array([watch.adapt(p, rules, epochs=1 if SMALL else 20) for p in PEOPLE]) * 100
before = results[1.0][:, 0]
rows = [["before", f"{before.mean():.1f} %", f"{before.min():.1f} %"]]
rows += [[f"keep {k}", f"{a[:, 1].mean():.1f} %", f"{a[:, 1].min():.1f} %"] for k, a in results.items()]
table(["", f"accuracy, mean of {len(PEOPLE)}", "worst person"], rows)

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(12.5, 3.8), layout="constrained", width_ratios=(1, 1.3))
share = [flops[k] / flops[1.0] for k in results]
left.plot([100 * s for s in share], [a[:, 1].mean() for a in results.values()], "-", color="0.7", zorder=0)
for k, s in zip(results, share, strict=True):
    left.plot(100 * s, results[k][:, 1].mean(), "o", color=COLOURS[k], markersize=9)
    left.annotate(f"{k}", (100 * s, results[k][:, 1].mean()), xytext=(0, 9), textcoords="offset points", ha="center")
left.axhline(before.mean(), color="0.4", linestyle="--", linewidth=1)
left.annotate("before adapting", (0.5, before.mean()), xycoords=("axes fraction", "data"), va="bottom", color="0.3")
left.set(xlabel="operations of the backward pass, % of dense", ylabel="accuracy, mean, %", ylim=(None, 99))
people = np.argsort(before)
place = np.arange(len(people))
right.plot(place, before[people], "v", color="0.4", label="before")
for i, (k, found_of) in enumerate(results.items()):
    right.plot(place + 0.13 * (i - 2), found_of[people, 1], "o", color=COLOURS[k], label=f"keep {k}", markersize=5)
right.set_xticks(place, [list(PEOPLE)[i] for i in people])
right.set(xlabel="person (sorted by accuracy before)", ylabel="accuracy, %")
right.legend(frameon=False, ncols=3, loc="lower right", fontsize=10)
plt.show()

# %% [markdown]
# ### A pruned gradient can need a smaller learning rate [ours]
#
# Fine-tuning starts near a good place. From scratch it can go wrong: the LeNet of Caffe's examples, 2,000 pictures of
# clothes, SGD with momentum 0.9, batch 64. Each run stops where its loss is no longer a number.

# %%
fashion = data.fashion_mnist()
STEPS = 4 if SMALL else 60
RUNS = {
    "dense, lr 0.02": (1.0, 0.02, "fast", "-"),
    "keep 0.5, lr 0.02": (0.5, 0.02, "fast", "-"),
    "keep 0.5, lr 0.02, reference kernels": (0.5, 0.02, "fast" if SMALL else "reference", ":"),
    "keep 0.5, lr 0.01": (0.5, 0.01, "fast", "--"),
}


def from_scratch(keep, lr, backend):
    """Losses of the steps of a run, and why it stopped."""
    lenet = ri.models.build("lenet", classes=10, size=(28, 28), channels=1)
    rules = (ri.ErrorMapPruning(keep),) if keep < 1 else ()
    plan = ri.Plan("all", rules, ri.Backprop(ri.SGD(lr, 0.9)), train_bias=True)
    trainer = ri.Trainer(ri.compile(lenet, plan, batch=64, backend=backend), seed=1)
    try:
        for progress in trainer.steps(fashion.x_train, fashion.y_train, epochs=2):
            if progress.step == STEPS:
                return trainer.losses, f"{STEPS} steps, no end"
    except ri.NonFiniteError as e:
        return trainer.losses, str(e).split(",")[0]


figure, axis = plt.subplots(figsize=(8, 3.6), layout="constrained")
for name, (keep, lr, backend, style) in RUNS.items():
    losses, end = from_scratch(keep, lr, backend)
    colour = "#D55E00" if backend == "reference" else COLOURS[keep]
    axis.plot(range(1, len(losses) + 1), losses, style, color=colour, lw=2, label=name)
    print(f"{name:37s} {end}; last loss {losses[-1]:.3g}")
axis.set(xlabel="step", ylabel="loss", yscale="log")
axis.legend(frameon=False, fontsize=10)
plt.show()

# %% [markdown]
# ## 7. In short

# %%
k = 0.25
lines = [
    f"A quarter of the channels: {flops[k] / flops[1.0]:.0%} of the operations of the backward pass, "
    f"{measured[k] / measured[1.0]:.0%} of its time here.",
    f"Accuracy {results[k][:, 1].mean():.1f} % instead of {results[1.0][:, 1].mean():.1f} %, "
    f"from {before.mean():.1f} % before.",
]
display(Markdown("\n".join(f"- {line}" for line in lines)))

# %% [markdown]
# - A pruned gradient is a part of the exact one in the layer where it is pruned; errors add up below it.
# - The paper's own figures are for networks from scratch: ResNet-110 on CIFAR-10 loses nothing at 36 % less backward
#   work and 0.72 points at 62 % less [paper]. This page adapts a small pre-trained net and cannot confirm them.
#
# To go on: `refimpl/methods/error_map_pruning.py` (the passes), `costmodel/methods/error_map_pruning.py` (their cost),
# `gradledger adapt --method error-map-pruning:keep=0.5` (your own data), `gradledger reproduce lenet-mnist` (the
# paper's experiment, with its instance filter).
