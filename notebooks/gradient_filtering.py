# %% [markdown]
# # Gradient filtering: train a convolution with less of its backward pass
#
# A convolutional network that learns on a small device spends about two thirds of its time, and most of its memory, on
# the *backward* pass: for every layer, two more convolutions as expensive as the forward one, and every input kept
# until its turn comes.
#
# **Gradient filtering** (Yang, Li, Marculescu, *Efficient On-device Training via Gradient Filtering*, CVPR 2023,
# [arXiv 2301.00330](https://arxiv.org/abs/2301.00330)) replaces the gradient that reaches a layer by its average over
# small square patches. A gradient that is constant in patches makes both products cheap, and most of the input need not
# be kept. The forward pass, and so every prediction, stays exact.
#
# This page shows the idea in pictures, each equation beside the code that runs it, what is saved, and what it costs.
# You need to know what a convolution and back-propagation are.
#
# *How to read it.* **[paper]** is what the paper says, **[code]** what its authors' published code does beyond it,
# **[ours]** our reading or our own measurement. Every number is printed by the cell above it, from data inside this
# package. `make notebooks` runs the page again; in Jupyter, run the cells from top to bottom.

# %%
import math
import os
import time
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown, display
from matplotlib.ticker import MaxNLocator

import costmodel
import refimpl as ri
from costmodel.formulas.cost import show
from refimpl import data
from refimpl.kernels.running import threads
from refimpl.methods import gradient_filter as gf
from refimpl.ops import conv2d
from validation.experiments import watch
from validation.instruments import gradient_filter_spectrum as spectrum

SMALL = os.environ.get("GRADLEDGER_SMALL") == "1"  # short settings, to see that every cell runs
PATCHES = (1, 2, 4, 7)  # sides r of the patches
COLOURS = {"exact": "#000000", 1: "#CC79A7", 2: "#0072B2", 4: "#E69F00", 7: "#009E73"}  # told apart by everybody
plt.rcParams |= {"figure.dpi": 80, "font.size": 11, "axes.titlesize": 11, "axes.spines.top": False}
plt.rcParams |= {"axes.spines.right": False, "image.interpolation": "nearest"}


def label(key):
    """How tables and plots call the exact gradient or a patch."""
    return "exact" if key == "exact" else f"r = {key}"


def table(head, rows):
    """Show rows of text as a table; the first column is on the left."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    display(Markdown("\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)))


# %% [markdown]
# ## 1. What a convolution does on the way back
#
# A convolution turns an input map $x$ with $C$ channels into an output map $y$ with $K$ channels. Each output value is
# a weighted sum over a small window ($R \times S$, mostly $3 \times 3$) of the input:
#
# $$ y[n,p,q,k] = \sum_{i,j,c} x[n,\; p+i,\; q+j,\; c] \; w[i,j,c,k] $$
#
# ($n$ is the sample in the batch, $p, q$ the place on the map, $i, j$ the place in the window. Padding and stride move
# the window; they are in the code.)
#
# Training needs to know how the loss $L$ changes with the weights. The layer above hands down $dy = \partial L/\partial
# y$, a map as large as $y$. From it the layer computes two products of the same kind, and thus of about the same price
# as the forward pass:
#
# $$ dx[n,h,v,c] = \sum_{i,j,k} dy[n,\; h-i,\; v-j,\; k] \; w[i,j,c,k] \qquad\text{for the layer below} $$
#
# $$ dw[i,j,c,k] = \sum_{n,p,q} x[n,\; p+i,\; q+j,\; c] \; dy[n,p,q,k] \qquad\text{to update the weights} $$
#
# The second one reads $x$ again: **every input map stays in memory** from the forward pass until the gradient is back.
#
# To see real gradients we need a real network. Here is a small residual network (ResNet-8: seven 3×3 convolutions and
# two 1×1 ones), trained on the first six of the ten classes of Fashion-MNIST, grey pictures of clothes of 28×28
# pixels. Later it has to learn some classes that it has never seen.

# %%
fashion = data.fashion_mnist()
KNOWN, NEW = range(6), range(4, 10)  # two of the classes are in both


def part(classes, limit=None):
    """Training and test pictures of some classes: x_train, y_train, x_test, y_test."""
    train, test = (np.isin(y, classes) for y in (fashion.y_train, fashion.y_test))
    return fashion.x_train[train][:limit], fashion.y_train[train][:limit], fashion.x_test[test], fashion.y_test[test]


net = ri.models.resnet8(classes=10, size=(28, 28), channels=1)
plan = ri.Plan(
    "all",
    step=ri.Backprop(ri.SGD(0.1, momentum=0.9, weight_decay=5e-4, schedule=ri.Schedule("cosine")), clip_norm=2.0),
    batch_norm="train",
)
trainer = ri.Trainer(ri.compile(net, plan, batch=64), seed=0)
x_train, y_train, x_test, y_test = part(KNOWN, limit=128 if SMALL else None)
trainer.fit(x_train, y_train, epochs=1 if SMALL else 12)
net.weights = trainer.parameters
names = ", ".join(fashion.classes[c] for c in KNOWN)
print(f"trained on {len(x_train)} pictures: {names}")
print(f"{100 * trainer.evaluate(x_test, y_test):.1f} % of {len(x_test)} test pictures of these classes are right")

# %% [markdown]
# Now one batch of pictures of the *new* classes goes forward and backward through this network, with exact gradients.
# A compiled step is a list of kernel calls; we run them one by one and keep a copy of everything that a convolution's
# gradients read and write.

# %%
BATCH = 8 if SMALL else 64
images, labels = (a[:BATCH] for a in part(NEW)[:2])


def look_inside(*rules):
    """One step's gradients on the batch: convolution → its x, w, dy, dw, dx, … and its stride and padding."""
    program = ri.compile(net, ri.Plan("all", rules), BATCH, backend="reference")
    runner = ri.Trainer(program).runner
    runner.write("input", BATCH, images)
    runner.write("labels", BATCH, labels)
    seen = {}
    for section in ("forward", "backward"):
        for launch, (kernel, arguments) in zip(program.launches[section], runner.prepared(section, BATCH), strict=True):
            kernel(*arguments)
            (call,) = launch.covers
            if call.passed.operator in ("conv2d", "gradient_filter"):
                layer = seen.setdefault(call.node, SimpleNamespace(dx=None))
                for name, buffer in call.arrays.items():
                    setattr(layer, name, runner.array(buffer).copy())
                if call.passed is conv2d.forward:
                    layer.at = call.attrs  # stride, padding, dilation
    return seen


exact = look_inside()
table(
    ["convolution", "x (rows×columns×channels)", "w", "dy", "stride"],
    [
        [name, *("×".join(map(str, a)) for a in (v.x.shape[1:], v.w.shape, v.dy.shape[1:])), v.at["stride"][0]]
        for name, v in exact.items()
    ],
)

# %% [markdown]
# ## 2. The idea in pictures: average the gradient in patches
#
# The method cuts the gradient map $dy$ of each output channel into patches of $r \times r$ and puts the mean in place
# of each:
#
# $$ \tilde g[n,u,v,k] \;=\; \text{mean of } dy[n,p,q,k] \text{ over patch } (u,v) \tag{2} $$
#
# (Numbers in brackets are the paper's equation numbers.) In code it is one call: `gf.pool_dy` returns the small map of
# means. To draw it, `gf.expand` writes each of them over its whole patch again. Here are one picture and the gradients
# at the outputs of an early and of the last convolution, each in the channel where it is strongest:


# %%
def averaged(v, r):
    """A convolution's dy, (N, P, Q, K), with each patch replaced by its mean."""
    return gf.expand(gf.pool_dy(v.dy, patch=r), patch=r, H=v.dy.shape[1], W=v.dy.shape[2])


def strongest(v):
    """Picture and channel with the strongest gradient, to have something to see."""
    energy = (v.dy**2).sum((1, 2))
    return np.unravel_index(energy.argmax(), energy.shape)


EARLY, LAST_ONE = "layer1.0.conv1", "layer3.0.conv2"
layer = exact[EARLY]
sample = strongest(layer)[0]
figure, axes = plt.subplots(2, 5, figsize=(12, 5.6), layout="constrained")
axes[0, 0].imshow(images[sample, ..., 0], cmap="gray")
axes[0, 0].set_title(f"the picture\n({fashion.classes[labels[sample]]})")
for line, name in zip(axes, (EARLY, LAST_ONE), strict=True):
    v = exact[name]
    channel = (v.dy[sample] ** 2).sum((0, 1)).argmax()
    high = np.quantile(np.abs(v.dy[sample, ..., channel]), 0.98)
    for axis, r in zip(line[1:], PATCHES, strict=True):
        values = gf.pool_dy(v.dy, patch=r).shape[1:3]
        drawn = axis.imshow(averaged(v, r)[sample, ..., channel], cmap="PuOr", vmin=-high, vmax=high)
        axis.set_title(f"{label('exact' if r == 1 else r)}\n{values[0]}×{values[1]} values")
    line[1].set_ylabel(f"{name}\nchannel {channel}")
    figure.colorbar(drawn, ax=line, label="gradient dy", shrink=0.85, format="%.0e", extend="both")
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
plt.show()

# %% [markdown]
# The coarse outline stays, the fine detail goes. A gradient map can be seen as a sum of waves, from slow ones (the
# average of the whole map is the slowest, frequency 0) to ones that change sign at every pixel. Averaging keeps the
# slow ones and removes the fast ones: it is a low-pass filter, hence the name of the method. The spectrum of the early
# layer shows how much energy (squared strength) each wave has, averaged over all pictures and channels of the batch;
# slow waves are in the middle. (The grid of bright lines comes from strides of 2 further up, which read the map at
# every second pixel [ours].)


# %%
def energies(maps):
    """Energy of each frequency, mean over samples and channels, frequency 0 in the middle."""
    return np.fft.fftshift((np.abs(np.fft.fft2(maps, axes=(1, 2))) ** 2).mean((0, 3)))


spectra = {r: energies(averaged(layer, r)) for r in PATCHES}
HALF = 0.5 / layer.dy.shape[1]  # of the distance between two frequencies
figure, axes = plt.subplots(1, 4, figsize=(12, 3.4), layout="constrained", sharey=True)
for axis, r in zip(axes, PATCHES, strict=True):
    decibel = 10 * np.log10(np.maximum(spectra[r] / spectra[1].max(), 1e-9))
    drawn = axis.imshow(decibel, cmap="viridis", vmin=-30, vmax=0, extent=(-0.5 - HALF, 0.5 - HALF) * 2)
    axis.set(title=label("exact" if r == 1 else r), xlabel="columns, waves per pixel", xticks=[-0.5, 0, 0.5])
axes[0].set_ylabel("rows, waves per pixel")
figure.colorbar(drawn, ax=axes, label="energy, dB (−10: a tenth)", extend="min")
plt.show()

for r in PATCHES:
    values = 1 / r**2
    print(
        f"r = {r}: {spectra[r].sum() / spectra[1].sum():6.1%} of the energy of dy stay in {values:6.1%} of its values"
    )

# %% [markdown]
# If $dy$ were pure noise, all waves equally strong, patch means would keep $1/r^2$ of the energy: as much as they keep
# of the values. How far the real gradient lies above that is how far it is *smooth*. The input $x$ counts as well: $dw$
# is a product of $x$ and $dy$, and where $x$ has no fast waves, those of $dy$ do not reach $dw$. So here are both, for
# every convolution [ours]:


# %%
def kept(maps, r):
    """Share of the energy of maps (N, P, Q, K) that their patch means hold."""
    mean = gf.expand(gf.pool_dy(maps, patch=r), patch=r, H=maps.shape[1], W=maps.shape[2])
    return np.sum(mean**2) / np.sum(maps**2)


short = [name.replace("layer", "").replace(".0", "").replace("downsample.conv", "down") for name in exact]
figure, axes = plt.subplots(1, 2, figsize=(12, 3.6), layout="constrained", sharey=True)
place = np.arange(len(exact))
for axis, array in zip(axes, ("dy", "x"), strict=True):
    for i, r in enumerate(PATCHES[1:]):
        values = [100 * kept(getattr(v, array), r) for v in exact.values()]
        axis.bar(place + 0.27 * (i - 1), values, 0.25, color=COLOURS[r], label=f"{label(r)} (noise: {100 / r**2:.0f})")
        axis.axhline(100 / r**2, color=COLOURS[r], linestyle="--", linewidth=1)
    axis.set_xticks(place, short, rotation=45)
    axis.set_title(f"{array} of each convolution (dashed: what noise would keep)")
axes[0].set_ylabel("energy kept by patch means, %")
axes[0].legend(frameon=False, ncols=3, loc="upper left")
plt.show()

# %% [markdown]
# ## 3. What a constant patch makes cheap
#
# ### The gradient for the layer below
#
# In the formula of $dx$ above, suppose that $dy$ does not change within the window: then it can be pulled out of the
# sum over $i, j$, and what remains of the kernel is its sum. One number for each patch is enough [paper]:
#
# $$ dx \text{ on the whole patch } (u,v) \;=\; \sum_k \tilde g[n,u,v,k]\;\tilde w[c,k],
#    \qquad \tilde w[c,k] = \sum_{i,j} w[i,j,c,k] \tag{3} $$
#
# Near the border of a patch the window reaches into the next patch, where $\tilde g$ has another value. The method
# ignores that: it treats each patch as if it went on (supplement B.4). That is its second approximation.
#
# ### The gradient of the weights
#
# In $dw$ too, $\tilde g$ comes out of the sum over a patch. What remains is the sum of $x$ over the patch, and if the
# shift by $(i,j)$ is ignored in the same way, it is the same sum for every place in the window [paper]:
#
# $$ dw[i,j,c,k] \;=\; \sum_{n,u,v} \tilde x[n,u,v,c]\;\tilde g[n,u,v,k] \text{ for every } (i,j),
#    \qquad \tilde x = \text{sum of } x \text{ over the patch} \tag{5} $$
#
# So only $\tilde x$ has to be kept from the forward pass: about $1/r^2$ of the memory. And here are both equations in
# code, one line for each symbol. The same passes run in training.


# %%
def filtered(v, r):
    """Filtered dx and dw of a convolution from its exact dy, with everything on the way."""
    stride = v.at["stride"]
    g = gf.pool_dy(v.dy, patch=r)  # eq. (2)
    grid = {"U": g.shape[1], "V": g.shape[2]}

    w_sum = gf.sum_w(v.w)  # eq. (3)
    dx_patch = gf.patch_grad(g, w_sum, G=1)
    dx = gf.expand(dx_patch, patch=r, stride=stride, H=v.x.shape[1], W=v.x.shape[2])

    x_sum = gf.pool_x(v.x, patch=r, stride=stride, **grid)  # eq. (5)
    dw_patch = gf.patch_grad_w(g, x_sum, G=1)
    dw = gf.expand_w(dw_patch, R=v.w.shape[0], S=v.w.shape[1])
    return SimpleNamespace(g=g, w_sum=w_sum, dx=dx, x_sum=x_sum, dw=dw)


# the equations once more, in plain NumPy, to be sure that the passes do what is written above
test = filtered(layer, 4)
by_patch = (-1, 7, 4, 7, 4)  # 28 rows and columns in patches of 4
g = layer.dy.reshape(*by_patch, layer.dy.shape[3]).mean((2, 4))
x_sum = layer.x.reshape(*by_patch, layer.x.shape[3]).sum((2, 4))
for name, ours, plain in (
    ("(2)", test.g, g),
    ("(3)", test.dx[:, ::4, ::4], np.einsum("nuvk,ck->nuvc", g, layer.w.sum((0, 1)))),
    ("(5)", test.dw[1, 1], np.einsum("nuvc,nuvk->ck", x_sum, g)),
):
    print(
        f"eq. {name}: passes and NumPy differ by {np.abs(ours - plain).max() / np.abs(plain).max():.0e} of the largest"
    )

# %% [markdown]
# What the layer keeps of its input, what it hands down, and what its weights get, for a patch of 4:

# %%
channel = (layer.dy[sample] ** 2).sum((0, 1)).argmax()
channel_in = (layer.dx[sample] ** 2).sum((0, 1)).argmax()
pairs = (
    ("x, kept by exact training", layer.x[sample, ..., channel_in]),
    ("x̃ / 16, kept instead", test.x_sum[sample, ..., channel_in] / 16),
    ("dx, exact", layer.dx[sample, ..., channel_in]),
    ("dx, filtered", test.dx[sample, ..., channel_in]),
    ("dw of one kernel, exact", layer.dw[..., channel_in, channel]),
    ("dw, filtered", test.dw[..., channel_in, channel]),
)
figure, axes = plt.subplots(2, 3, figsize=(9.5, 6.6), layout="constrained")
for i, (axis, (title, values)) in enumerate(zip(axes.T.flat, pairs, strict=True)):
    high = max(np.abs(pairs[i // 2 * 2 + j][1]).max() for j in (0, 1))  # one scale for a column
    low, colours = (0, "viridis") if i < 2 else (-high, "PuOr")
    drawn = axis.imshow(values, cmap=colours, vmin=low, vmax=high)
    axis.set_title(f"{title}\n{values.shape[0]}×{values.shape[1]}")
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    if values.shape == (3, 3):
        for (r, s), number in np.ndenumerate(values):
            shade = "white" if abs(number) > 0.6 * high else "black"
            axis.text(s, r, f"{number:.2g}", ha="center", va="center", fontsize=9, color=shade)
    if i % 2:
        figure.colorbar(drawn, ax=axes[:, i // 2], shrink=0.9, orientation="horizontal", ticks=MaxNLocator(4))
figure.suptitle(f"{EARLY}, patch of 4, input channel {channel_in}, output channel {channel}")
plt.show()

# %% [markdown]
# The equations are for maps that the patch divides, stride 1 and no groups. What is read into them for everything else
# (patches centred on the map, strides, dilation, groups) stands in the docstring of
# `refimpl/methods/gradient_filter.py`, each reading with its source.

# %% [markdown]
# ## 4. When it is exact
#
# An approximation is best understood where it is none. Two errors were made: $dy$ was averaged, and the shift within
# the window was ignored. Where neither does anything, the filtered gradient *is* the gradient:


# %%
def case(what, window, patch, dy, pad=0):
    """Distance between filtered and exact gradients of one convolution, as a share of the exact one."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 8, 8, 3)), rng.normal(size=(window, window, 3, 4))
    at = {"stride": (1, 1), "pad": pad}
    v = SimpleNamespace(x=x, w=w, dy=dy(rng), at=at)
    approximate = filtered(v, patch)
    true = conv2d.grad_x(v.dy, w, **at, H=8, W=8), conv2d.grad_w(v.dy, x, **at, R=window, S=window)
    errors = [
        np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip((approximate.dx, approximate.dw), true, strict=True)
    ]
    return [what, f"{window}×{window}", patch, *(f"{e:.0e}" if e < 1e-12 else f"{e:.2f}" for e in errors)]


def constant_in_patches(rng):
    return np.repeat(np.repeat(rng.normal(size=(2, 4, 4, 4)), 2, 1), 2, 2)


def any_gradient(rng):
    return rng.normal(size=(2, 8, 8, 4))


table(
    ["dy", "kernel", "patch", "error of dx", "error of dw"],
    [
        case("anything", 1, 1, any_gradient),
        case("constant in patches of 2", 1, 2, constant_in_patches),
        case("anything", 1, 2, any_gradient),
        case("anything", 3, 1, any_gradient, pad=1),
        case("constant in patches of 2", 3, 2, constant_in_patches, pad=1),
        case("anything", 3, 2, any_gradient, pad=1),
    ],
)

# %% [markdown]
# The first two rows are exact to the rounding of float64. The others show each error alone and, in the last row, both:
# the third row averages, the fourth only ignores the shift, the fifth has no averaging error left and still ignores the
# shift across borders. Random numbers are the worst case: they have no slow waves to keep, and an error above 1 is
# worse than no gradient.
#
# ## 5. The saving
#
# Each pass has a formula for its cost, in the letters of the equations ($N$ samples, $P \times Q$ the output map, $U
# \times V$ the patches, `mac` a multiplication with an addition, `load` and `store` values read and written, `G` groups
# of channels, 1 here). Compare the exact products with the filtered ones: $R \cdot S \cdot P \cdot Q$ (as `taps`, which
# leaves out the padding) has become $U \cdot V$, about $r^2 \cdot R \cdot S$ times less.

# %%
for operator, name in (
    ("conv2d", "grad_x"), ("gradient_filter", "patch_grad"),
    ("conv2d", "grad_w"), ("gradient_filter", "patch_grad_w"),
    ("gradient_filter", "pool_dy"), ("gradient_filter", "pool_x"), ("gradient_filter", "sum_w"),
):  # fmt: skip
    print(show(operator, name))

# %% [markdown]
# The small print is in the last three: averaging $dy$, summing $x$ and summing $w$ are work too. The first two grow
# with the map and hardly shrink with $r$, the third is fixed, which is why large patches save less than $r^2$ promises.
#
# Now a whole training step. A step is compiled before it runs, so its operations, the bytes that it keeps from forward
# to backward and the memory that it needs are known beforehand. We train the last four convolutions of the network, as
# the paper does; all below is frozen and needs no gradient at all.

# %%
STEP_BATCH = 8 if SMALL else 64
LAST = 4


def compiled(*rules, batch=STEP_BATCH, last=LAST):
    """A training step of the last convolutions."""
    sgd = ri.SGD(lr=0.03, momentum=0.9, schedule=ri.Schedule("cosine"), weight_decay=1e-4)
    return ri.compile(net, ri.Plan(last, rules, ri.Backprop(sgd, clip_norm=2.0)), batch=batch)


programs = {"exact": compiled()} | {r: compiled(ri.GradientFilter(r)) for r in PATCHES}
prices = {key: costmodel.estimate(program) for key, program in programs.items()}


def flops(price, section):
    """Multiplications and additions of a section of the step, in millions."""
    return (price.sections[section]["mul"] + price.sections[section]["add"]) / 1e6


def row(key):
    back, kept = flops(prices[key], "backward"), programs[key].saved_bytes
    times = [flops(prices["exact"], "backward") / back, programs["exact"].saved_bytes / kept]
    return [
        label(key),
        f"{flops(prices[key], 'forward'):,.1f}",
        f"{back:,.1f}",
        f"{times[0]:.1f}×",
        f"{kept / 1024:,.0f}",
        f"{times[1]:.1f}×",
        f"{programs[key].peak_bytes / 1024:,.0f}",
    ]


display(Markdown(f"One step on {STEP_BATCH} pictures, the last {LAST} convolutions and the classifier train:"))
table(
    ["", "forward, Mflop", "backward, Mflop", "less", "kept for backward, KiB", "less", "memory in all, KiB"],
    [row(key) for key in programs],
)

# %% [markdown]
# The forward pass hardly grows (it sums $x$ in patches); the backward pass falls at once, by nearly the factor $R \cdot
# S$ that even patches of one element save (not by all of it: one of the four convolutions is a 1×1 one, and the
# classifier is not filtered). What is kept falls by less than $r^2$: the maps of 7 rows do not divide by 4, and the
# masks of ReLU and the classifier's input stay. *Memory in all* is the arena that the step needs; it contains the maps
# of the forward pass itself, which no rule for gradients can remove.

# %% [markdown]
# And the clock? Operations are not seconds: where few are left, moving the data takes longer than computing. These are
# milliseconds of the backward pass on the machine that ran this page, the fastest of several runs (yours will differ):


# %%
def milliseconds(program, repeats):
    """Backward pass of a step, the fastest of several."""
    runner, n = ri.Trainer(program).runner, program.batch
    x, y = part(NEW)[:2]
    found = []
    with threads(program.threads):
        for _ in range(repeats):
            runner.write("input", n, x[:n])  # each time: their place in memory is used again by the backward pass
            runner.write("labels", n, y[:n])
            runner.run("forward", n)
            started = time.perf_counter()
            runner.run("backward", n)
            found.append(time.perf_counter() - started)
    return 1e3 * min(found)


measured = {key: milliseconds(program, 2 if SMALL else 25) for key, program in programs.items()}
print(f"threads: {programs['exact'].threads}")
for key, ms in measured.items():
    print(f"{label(key):6s}{ms:7.2f} ms   {ms / measured['exact']:4.0%} of the exact one's time", end="   ")
    print(f"({flops(prices[key], 'backward') / flops(prices['exact'], 'backward'):4.0%} of its operations)")

# %% [markdown]
# ## 6. The price: how wrong is the gradient?
#
# Two numbers say how well a gradient $\tilde d$ stands in for the exact $d$. The **cosine** of the angle between them:
# 1 is the same direction, 0 none in common; a positive cosine still goes downhill. And the **length** $\lVert \tilde d
# \rVert / \lVert d \rVert$, which should be 1. (The relative error $\lVert \tilde d - d \rVert / \lVert d \rVert$ has
# both in one.)
#
# All convolutions are filtered here, so that errors add up on the way from the last layer (bottom) to the first (top):
# a layer gets a $dy$ that was already filtered further up the network. This is the price in real training.


# %%
def cosine(a, b):
    return float(np.vdot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))


def length(a, b):
    return float(np.linalg.norm(a) / np.linalg.norm(b))


def relative_error(a, b):
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


together = {r: look_inside(ri.GradientFilter(r)) for r in PATCHES}
table(
    ["cosine of dw, every convolution filtered", *(label(r) for r in PATCHES)],
    [[name, *(f"{cosine(together[r][name].dw, v.dw):.2f}" for r in PATCHES)] for name, v in exact.items()],
)

# %% [markdown]
# ### The direction is nearly right
#
# How much of the error of direction is a layer's own doing, and how much did it inherit? Below, "alone" gives each
# layer the exact $dy$. The dotted line is the best that *any* method with one value per window could do: the exact
# $dw$, averaged over its window [ours].

# %%
figure, axes = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained", sharey=True)
for axis, r in zip(axes, PATCHES[1:], strict=True):
    alone = [cosine(filtered(v, r).dw, v.dw) for v in exact.values()]
    inherited = [cosine(together[r][name].dw, v.dw) for name, v in exact.items()]
    bound = [cosine(np.broadcast_to(v.dw.mean((0, 1)), v.dw.shape), v.dw) for v in exact.values()]
    axis.plot(short, bound, color="0.55", linestyle=":", marker="^", label="exact dw, mean over window")
    axis.plot(short, alone, color=COLOURS[r], linestyle="--", marker="o", mfc="white", label="filtered, alone")
    axis.plot(short, inherited, color=COLOURS[r], marker="s", label="filtered, all layers")
    axis.axhline(0, color="black", linewidth=0.8)
    axis.tick_params(axis="x", rotation=60)
    axis.set_title(label(r))
axes[0].legend(frameon=False, fontsize=9, loc="lower right")
axes[0].set_ylabel("cosine with the exact dw")
figure.suptitle("direction of the weight gradient, from the first convolution to the last")
plt.show()

# %% [markdown]
# ### The length is wrong where there is a stride [ours]
#
# A stride of 2 lets the window visit every second pixel. An input pixel then meets a quarter of the kernel's weights,
# and a weight meets a quarter of the pixels. The filtered equations, with patches of $x$ twice as long and no other
# factor [code], let each meet all of them: $dx$ and $dw$ come out stride² = 4 times too long, and the layers below
# inherit it, times their own strides. Counting the strides on the way explains most of the lengths; what is left after
# dividing is the two approximations':


# %%
def stride_factors():
    """How many times too long each dw is: stride² of its convolution and of all that its dy came through."""
    arriving, factors = {net.output: 1}, {}
    for node in reversed(net.nodes):
        factor = arriving[node.name]
        if node.op == "conv2d":
            factor *= math.prod(node.attrs["stride"])
            factors[node.name] = factor
        arriving |= dict.fromkeys(node.inputs, factor)
    return factors


FACTORS = stride_factors()
rows = []
for name, v in exact.items():
    corrected = together[2][name].dw / FACTORS[name]
    rows.append([name, FACTORS[name], f"{length(together[2][name].dw, v.dw):.2f}"])
    rows[-1] += [f"{relative_error(a, v.dw):.2f}" for a in (together[2][name].dw, corrected)]
table(["convolution, r = 2", "stride² on the way", "length", "relative error", "… divided by stride²"], rows)

# %% [markdown]
# A length that is wrong by the same factor everywhere is only another learning rate. Here it differs from layer to
# layer, so that some layers learn faster than others, and where the norm of the whole gradient is clipped, the long
# ones leave little room for the rest. Section 8 shows what that does to the accuracy.

# %% [markdown]
# ## 7. Does the error grow on its way down? (Proposition 1)
#
# An error in $dy$ goes into $dx$, which is the next layer's $dy$, and so on. [paper] The signal-to-noise ratio (SNR)
# is the energy of the gradient over the energy of what the filter changed. Proposition 1 says: if a kernel lets the
# slowest wave (frequency 0, "DC") through best, then the SNR of $dx$ is at least that of $\tilde g$. In words: such a
# kernel turns down the noise, which is all in the fast waves.
#
# It holds for one kernel and one patch without neighbours, and the condition is sufficient, not necessary
# (`tests/test_gradient_filter_spectrum.py` checks it in these terms). How much of it to expect in a network? For each
# 3×3 convolution:
# the share of its kernels that fulfil the condition, the energy of DC over that of the strongest other wave (how we
# read the paper's Table 5 [ours]), and the SNR of $\tilde g$ and of $dx$ as measured, each layer alone, with stride²
# divided out of $dx$.


# %%
R_SNR = 4


def snr(true, approximate):
    return float(np.sum(true**2) / np.sum((true - approximate) ** 2))


rows = []
for name, v in exact.items():
    if v.w.shape[0] == 1 or v.dx is None:
        continue  # a 1×1 kernel has a flat spectrum; the first layer hands nothing down
    kernels = spectrum.spectral_condition(v.w)
    of_g = snr(v.dy, averaged(v, R_SNR))
    of_dx = snr(v.dx, filtered(v, R_SNR).dx / math.prod(v.at["stride"]))
    rows.append([name, f"{kernels['condition']:.0%}", f"{kernels['energy_ratio']:.2f}"])
    rows[-1] += [f"{of_g:.2f}", f"{of_dx:.2f}", "yes" if of_dx >= of_g else "no"]
table(["convolution", "kernels with condition", "energy ratio", "SNR of g̃", "SNR of dx", "dx ≥ g̃?"], rows)
published = ", ".join(f"{name} {ratio}" for name, ratio in spectrum.TABLE_5.items())
print(f"energy ratios of the paper's Table 5: {published}")

# %% [markdown]
# A *no* in the last column does not contradict the proposition, which speaks of less; but nobody should count on the
# error shrinking on its way down.
#
# ## 8. What counts in the end: accuracy
#
# ### A network that has to learn new classes
#
# The network of section 1 knows six kinds of clothes. Now it learns six, four of which it has never seen, with its last
# four convolutions and the classifier, as in the paper's experiments, only far smaller.
#
# To see where the price comes from, two more runs change the gradient between backward and update [ours]: one filters
# and divides the strides out; the other has exact gradients, but gives all places of a window the mean of their $dw$,
# as if nothing had been lost but that.


# %%
def change_gradients(trainer, change):
    """Make a trainer apply `change(parameter name, gradient)` to each gradient before the update."""
    runner, run = trainer.runner, trainer.runner.run

    def run_changed(section, n):
        if section == "update":
            for name, buffer in trainer.program.step.gradients.items():
                gradient = runner.array(buffer)
                gradient[...] = change(name, gradient)
        run(section, n)

    runner.run = run_changed


def divide_strides(name, gradient):
    return gradient / FACTORS.get(name.removesuffix(".w"), 1)


def window_mean(name, gradient):
    return gradient.mean((0, 1)) if gradient.ndim == 4 else gradient


def adapt(patch, change, seed):
    """Accuracy on the new classes after adapting, in percent; patch None: exact."""
    x_train, y_train, x_test, y_test = part(NEW)
    limit = 64 if SMALL else None
    rules = (ri.GradientFilter(patch),) if patch else ()
    trainer = ri.Trainer(compiled(*rules, batch=64), seed)
    if change:
        change_gradients(trainer, change)
    trainer.fit(x_train[:limit], y_train[:limit], epochs=1 if SMALL else 8)
    return 100 * trainer.evaluate(x_test, y_test)


VARIANTS = {
    "exact": (None, None, "exact"),
    "exact, window mean": (None, window_mean, "exact"),
    "r = 2": (2, None, 2),
    "r = 2, strides divided out": (2, divide_strides, 2),
    "r = 4": (4, None, 4),
}
SEEDS = (0,) if SMALL else (0, 1, 2)
before = 100 * trainer.evaluate(*part(NEW)[2:])
accuracy = {name: [adapt(patch, change, seed) for seed in SEEDS] for name, (patch, change, _) in VARIANTS.items()}
rows = [[name, f"{np.mean(a):.1f} %", ", ".join(f"{one:.1f}" for one in a)] for name, a in accuracy.items()]
table(["", "accuracy, mean", f"seeds {', '.join(map(str, SEEDS))}"], [["before", f"{before:.1f} %", ""], *rows])

# %% [markdown]
# ### A wristwatch that has to learn one person
#
# The second task is one that a small device might really do: a network that was trained on nine people's movements
# (accelerometer and gyroscope at the wrist, seven exercises, embedded in this package) adapts to a tenth person. Its
# maps are one row of 100 points in time, so a patch is $r$ of them long. Every convolution trains.

# %%
PEOPLE = (1,) if SMALL else range(1, 11)
results = {}
for key in ("exact", 2, 4):
    rules = () if key == "exact" else (ri.GradientFilter(key),)
    results[key] = np.array([watch.adapt(person, rules, epochs=1 if SMALL else 20) for person in PEOPLE]) * 100
    start, end = results[key].mean(0)
    worst = results[key][:, 1].min()
    print(f"{label(key):6s}: {start:.1f} % before, {end:.1f} % after (mean of {len(PEOPLE)}), worst {worst:.1f} %")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4), layout="constrained", width_ratios=(1, 1.4))
for i, (name, values) in enumerate(accuracy.items()):
    left.barh(i, np.mean(values), color=COLOURS[VARIANTS[name][2]], hatch="//" * ("," in name), edgecolor="white")
    left.plot(values, [i] * len(values), "o", color="white", mec="black", markersize=5)
left.axvline(before, color="0.4", linestyle="--", linewidth=1)
left.annotate("before", (before, 1), xycoords=("data", "axes fraction"), ha="center", color="0.3", fontsize=10)
left.set_yticks(range(len(accuracy)), accuracy)
left.invert_yaxis()
left.set(xlabel="accuracy on new classes, %", xlim=(0, 100))
left.set_title("clothes (dots: seeds)", pad=18)
order = np.argsort(results["exact"][:, 0])
place = np.arange(len(order))
right.plot(place, results["exact"][order, 0], "v", color="0.4", label="before")
for i, (key, mark) in enumerate((("exact", "o"), (2, "s"), (4, "D"))):
    right.plot(place + 0.15 * (i - 1), results[key][order, 1], mark, color=COLOURS[key], label=label(key))
right.set_xticks(place, [PEOPLE[i] for i in order])
right.set(xlabel="person (sorted by accuracy before)", ylabel="accuracy, %", title="watch: each person adapted")
right.legend(frameon=False, ncols=2, loc="lower right")
plt.show()

# %% [markdown]
# ## 9. In short

# %%
r = 2
fewer = flops(prices["exact"], "backward") / flops(prices[r], "backward")
more = flops(prices[r], "forward") / flops(prices["exact"], "forward") - 1
less = programs["exact"].saved_bytes / programs[r].saved_bytes
clothes = [np.mean(accuracy[name]) for name in (label(r), "exact, window mean", "exact")]
person = [results[key][:, 1].mean() for key in (r, "exact")]
lines = [
    f"Patches of {r}×{r} on the last {LAST} convolutions of this network: {fewer:.0f} times fewer operations in the "
    f"backward pass, {less:.1f} times less kept for it, {measured[r] / measured['exact']:.0%} of its time here.",
    f"The forward pass stays exact. It does {more:.1%} more work, to sum x in patches.",
    f"New classes: {clothes[0]:.1f} %; {clothes[1]:.1f} % with exact gradients averaged over the window, "
    f"{clothes[2]:.1f} % with exact ones; {before:.1f} % before.",
    f"A new person: {person[0]:.1f} % instead of {person[1]:.1f} %, from {results['exact'][:, 0].mean():.1f} %.",
]
display(Markdown("\n".join(f"- {line}" for line in lines)))

# %% [markdown]
# - Two approximations are made: $dy$ is averaged in patches, and the shift within the window is ignored, so that all
#   places of a kernel's window get the same update. With 1×1 kernels only the first is left.
# - The direction of the weight gradient holds up well, least in the first convolution, because $x$ is smooth even where
#   $dy$ is not. Its length is wrong where a layer, or one above it, has a stride of 2.
# - Errors add up with every filtered layer below the last: filter the last few layers, as the paper does.
# - With a larger net whose last layers have no stride the price is lower: ResNet-20, adapted to the other half of
#   Fashion-MNIST's classes, loses 0.6 to 1.1 points with patches of 2×2 on its last one to four convolutions (three
#   seeds; `gradledger reproduce gradient-filter-noniid`, `validation/results/gradient-filter-noniid.json`).
#
# To go on: `refimpl/methods/gradient_filter.py` (the passes), `costmodel/formulas/methods/gradient_filter.py` (their
# cost), `refimpl/backends/cpu/gradient_filter.py` (the kernels that run by default),
# `validation/instruments/approximation.py` (errors layer by layer, which `gradledger validate` reports),
# `gradledger adapt --method gradient-filter:patch=2` (your own data).
