"""Which of some plans a person's own data favour: each trains for a while, judged by samples that it does not train on.

The gradient error of a plan does not tell its outcome: a classifier that trains alone has the largest error there is,
and is often the better one on few samples. What a short training reaches on samples held out tells it better, where
outcomes differ at all (`gradledger reproduce advice-outcomes`).

A trial is a part of what `adapt` would do: the classifier first, which all plans share, then the probes of the learning
rate and the run, until the plan's share of the seconds is over; the run of all layers at once that `adapt` tries with a
new classifier would take longer than that. Its figure is that of the best weights.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from refimpl.recipes.rehearsed import Rehearsed
from refimpl.recipes.watched import Watched

from . import recipe
from .errors import Malformed
from .job import DataAtHand, Job, prepare
from .settings import AdaptSettings

MOST = 6  # plans that are tried
SECONDS = 60.0  # for all plans together


def spread(count: int, most: int = MOST) -> list[int]:
    """At most so many places of `count`, the first and the last among them, evenly between."""
    if count <= most:
        return list(range(count))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})


def tried(
    plans: Sequence[AdaptSettings], seconds: float, watch: Callable[[int, int, str], None] = lambda *_: None,
    at_hand: DataAtHand | None = None,
) -> list[dict]:  # fmt: skip
    """For each plan what its trial reached: accuracy and loss of the best weights on the samples held out, as shares.

    seconds: of all trials together, without preparing and compiling them; each plan makes one step and one look at
    least. rank: 1 for the best, by accuracy, then loss. at_hand: the data, where they were read already; plans share
    them. Malformed for a plan that cannot be run.
    """
    found, classifier = [], None
    at_hand = DataAtHand() if at_hand is None else at_hand
    for i, plan in enumerate(plans):
        watch(i, len(plans), f"trying {' + '.join(plan.method)}, last {plan.train_last}")
        job = prepare(replace(plan, recipe=recipe.AUTO), at_hand)
        if job.head is not None:
            if classifier is None:
                classifier = fitted(job)
            job.trainer.resume({**job.trainer.resume_arrays(), **classifier}, 0, [])
        found.append(trial(job, seconds / len(plans)))
    order = sorted(range(len(found)), key=lambda i: (-found[i]["accuracy"], found[i]["loss"]))
    return [row | {"rank": order.index(i) + 1} for i, row in enumerate(found)]


def fitted(job: Job) -> dict:
    """The weights of the classifier after it trained alone."""
    head, d = job.head, job.dataset
    assert head is not None
    for _ in head.fit(d.x_train, d.y_train, d.x_val, d.y_val):
        pass
    assert head.fitted is not None
    return head.fitted.weights


def trial(job: Job, seconds: float) -> dict:
    """Run a job's watched training until its seconds are over; what its best weights reach."""
    course = job.course
    watched = course.watched if isinstance(course, Rehearsed) else course
    if not isinstance(watched, Watched):
        raise Malformed("a plan without a recipe holds no samples out to judge it by")
    ended, started = 0.0, None
    for _ in watched.run():
        if started is None:  # the first step may have compiled kernels
            started = time.perf_counter()
        ended = time.perf_counter() - started
        if ended > seconds:
            break
    course = watched.course
    seen = [*course.looks, *(look for probe in course.probed for look in probe), watched.look()]
    best = min(seen, key=lambda look: look.loss)
    return {
        "accuracy": best.measure,
        "loss": best.loss,
        "before": course.looks[0].measure,
        "steps": course.made,
        "seconds": ended,
        "held_out": len(job.dataset.y_val),
    }
