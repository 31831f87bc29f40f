"""A trained net as people use it: `load`, `predict`, `evaluate`, `fit`, `save`, `summary`; classes go by their names.

As in scikit-learn, `fit` returns the model, `predict` gives labels and `predict_proba` shares; as in Keras, each `fit`
trains `epochs` more, going on from what is there, and `history` holds what it saw. It is watched by samples that it
does not train on (`saved.fitting`): `outcome` tells what they say of the weights before and after. Files of any net of
this library, or known `.npz`, can be loaded, and a Graph can be wrapped.
"""

import math
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import arguments
from ..compiler.compile import compile
from ..data import new_samples
from ..data.dataset import DataError, Dataset
from ..data.new_arrays import PIXEL, Batch
from ..data.preprocessing import Preprocessing
from ..formats import weight_files
from ..formats.npz import load_npz
from ..graph import Graph
from ..methods.optim import CLIP_NORM, MOMENTUM, SGD, Schedule
from ..plan.plan import Backprop, Plan
from ..recipes.course import SAFE, SEARCH
from ..recipes.head import Head, parts_that_help
from ..storage.checkpoint import CheckpointError
from ..storage.files import quoted
from ..surgery.classifier import changed
from ..training.trainer import Trainer
from . import labels
from .described import LITE, ONNX, Saved, described, elements, said
from .fitting import AUTO, PLAIN, RECIPES, FitOutcome, Part, fit_watched, held_out
from .verdict import Verdict, judged

BATCH = 32
OTHERS = (ONNX, LITE, ".npz", *weight_files.SUFFIXES)  # suffixes of files that `save` does not write
RATE = 0.01  # learning rate of `fit`, with momentum; for batches below BATCH times the root of their share of it
Samples = np.ndarray | Dataset | str | os.PathLike


class Model:
    """A net with the names of its classes and the preprocessing of its samples.

    classes: a name for each output; its number where it has none. preprocessing: how samples become maps. history:
    `loss`, the mean of each epoch, `val_loss` and `val_accuracy` on samples held out. outcome: of the last `fit` that
    was watched, None before one. told: what became of the classifier where the last `fit` brought other classes, in
    words. Like a Trainer, it is for one thread at a time.
    """

    def __init__(
        self, graph: Graph, preprocessing: Preprocessing | None = None, seed: int = 0, threads: int | None = None,
        saved: Saved | None = None,
    ):  # fmt: skip
        """graph: with its weights; what it lacks is drawn from the seed. saved: the file that it is from."""
        arguments.offers("graph", graph, "nodes", "a Graph, such as ri.models.build makes")
        self.graph, self.seed, self.threads, self.saved = graph, seed, threads, saved
        self.preprocessing = plain(graph) if preprocessing is None else preprocessing
        self.history: dict[str, list[float]] = {"loss": []}
        self.told = ""
        self.outcome: FitOutcome | None = None
        self.fits = 0  # calls that trained
        self._found: dict[tuple[int, int], float] = {}  # samples and batch → learning rate that the last one chose
        self.steps = self.samples = self.epochs = 0  # that `fit` has trained
        self.recipe: dict[str, Any] = {}
        self.record: dict[str, Any] = {}  # of the run that made it, where it is known
        self._name_classes()
        self._trainer: Trainer | None = None
        self._made_for: tuple = ()  # what the trainer at hand was made for
        self._trained = False

    def _name_classes(self) -> None:
        count = self.graph.shape(self.graph.output)[-1]
        known = self.graph.classes if len(self.graph.classes) == count else (None,) * count
        self.classes = tuple(str(i) if name is None else name for i, name in enumerate(known))

    @property
    def trainer(self) -> Trainer:
        """The trainer with the net's present weights; until `fit`, of a program that only infers."""
        if self._trainer is None:
            self._trainer = Trainer(compile(self.graph, None, BATCH, threads=self.threads), self.seed)
        return self._trainer

    def predict(self, x: Samples) -> np.ndarray:
        """The name of the likeliest class of each sample (N,)."""
        return np.array(self.classes)[self.predict_proba(x).argmax(1)]

    def predict_proba(self, x: Samples) -> np.ndarray:
        """The share of each class (N, K), in the order of `classes`, float64, each row of sum 1.

        x: samples (N, H, W, C) as their source has them, before any preprocessing, uint8 for pixels; an image, a folder
        of images, or what else `data.new_samples` reads; the test samples of a Dataset, which are maps already.
        """
        return np.concatenate([shares for _, shares in self.predictions(x)])

    def predictions(
        self, x: Samples, subject: int | None = None, left: new_samples.Left | None = None
    ) -> Iterator[Batch]:
        """A batch at a time: names of its samples, and the share of each class (n, K). For more than memory holds.

        left: a list for files and rows that cannot be used, and why; without it they are refused.
        """
        for names, maps in self._batches(x, "test", subject, left):
            yield names, shares(np.asarray(self.trainer.predict(maps)))

    def inputs(self, x: Samples, subject: int | None = None) -> Iterator[Batch]:
        """A batch at a time: names of samples, and the maps (n, H, W, C) that the net takes for them."""
        return self._batches(x, "test", subject)

    def _batches(
        self, x: Samples, part: str, subject: int | None = None, left: new_samples.Left | None = None
    ) -> Iterator[Batch]:
        if isinstance(x, Dataset):
            return new_samples.of_part(x, part, self.preprocessing, BATCH)
        return new_samples.new_batches(x, self.preprocessing, BATCH, subject, left)

    def evaluate(self, x: Samples, y: Sequence | np.ndarray | None = None) -> Verdict:
        """How the net tells samples x whose classes are y: names, or numbers of `classes`. See `Verdict`.

        Of a Dataset, and of a path without y, which is read as one, the test samples, by their own classes.
        """
        x = self._with_classes(x, y)
        found = self.predict_proba(x)
        return judged(self.classes, self.numbers(_labels(x, y, "test"), len(found)), found.argmax(1))

    def score(self, x: Samples, y: Sequence | np.ndarray | None = None) -> float:
        """The share of samples that the net tells right."""
        return self.evaluate(x, y).accuracy

    def fit(
        self, x: Samples, y: Sequence | np.ndarray | None = None, epochs: int = 1, batch: int = BATCH,
        lr: float | None = None, plan: Plan | None = None, validation: tuple | None = None, recipe: str = AUTO,
    ) -> "Model":  # fmt: skip
        """Train up to `epochs` more passes over samples x, as `predict_proba` takes them, with classes y; the model.

        y: names, or numbers of `classes`; a Dataset, and a path without y, which is read as one, has its own, and its
        training samples are meant. Names that the net does not know become new classes, beside those that it knows;
        where it knows none of them, they take the place of its own.

        recipe: `auto` holds samples out, or takes those of `validation`, (samples, classes), or of the data set; tries
        learning rates, and keeps the weights that were best on them, which may be those that it began with: `outcome`
        says so, and a warning does. The same call again goes on, at the rate that was found. `plain` makes the steps of
        the epochs on all samples, at one rate, and keeps the last weights, be they worse; `validation` is then told
        after each epoch, and momentum goes on while x is as long and the settings are the same.

        lr: that is tried, of `plain` the rate itself, default 0.01, for smaller batches less. plan: default all layers,
        SGD with momentum 0.9 and the gradient clipped at norm 1, with `auto` along a cosine; its schedule begins anew
        with each call and ends with it. DataError where no sample can be held out. Where it raises, classes that were
        new are none.
        """
        arguments.whole("epochs", epochs, 0)
        arguments.whole("batch", batch)
        if recipe not in RECIPES:
            raise ValueError(f"recipe must be {AUTO!r} or {PLAIN!r}, got {recipe!r}")
        before = dict(vars(self))
        try:
            self._fit(x, y, epochs, batch, lr, plan, validation, recipe)
        except BaseException:
            if self.graph is not before["graph"]:
                vars(self).update(before)
            raise
        return self

    def _fit(
        self, x: Samples, y: Sequence | np.ndarray | None, epochs: int, batch: int, lr: float | None,
        plan: Plan | None, validation: tuple | None, recipe: str,
    ) -> None:  # fmt: skip
        """What `fit` does with settings that are in order."""
        x = self._with_classes(x, y)
        y = _labels(x, y, "train")
        self._follow(y)
        maps = np.concatenate([maps for _, maps in self._batches(x, "train")])
        numbers = self.numbers(y, len(maps))
        own = recipe == AUTO and lr is None and plan is None  # the learning rate is ours to find, or was found
        found = self._found.get((len(maps), batch)) if own else None
        if plan is None:
            rate = RATE * math.sqrt(min(1.0, batch / BATCH)) if lr is None else lr
            schedule = Schedule("cosine" if recipe == AUTO else "constant")
            plan = Plan("all", step=Backprop(SGD(found or rate, MOMENTUM, schedule=schedule), CLIP_NORM))
        if not epochs:
            return
        if recipe == PLAIN:
            self._fit_plain(maps, numbers, epochs, batch, plan, validation)
        else:
            train, held = self._parted(x, maps, numbers, validation)
            outcome = self._fit_watched(train, held, epochs, min(batch, len(train[0])), plan, own and not found)
            if own and outcome.kept:
                self._found[len(maps), batch] = outcome.rate
            if not outcome.kept:
                warnings.warn(f"fit: {outcome}", stacklevel=3)
        self.epochs += epochs
        self.fits += 1

    def _parted(self, x: Samples, maps: np.ndarray, numbers: np.ndarray, validation: tuple | None) -> tuple[Part, Part]:
        """What trains and what is held out."""
        part = "test"
        if validation is None and isinstance(x, Dataset) and x.x_val is not None:
            validation, part = (x, None), "val"
        if validation is not None:
            held = np.concatenate([maps for _, maps in self._batches(validation[0], part)])
            labels = _labels(validation[0], validation[1], part)
            return (maps, numbers), (held, self.numbers(labels, len(held)))
        seed = self.saved.recipe.get("seed", self.seed) if self.saved else self.seed
        train, held = held_out(x, numbers, seed)
        return (maps[train], numbers[train]), (maps[held], numbers[held])

    def _fit_watched(self, train: Part, held: Part, epochs: int, batch: int, plan: Plan, searched: bool) -> FitOutcome:
        """Train by the recipe; what came of it. searched: are higher rates tried too?"""
        self._take_weights()
        head, weights = None, self.graph.weights
        if self.told and any(name in weights for name in self.graph.parameters):  # the classifier knows least
            parts = parts_that_help(self.graph, plan, batch, threads=self.threads)
            head = Head(*parts, self.seed) if parts else None
        trainer = Trainer(compile(self.graph, plan, batch, threads=self.threads), self.seed + self.fits)
        factors = SEARCH if searched else SAFE
        outcome, sizes = fit_watched(trainer, head, train, held, epochs, factors, self.history)
        self.outcome, self._trainer, self._trained = outcome, trainer, True
        self.steps += len(sizes)
        self.samples += sum(sizes)
        self.recipe = {"epochs": self.epochs + epochs, "batch": batch, "lr": outcome.rate}
        return outcome

    def _fit_plain(
        self, maps: np.ndarray, numbers: np.ndarray, epochs: int, batch: int, plan: Plan, validation: tuple | None
    ) -> None:  # fmt: skip
        """Make the steps of the epochs, and nothing else."""
        trainer = self._training(plan, min(batch, len(maps)), len(maps))
        per_epoch = -(-len(maps) // trainer.program.batch)
        begun = trainer.step
        trainer.restart()
        for progress in trainer.steps(maps, numbers, epochs):
            if (progress.step - begun) % per_epoch == 0:
                self.history["loss"].append(float(np.mean(trainer.losses[progress.step - per_epoch : progress.step])))
                if validation is not None:
                    self.history.setdefault("val_accuracy", []).append(self.score(*validation))
        self.steps += trainer.step - begun
        self.samples += (trainer.step - begun) // per_epoch * len(maps)
        self.recipe = {"epochs": self.epochs + epochs, "batch": trainer.program.batch, "lr": plan.step.optimizer.lr}

    def _with_classes(self, x: Samples, y: Sequence | np.ndarray | None) -> Samples:
        """The samples, or of a path without y the data set, split and read as the data that the file was trained on."""
        if y is not None or not isinstance(x, str | os.PathLike):
            return x
        recipe = self.saved.recipe if self.saved else {}
        name = os.fspath(x)
        subject = recipe.get("subject") if name == "watch" else None
        return new_samples.judged_set(name, self.preprocessing, subject, recipe.get("seed", 0), recipe)

    def _training(self, plan: Plan, batch: int, count: int) -> Trainer:
        """A trainer that goes on from the present weights, the one at hand where it does the same."""
        wanted = (plan, batch, count)
        if self._made_for != wanted:
            self._take_weights()
            self._trainer = Trainer(compile(self.graph, plan, batch, threads=self.threads), self.seed)
            self._made_for, self._trained = wanted, True
        return self.trainer

    def _take_weights(self) -> None:
        """Put the weights that were trained into the graph."""
        if self._trained:
            found = self.trainer.evaluated()
            self.graph.weights = {name: found[name].copy() for name in self.graph.parameters}
        self._trainer, self._made_for, self._trained = None, (), False

    def _follow(self, y: Sequence | np.ndarray) -> None:
        """Let the classifier follow names that it does not know."""
        names = np.asarray(y)
        self.told = ""
        if names.dtype.kind not in "UO" or set(names.tolist()) <= set(self.classes):
            return
        self._take_weights()
        new = [str(name) for name in sorted(set(names.tolist()) - set(self.classes))]
        knows = len(new) < len(set(names.tolist()))
        match = labels.matched(self.classes, [*self.classes, *new] if knows else new)
        self._found = {}
        graph = changed(self.graph, len(match.rows), None, None, self.graph.name)
        labels.with_rows(graph, self.graph.weights, match, self.seed)
        self.graph, self.told = graph, match.told
        self._name_classes()

    def numbers(self, y: Sequence | np.ndarray, count: int) -> np.ndarray:
        """Class numbers (N,) int64 of names or numbers; DataError names one that the net does not know."""
        given = np.asarray(y)
        if given.shape != (count,):
            raise DataError(f"y must be ({count},), one class for each sample, but its shape is {given.shape}")
        if given.dtype.kind in "UO":
            places = {name: i for i, name in enumerate(self.classes)}
            for name in given.tolist():
                if name not in places:
                    raise DataError(
                        f"y has the class {quoted(name)!r}, which the net does not know: it knows "
                        f"{labels.listed(self.classes)}"
                    )
            return np.array([places[name] for name in given.tolist()], np.int64)
        if given.dtype.kind not in "ui" or given.min() < 0 or given.max() >= len(self.classes):
            raise DataError(
                f"y must hold names of classes or numbers from 0 to {len(self.classes) - 1}, but it holds "
                f"{quoted(str(given[:3].tolist()))}"
            )
        return given.astype(np.int64)

    def save(self, path: str | os.PathLike) -> None:
        """Write a `.safetensors` that explains itself.

        CheckpointError where it cannot be written, or its suffix is of another kind of file.
        """
        suffix = Path(path).suffix
        if suffix in OTHERS:
            raise CheckpointError(f"a model is saved as a .safetensors, but {path} ends with {suffix}")
        known = self.saved
        came_from: dict[str, Any] = dict(known.adapted_from) if known else {}
        recipe: dict[str, Any] = dict(known.recipe) if known else {}
        totals: dict[str, Any] = dict(known.ledger) if known else {}
        if self.steps:
            if known:
                came_from = {"model": Path(known.path).name, "sha256": known.sha256}
            recipe, totals = self.recipe, {"steps": self.steps, "samples": self.samples}
        self.trainer.save(
            path,
            False,
            **said(
                preprocessing=self.preprocessing.to_json(), adapted_from=came_from, recipe=recipe, ledger=totals,
                accuracy=known.accuracy if known and not self.steps else {},
            ),
        )  # fmt: skip

    def summary(self) -> None:
        """Print what the model is: layers, classes, samples, training."""
        print(self)

    def __str__(self) -> str:
        made = self.preprocessing
        takes = "pixels" if made.divisor == PIXEL else "numbers"
        size = "x".join(map(str, (*(made.size or self.graph.size or ()), made.channels or self.graph.channels)))
        trained = f"{self.steps:,} steps" if self.steps else "not trained here"
        return "\n".join([
            str(self.graph), f"classes: {labels.listed(self.classes)}", f"takes {takes} of {size}", f"fit: {trained}"
        ])  # fmt: skip

    def __repr__(self) -> str:
        return f"<Model {self.graph.name}: {len(self.classes)} classes, {elements(self.graph):,} parameters>"


def load(path: str | os.PathLike, seed: int = 0, threads: int | None = None) -> Model:
    """The model of a file: a `.safetensors` of this library, an ONNX model, weights of PyTorch, timm or Keras that are
    those of a known net (`formats.weight_files`), or a known `.npz` (`formats.npz`).

    CheckpointError in one sentence where it is none of these, or has no classifier.
    """
    if str(path).endswith(".npz"):
        return Model(load_npz(path), seed=seed, threads=threads)
    return of_saved(described(path), seed, threads)


def of_saved(file: Saved, seed: int = 0, threads: int | None = None) -> Model:
    """The model of a file that was read; CheckpointError where it has no classifier."""
    if not file.own_classes:
        raise CheckpointError(f"{file.path} has no classifier, so that it tells nothing: adapt it to data first")
    graph = file.graph()
    return Model(graph, file.made or plain(graph), seed, threads, file)


def plain(graph: Graph) -> Preprocessing:
    """The preprocessing of a net that says none: pixels, where its channels are those of images, else maps as they are.

    Both have its own size.
    """
    kind = graph.tensors[graph.inputs[0]].dtype
    made = Preprocessing(channels=graph.channels, size=graph.size, dtype=str(kind or "float32"))
    if graph.channels not in (1, 3):
        return made
    black, white = graph.pixels
    return replace(made, kind="image", divisor=PIXEL, black=black, white=white)


def _labels(x: Samples, y: Sequence | np.ndarray | None, part: str) -> Sequence | np.ndarray:
    """The classes of samples: those given, or the names that a data set has for its own."""
    if isinstance(x, Dataset) and y is None:
        return np.array(x.classes)[getattr(x, f"y_{part}")]
    if y is None:
        raise DataError("y is missing: the class of each sample, by name or number")
    return y


def shares(outputs: np.ndarray) -> np.ndarray:
    """Softmax of outputs (n, K), float64."""
    e = np.exp(outputs.astype(np.float64) - outputs.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)
