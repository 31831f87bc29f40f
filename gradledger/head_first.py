"""The part of a run in which the classifier trains alone, before more layers do."""

from collections.abc import Callable

from refimpl.recipes.course import Event, Glance
from refimpl.recipes.rehearsed import Rehearsed

from . import ledger
from .job import Job


def fit(job: Job, show: Callable[[Event], None], check: Callable[[], None]) -> dict | None:
    """Train the classifier of a job and put it into the trainer's net; what came of it, as JSON takes it.

    None where the job has no such part. show: called after each step; check: called then too, and may raise.
    """
    head, d = job.head, job.dataset
    if head is None:
        return None
    for event in head.fit(d.x_train, d.y_train, d.x_val, d.y_val, whole=isinstance(job.course, Rehearsed)):
        show(event)
        check()
    found = head.fitted
    if isinstance(job.course, Rehearsed):
        job.course.instead = found.whole
    job.course.begin_headed(found.weights)
    job.head = None  # its maps and its memory are needed no more
    return {
        "before": told(found.before),
        "after": told(found.after),
        "rate": found.rate,
        "passes": found.passes,
        "steps": found.steps,
        "again": found.again,
        "ran": {
            "maps": ledger.listed(head.maps.evaluator.runner.made),
            "steps": ledger.listed(head.trainer.made),
            "looks": ledger.listed(head.trainer.evaluator.runner.made),
        },
    }


def told(look: Glance) -> dict:
    """A look as JSON takes it."""
    return look._asdict()
