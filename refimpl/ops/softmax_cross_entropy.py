"""Softmax cross-entropy of logits x with integer labels, class weights and label smoothing, averaged over the batch.

As in torch.nn.functional.cross_entropy: with l the label of sample n, c the class weights (1 where none are given) and
ε = `label_smoothing`,

    lse[n]    = log Σ_k exp x[n,k]                  (the largest logit is subtracted first)
    losses[n] = (1 − ε)·c[l]·(lse[n] − x[n,l]) + ε/K · Σ_k c[k]·(lse[n] − x[n,k])
    loss      = Σ_n losses[n] / total_weight,   total_weight = Σ_n c[l]
    dx[n,k]   = ((1 − ε)·c[l]·(p − [k = l]) + ε/K · (p·Σ_j c[j] − c[k])) / total_weight,   p = exp(x[n,k] − lse[n])

Along a direction, as losses[n] is linear in x and lse together:

    tlse[n]    = Σ_k p·tx[n,k]
    tlosses[n] = (1 − ε)·c[l]·(tlse[n] − tx[n,l]) + ε/K · Σ_k c[k]·(tlse[n] − tx[n,k])
    tloss      = Σ_n tlosses[n] / total_weight

Labels must lie in 0 … K−1 (see `check_labels`) or be `ignored`: such a row has no loss, no weight and no gradient, and
where all rows are ignored the loss is 0.
Dimensions: N rows (samples, or all axes before the last of x), K classes. Any float dtype; labels int64.
"""

import math

import numpy as np

from ..kernels.passes import Bound, ShapeError, declare

SHAPES = {
    "x": "N* K", "labels": "int64: N*", "class_weights": "K", "lse": "N*", "losses": "N*", "total_weight": "1",
    "loss": "1", "dx": "N* K", "tx": "N* K", "tlse": "N*", "tlosses": "N*", "tloss": "1",
}  # fmt: skip
NONE = -1  # as `ignored`: every row counts


def derive(sizes, attrs):
    """Nothing follows; ShapeError where label_smoothing is not in [0, 1]."""
    if not 0 <= attrs.get("label_smoothing", 0.0) <= 1:
        raise ShapeError(f"label_smoothing must be between 0 and 1, got {attrs['label_smoothing']}")
    return {}


def drawn(pick, large):
    """Rows none of which is ignored: those that are cost less."""
    most = 100 if large else 5
    return {"N": pick(1, most), "K": pick(1, most)}, {"ignored": (NONE, -100)[pick(0, 1)]}


def measures(output, labels, ignored=None):
    """Of logits (M, …, K) and labels (M, …), those of the label `ignored` left out.

    accuracy: share of rows whose largest logit is that of their label. recall, iou: of each class, (K,), the share of
    its rows that are found, and that of those found or labelled so that are both; NaN where there are none.
    mean_recall, mean_iou: over the classes that have one. confusion: rows by label and by what was found, (K, K); a
    row with a NaN is found as nothing. loss: the mean of −log of the probability of the label, in float64.
    """
    classes = output.shape[-1]
    rows, labels = output.reshape(-1, classes), labels.reshape(-1).astype(np.int64)
    if ignored is not None:
        rows, labels = rows[labels != ignored], labels[labels != ignored]
    of_label, told = np.bincount(labels, minlength=classes), ~np.isnan(rows).any(1)
    pairs = labels[told] * classes + rows[told].argmax(1)
    confusion = np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)
    right = confusion.diagonal()
    with np.errstate(invalid="ignore"):
        recall, iou = right / of_label, right / (of_label + confusion.sum(0) - right)
        accuracy = float(np.divide(right.sum(), len(labels)))
    return {
        "accuracy": accuracy, "mean_recall": _mean(recall), "mean_iou": _mean(iou), "recall": recall, "iou": iou,
        "confusion": confusion, "loss": _loss(rows, labels),
    }  # fmt: skip


def _loss(rows, labels):
    """Mean cross-entropy, NaN where there are no rows or a logit is not finite."""
    logits = rows.astype(np.float64)
    with np.errstate(invalid="ignore"):
        logits = logits - logits.max(1, keepdims=True, initial=-np.inf)
        losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]
    return float(losses.mean()) if len(losses) else math.nan


def _mean(values):
    """Mean of those that are numbers, NaN where none is."""
    there = values[~np.isnan(values)]
    return float(there.mean()) if there.size else math.nan


def check_labels(labels, classes: int) -> None:
    """ValueError names the first label (N,) outside 0 … classes−1: a kernel cannot refuse it."""
    for i, label in enumerate(labels):
        if not 0 <= label < classes:
            raise ValueError(f"label {label} of sample {i} is out of bounds: there are {classes} classes from 0")


@declare(SHAPES, items="N", writes="lse", sums="K")
def log_sum_exp(t, lse, x):
    """Logarithm lse, (N,), of the sum of exponentials of each row of x, (N, K)."""
    largest = x[t, 0]
    for k in range(1, x.shape[1]):
        value = x[t, k]
        largest = value if value > largest else largest
    total = x.dtype.type(0)
    for k in range(x.shape[1]):
        total += math.exp(x[t, k] - largest)
    lse[t] = largest + math.log(total)


@declare(
    SHAPES, items="N", writes="losses", derive=derive, sums="K", indices={"labels": "K"}, spared={"labels": "ignored"}
)
def sample_losses(t, losses, x, labels, lse, class_weights=None, label_smoothing=0.0, ignored=-1):
    """Weighted, undivided loss of each row, (N,), from x, (N, K), labels and lse, (N,), and class_weights, (K,)."""
    label = labels[t]
    if label == ignored:
        losses[t] = losses.dtype.type(0)
        return
    total = lse[t] - x[t, label]
    if class_weights.shape[0]:
        total *= class_weights[label]
    if label_smoothing != 0:
        total *= losses.dtype.type(1 - label_smoothing)
        uniform = losses.dtype.type(0)
        for k in range(x.shape[1]):
            value = lse[t] - x[t, k]
            uniform += value * class_weights[k] if class_weights.shape[0] else value
        total += uniform * (label_smoothing / losses.dtype.type(x.shape[1]))
    losses[t] = total


@declare(SHAPES, items="1", writes="loss total_weight", sums="N", indices={"labels": "K"}, spared={"labels": "ignored"})
def mean_loss(t, loss, total_weight, losses, labels, class_weights=None, ignored=-1):
    """Mean loss and total_weight, (1,), from losses and labels, (N,), and class_weights, (K,)."""
    weight = loss.dtype.type(0)
    if class_weights.shape[0]:
        for n in range(labels.shape[0]):
            label = labels[n]
            if label != ignored:
                weight += class_weights[label]
    elif ignored != -1:
        for n in range(labels.shape[0]):
            if labels[n] != ignored:
                weight += loss.dtype.type(1)
    else:
        weight = loss.dtype.type(labels.shape[0])
    total = loss.dtype.type(0)
    for n in range(losses.shape[0]):
        total += losses[n]
    if ignored != -1 and weight == 0:
        weight = loss.dtype.type(1)
    total_weight[0] = weight
    loss[0] = total / weight


@declare(SHAPES, items="N", writes="dx", derive=derive, sums="K", indices={"labels": "K"}, spared={"labels": "ignored"})
def grad_x(t, dx, x, labels, lse, total_weight, class_weights=None, label_smoothing=0.0, ignored=-1):
    """Gradient of x, (N, K), a row an item.

    From x, (N, K), labels and lse, (N,), total_weight, (1,), and class_weights, (K,).
    """
    # forward: loss = Σ_n losses[n] / total_weight, with losses[n] as in the equations above
    label = labels[t]
    if label == ignored:
        for k in range(dx.shape[1]):
            dx[t, k] = dx.dtype.type(0)
        return
    hit = dx.dtype.type(1) / total_weight[0]  # weight of the label's own term; spread: of each class
    if class_weights.shape[0]:
        hit *= class_weights[label]
    spread = dx.dtype.type(0)
    weights = dx.dtype.type(dx.shape[1])
    if label_smoothing != 0:
        hit *= dx.dtype.type(1 - label_smoothing)
        spread = label_smoothing / dx.dtype.type(dx.shape[1]) / total_weight[0]
        if class_weights.shape[0]:
            weights = dx.dtype.type(0)
            for k in range(dx.shape[1]):
                weights += class_weights[k]
    both = hit + spread * weights
    for k in range(dx.shape[1]):
        value = math.exp(x[t, k] - lse[t]) * both
        if label_smoothing != 0:
            value -= spread * class_weights[k] if class_weights.shape[0] else spread
        dx[t, k] = value
    dx[t, label] -= hit


@declare(SHAPES, items="N", writes="tlse", sums="K", adds="K")
def tangent_lse(t, tlse, tx, x, lse):
    """Tangent of lse, (N,): Σ_k p·tx, p = exp(x − lse), from tx and x, (N, K), and lse, (N,)."""
    # log_sum_exp: lse[n] = log Σ_k exp x[n,k]
    total = tlse.dtype.type(0)
    for k in range(x.shape[1]):
        total += math.exp(x[t, k] - lse[t]) * tx[t, k]
    tlse[t] = total


@declare(SHAPES, items="1", writes="tloss", sums="N", adds="N")
def tangent_loss(t, tloss, tlosses, total_weight):
    """Tangent of the mean loss, (1,), from tlosses, (N,), and total_weight, (1,)."""
    # mean_loss: loss = Σ_n losses[n] / total_weight
    total = tloss.dtype.type(0)
    for n in range(tlosses.shape[0]):
        total += tlosses[n]
    tloss[0] = total / total_weight[0]


TANGENT = (
    tangent_lse,
    Bound(sample_losses, {"losses": "tlosses", "x": "tx", "lse": "tlse"}),
    tangent_loss,
)
