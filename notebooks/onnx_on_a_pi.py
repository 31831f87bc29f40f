# %% [markdown]
# # From a torchvision export on a laptop to an adapted ONNX model on a Pi
#
# A net was trained where there is PyTorch. It runs somewhere else, and there the world looks different: a camera hangs
# upside down and the light is bad. This page takes such a net as an ONNX file, asks whether it can be trained and what
# that would take on a Raspberry Pi, adapts it with gradient filtering, and hands back the same graph with other
# weights, in floats and in int8. You need to know what a convolution and back-propagation are.
#
# Nothing here needs PyTorch: only `pip install 'gradledger[onnx]'`, and `gradledger[int8]` for two cells that hold the
# result against onnxruntime. Every number is printed by the cell above it. None was measured on a Raspberry Pi; its
# seconds are predictions.
#
# ## 1. On the laptop
#
# PyTorch has two exporters. Either will do. This part is shown, not run:
#
# ```python
# import torch, torchvision
#
# net = torchvision.models.resnet18(weights="DEFAULT").eval()
# x = torch.randn(1, 3, 224, 224)
# names = {"input_names": ["pixels"], "output_names": ["scores"]}
#
# # the classic one: the weights are in the file
# torch.onnx.export(
#     net, (x,), "resnet18.onnx", dynamo=False, opset_version=17,
#     dynamic_axes={"pixels": {0: "n"}, "scores": {0: "n"}}, **names,
# )
# # the newer one: the weights are in resnet18.onnx.data beside it, and travel with it
# torch.onnx.export(
#     net, (x,), "resnet18.onnx", dynamo=True, opset_version=20,
#     dynamic_shapes=({0: torch.export.Dim("n")},), **names,
# )
# ```
#
# Both fold batch norms into the convolutions, so the file holds convolutions with biases.

# %%
import json
import os
import tempfile
from importlib.util import find_spec
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import onnx
from IPython.display import Markdown, display
from onnx import TensorProto, helper, numpy_helper

import gradledger
import refimpl as ri
from gradledger import check, export
from refimpl import data

SMALL = os.environ.get("GRADLEDGER_SMALL") == "1"  # short settings, to see that every cell runs
RUNTIME = find_spec("onnxruntime") is not None
BEFORE, AFTER, GREY = "#D55E00", "#0072B2", "#999999"
plt.rcParams |= {"figure.dpi": 80, "font.size": 11, "axes.titlesize": 11, "axes.spines.top": False}
plt.rcParams |= {"axes.spines.right": False, "image.interpolation": "nearest"}
folder = tempfile.TemporaryDirectory()
os.chdir(folder.name)  # all files of this page are written there, and go with it


def table(head, rows):
    """Show rows of text as a table; the first column is on the left."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    display(Markdown("\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)))


# %% [markdown]
# ## 2. A file that stands in for it
#
# This page has no network, so it makes a small file of the same kind: two residual blocks, batch norms folded, names
# and layout as PyTorch writes them. First the graph with random weights:

# %%
LAYERS = {  # name → channels that go in, channels that come out, side of the window, stride
    "conv1": (1, 16, 3, 2),
    "layer1.conv1": (16, 16, 3, 1),
    "layer1.conv2": (16, 16, 3, 1),
    "layer2.conv1": (16, 32, 3, 2),
    "layer2.conv2": (32, 32, 3, 1),
    "layer2.downsample": (16, 32, 1, 2),
}
CLASSES = 10
rng = np.random.default_rng(0)
weights = {}
nodes = []


def node(op, inputs, name, **attributes):
    """One more node; the name of what it makes."""
    output = "scores" if name == "/fc" else f"{name}_output_0"
    nodes.append(helper.make_node(op, inputs, [output], name, **attributes))
    return output


def conv(x, name):
    c, k, r, stride = LAYERS[name]
    weights[f"{name}.weight"] = rng.normal(0, np.sqrt(2 / (c * r * r)), (k, c, r, r))
    weights[f"{name}.bias"] = np.zeros(k)
    inputs = [x, f"{name}.weight", f"{name}.bias"]
    window = {"kernel_shape": [r, r], "pads": 4 * [r // 2], "strides": [stride, stride]}
    return node("Conv", inputs, f"/{name}/Conv", **window)


def relu(x, name):
    return node("Relu", [x], f"/{name}/Relu")


def block(x, name, shortcut):
    y = relu(conv(x, f"{name}.conv1"), f"{name}.conv1")
    return relu(node("Add", [conv(y, f"{name}.conv2"), shortcut(x)], f"/{name}/Add"), name)


x = block(relu(conv("pixels", "conv1"), "conv1"), "layer1", lambda x: x)
x = block(x, "layer2", lambda x: conv(x, "layer2.downsample"))
x = node("Flatten", [node("GlobalAveragePool", [x], "/avgpool")], "/flatten")
weights["fc.weight"], weights["fc.bias"] = rng.normal(0, np.sqrt(1 / 32), (CLASSES, 32)), np.zeros(CLASSES)
node("Gemm", [x, "fc.weight", "fc.bias"], "/fc", transB=1)
graph = helper.make_graph(
    nodes, "main_graph",
    [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 1, 28, 28])],
    [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", CLASSES])],
    [numpy_helper.from_array(a.astype(np.float32), name) for name, a in weights.items()],
)  # fmt: skip
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "random.onnx")
print(f"{len(nodes)} nodes, {sum(a.size for a in weights.values()):,} weights")

# %% [markdown]
# The data are the pictures of clothes inside this package, a part of Fashion-MNIST. They are divided once:
#
# - the first part of the training pictures is the laptop's;
# - the rest was taken on the Pi: turned upside down, in a third of the light;
# - the test pictures judge. No step is made with them, and nothing is chosen by them.

# %%
clothes = data.fashion_mnist()
names = clothes.classes
LAPTOP, OWN, JUDGE = (256, 64, 64) if SMALL else (1400, 600, 1000)
taken = np.rint(255 * clothes.x_train).astype(np.uint8)
judging = np.rint(255 * clothes.x_test).astype(np.uint8)[:JUDGE]


def dark(x):
    """The same pictures (N, H, W, 1), upside down and in a third of the light."""
    return x[:, ::-1, ::-1] // 3


x_laptop, y_laptop = taken[:LAPTOP], clothes.y_train[:LAPTOP]
x_own, y_own = dark(taken[LAPTOP : LAPTOP + OWN]), clothes.y_train[LAPTOP : LAPTOP + OWN]
x_test, y_test = dark(judging), clothes.y_test[:JUDGE]

examples = [np.flatnonzero(y_test == k)[0] for k in range(CLASSES)]
figure, axes = plt.subplots(2, CLASSES, figsize=(12.5, 3), layout="constrained")
for column, i in enumerate(examples):
    for axis, pictures in zip(axes[:, column], (judging, x_test), strict=True):
        axis.imshow(pictures[i, :, :, 0], cmap="gray", vmin=0, vmax=255)
        axis.set(xticks=[], yticks=[])
    axes[0, column].set_title(names[column], fontsize=10)
axes[0, 0].set_ylabel("laptop")
axes[1, 0].set_ylabel("Pi")
plt.show()
print(f"{len(x_laptop):,} pictures on the laptop, {len(x_own):,} on the Pi, {len(x_test):,} that judge")

# %% [markdown]
# The laptop's net learns the upright pictures. What came as an ONNX model leaves as one, so our own exporter writes it.
# It also writes what the file knows about itself; PyTorch would not, so that is taken out. What the net takes for
# pixels is in no file of PyTorch: it has to be told, here as −1 for black and 1 for white. (torchvision's nets take
# `pixels="imagenet"`.)

# %%
PIXELS = "-1,1"
net = gradledger.load("random.onnx", pixels=PIXELS, threads=1)
for rate, epochs in ((0.05, 20), (0.005, 5)):
    plan = ri.Plan("all", step=ri.Backprop(ri.SGD(rate, momentum=0.9), clip_norm=1), train_bias=True)
    net.fit(x_laptop, y_laptop, epochs=1 if SMALL else epochs, plan=plan, recipe="plain")
net.save("laptop.safetensors")
export.run("laptop.safetensors", like=None, output=Path("clothes.onnx"))
laptop = onnx.load("clothes.onnx")
del laptop.metadata_props[:]
onnx.save(laptop, "clothes.onnx")
print(f"clothes.onnx: {Path('clothes.onnx').stat().st_size:,} bytes, trained in {net.steps:,} steps")

# %% [markdown]
# From here on there is only this file, and the Pi's pictures.
#
# ## 3. Can it be trained?
#
# `gradledger check clothes.onnx` reads the model operator by operator, and prices a step of every method on the machine
# where it runs. The same as a record:

# %%
BATCH = 32
found = check.run("clothes.onnx", size=None, batch=BATCH)
table(
    ["operator", "nodes", "trains"],
    [
        [row["op"], row["count"], "no" if row["missing"] else "forward only" if row["forward"] else "yes"]
        for row in found["operators"]
    ],
)
counted = [layer["name"] for layer in found["layers"] if layer["trains"] == "counted"]
print(f"{found['parameters']:,} parameters, {found['outputs']} classes")
print(f"convolutions, of which --train-last counts from the end: {', '.join(counted)}")

# %% [markdown]
# Times on this machine would say little about another one. So here is a step of each method on a Raspberry Pi 4, each
# with its own settings and all layers. *Counted* are multiply-adds of the reference algorithm, or products of whole
# numbers where a method has such. *Memory* is that of a step's arrays: weights, optimizer, maps and workspace.

# %%
DEVICE = "rpi4"
rows = []
for method in found["methods"]:
    if "refused" in method:
        continue
    price = gradledger.cost(model="clothes.onnx", method=method["method"], device=DEVICE)
    products = price["macs"] + sum(price["integers"]["imacs"].values())
    need = price["peak_bytes"] + price["state_bytes"]
    seconds = (f"{1e3 * price['seconds'][end]:.1f}" for end in ("mid", "low", "high"))
    rows.append([method["method"], f"{products / 1e6:,.1f}", f"{need / 2**20:.2f}", *seconds])
table(["method", "counted, millions", "memory, MiB", "ms", "from", "to"], rows)
for method in found["methods"]:
    if "refused" in method:
        print(f"not by {method['method']}: {method['refused']}")

# %% [markdown]
# The interval is wide, because nobody calibrated that board: the reference machine's rates are scaled by data sheets.
# `gradledger calibrate`, run on the Pi, makes it narrow.
#
# ## 4. What does the whole run take there?
#
# The data of the Pi are a `.npz`, samples that train and samples that judge. Folders of photographs do as well. With
# data, `gradledger cost` prices all that `gradledger adapt` would do with the same options: the classifier alone,
# probes of learning rates, epochs, looks at samples held out, start and report.

# %%
np.savez("pi.npz", x=x_own, y=y_own, x_test=x_test, y_test=y_test, classes=names)
np.save("own.npy", x_own)
GIVEN = {"model": "clothes.onnx", "data": "pi.npz", "pixels": PIXELS, "epochs": 2 if SMALL else 20}
FILTER = "gradient-filter:patch=2"
run = gradledger.cost(**GIVEN, method=FILTER, device=DEVICE)["run"]
table(
    ["part of the run", "launched", "seconds", "from", "to"],
    [
        [name, f"{part['launched']:,}", *(f"{part['seconds'][end]:.1f}" for end in ("mid", "low", "high"))]
        for name, part in run["parts"].items()
    ],
)
print(run["verdict"])
joules = run["joules"]["board"]
print(f"{joules['low']:,.0f} to {joules['high']:,.0f} J; {run['disk_bytes'] / 2**20:.1f} MiB on the disk at most")

# %% [markdown]
# Where the last word is `no`, the record says what would fit, and `gradledger cost --advise` searches.
#
# ## 5. Adapt it
#
# Gradient filtering replaces the gradient that arrives at a convolution by means over patches of 2×2, so that the
# backward pass of that layer takes far fewer products. Should it train the last two convolutions, or all of them? The
# test pictures must not answer that. Each run holds some of its own pictures out while it looks for a learning rate;
# the least loss on these tells the plans apart. Seconds are predicted, and most of them are start and report.

# %%
runs, rows = {}, []
for last in (2, "all"):
    net = gradledger.adapt(**GIVEN, method=FILTER, train_last=last, threads=1, output=f"last-{last}")
    there = gradledger.cost(**GIVEN, method=FILTER, train_last=last, device=DEVICE)["run"]["seconds"]
    runs[last] = net, min(loss for _, loss in net.record["course"]["tried"])
    macs = f"{net.record['measured']['macs'] / 1e6:,.0f}"
    rows.append([last, f"{runs[last][1]:.3f}", macs, f"{there['mid']:.0f} ({there['low']:.0f} to {there['high']:.0f})"])
best = min(runs, key=lambda last: runs[last][1])
table(["convolutions that train", "loss on those held out", "multiply-adds of the run, millions", "s on a Pi 4"], rows)
print(f"chosen: {best}")

# %% [markdown]
# The run has trained on all of its pictures in the end. What was predicted of it, and what it did:

# %%
adapted, _ = runs[best]
chosen = Path(f"last-{best}")
record = adapted.record
table(
    ["", "predicted", "measured"],
    [
        [what, f"{record['predicted'][key]:,}", f"{record['measured'][key]:,}"]
        for what, key in (("multiply-adds of the run", "macs"), ("peak of the arena, bytes", "peak_bytes"))
    ],
)
print(f"{record['steps']} steps; files: {', '.join(sorted(path.name for path in chosen.iterdir()))}")

# %% [markdown]
# And now the test pictures: the laptop's net and the adapted one, and beside them the classifier alone and exact
# gradients.

# %%
before = gradledger.load("clothes.onnx", pixels=PIXELS, threads=1)
others = {
    "the classifier alone": {"method": "backprop", "train_last": 0},
    f"exact gradients, the last {best}": {"method": "backprop", "train_last": best},
    "exact gradients, all": {"method": "backprop", "train_last": "all"},
}
beside = {name: gradledger.adapt(**GIVEN, **given, threads=1, output="beside") for name, given in others.items()}
rows = [["as it came", "", *(f"{100 * before.score(x, y_test):.1f} %" for x in (x_test, judging))]]
for name, net in {f"gradient filtering, the last {best}": adapted, **beside}.items():
    shown = [f"{100 * net.score(x, y_test):.1f} %" for x in (x_test, judging)]
    rows.append([name, f"{net.record['measured']['macs'] / 1e6:,.0f}", *shown])
table(["", "multiply-adds of the run, millions", "upside down and dark", "upright"], rows)

# %% [markdown]
# Filtering the last layers takes hardly more operations than the classifier alone and tells more pictures right. Exact
# gradients tell a little more still, and cost more: filtering makes them coarser, and the maps of this net are small,
# 7×7 at its end. It is one run of each, so a point more or less means nothing. The last column shows what the net
# forgets.
#
# Which garments came back? Recall of each class on the dark test pictures:

# %%
verdicts = [net.evaluate(x_test, y_test) for net in (before, adapted)]
recall = np.array([[of["recall"] for of in verdict.per_class.values()] for verdict in verdicts])
order = np.argsort(recall[1] - recall[0])
figure, axis = plt.subplots(figsize=(9, 4), layout="constrained")
at = np.arange(CLASSES)
axis.hlines(at, *(100 * recall[:, order]), color=GREY, linewidth=2, zorder=1)
for row, colour, label in zip(recall, (BEFORE, AFTER), ("as it came", "adapted"), strict=True):
    axis.scatter(100 * row[order], at, s=60, color=colour, label=label, zorder=2)
axis.set_yticks(at, [names[k] for k in order])
axis.set(xlabel="recall, %", xlim=(-2, 102))
axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
plt.show()

# %% [markdown]
# ## 6. Out again, as ONNX
#
# `gradledger adapt` wrote `adapted.onnx` beside its weights. What differs from the file that came in?

# %%
came, left = onnx.load("clothes.onnx"), onnx.load(chosen / "adapted.onnx")
for part in ("input", "output", "node"):
    same = list(getattr(came.graph, part)) == list(getattr(left.graph, part))
    print(f"{part}s: {', '.join(v.name for v in getattr(left.graph, part))}; the same: {same}")
arrays = [{a.name: numpy_helper.to_array(a) for a in model.graph.initializer} for model in (came, left)]
print(f"names of arrays the same: {list(arrays[0]) == list(arrays[1])}")
rows = []
for name, old in arrays[0].items():
    new = arrays[1][name]
    change = np.linalg.norm(new - old) / np.linalg.norm(old)
    rows.append([f"`{name}`", "×".join(map(str, old.shape)), "no bit" if np.array_equal(old, new) else f"{change:.1%}"])
table(["array", "shape", "changed, as a share of its norm"], rows)

# %% [markdown]
# What trained is another array of the same shape, all else is as it was. So whatever ran the old file runs the new one.
# Another program, onnxruntime, has to get the same numbers from it as we do. The largest difference of any score over
# all dark test pictures, relative to the largest score:

# %%
pixels = x_test.astype(np.float32) / 255 * 2 - 1  # −1 to 1, (N, H, W, C)


def by_runtime(path):
    """The scores (N, K) that onnxruntime gives the dark test pictures."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["scores"], {"pixels": np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))})[0]


def share_right(scores):
    return f"{100 * np.mean(scores.argmax(1) == y_test):.1f} %"


if RUNTIME:
    theirs, ours = by_runtime(chosen / "adapted.onnx"), adapted.trainer.predict(pixels)
    print(f"largest relative difference: {np.abs(theirs - ours).max() / np.abs(theirs).max():.1e}")
    print(f"told right: {share_right(ours)} by us, {share_right(theirs)} by onnxruntime")
else:
    print("onnxruntime is not installed (pip install 'gradledger[int8]'): its numbers are left out")

# %% [markdown]
# ## 7. In int8
#
# Who deploys in integers wants whole numbers of 8 bits. `gradledger export --quantize` has onnxruntime make them; the
# ranges of the maps are from the Pi's own pictures, and not from those that judge.

# %%
if RUNTIME:
    made = export.run(
        str(chosen / "adapted.safetensors"), like="clothes.onnx", output=Path("deployed.onnx"), int8="own.npy"
    )
    integers = made["int8"]
    table(
        ["", "bytes", "dark test pictures told right"],
        [
            ["in floats", f"{made['bytes']:,}", share_right(by_runtime(made["file"]))],
            ["in int8", f"{integers['bytes']:,}", share_right(by_runtime(integers["file"]))],
        ],
    )
    print(f"{integers['samples']} pictures gave the ranges; {integers['same_class']:.1%} of them keep their class")
else:
    print("onnxruntime is not installed (pip install 'gradledger[int8]'): there is no int8 form without it")

# %% [markdown]
# The scales and the nodes that quantize take room too. The smaller a net, the more they weigh.
#
# ## 8. What the file knows about itself
#
# Its metadata say what no other ONNX file does: names of classes, what pixels become, where it came from, how it was
# trained and what that took.

# %%
for entry in left.metadata_props:
    said = json.loads(entry.value)
    if isinstance(said, dict):  # without what was not set
        said = {key: value for key, value in said.items() if value not in (None, [], False)}
    print(f"{entry.key}: {said}\n")

# %% [markdown]
# So whoever gets the file needs no option. It tells one dark picture of each class:

# %%
again = gradledger.load(chosen / "adapted.onnx", threads=1)
told = again.predict(x_test[examples])
sure = again.predict_proba(x_test[examples]).max(1)
table(
    ["garment", "told", "sure"],
    [[names[y_test[i]], what, f"{s:.0%}"] for i, what, s in zip(examples, told, sure, strict=True)],
)

# %% [markdown]
# ## 9. The same as commands
#
# ```
# gradledger check clothes.onnx
# gradledger cost --model clothes.onnx --data pi.npz --pixels=-1,1 --train-last 2 --device rpi4
# gradledger adapt --model clothes.onnx --data pi.npz --pixels=-1,1 --train-last 2 --output run
# gradledger evaluate run/adapted.onnx --data pi.npz
# gradledger export run/adapted.safetensors --like clothes.onnx --output deployed.onnx --quantize own.npy
# ```
#
# Gradient filtering with patches of 2×2 is the method where none is named. `docs/onnx.md` has the same way with
# EfficientNet-Lite0 and photographs, and what is read of ONNX.
