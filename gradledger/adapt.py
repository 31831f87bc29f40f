"""`gradledger adapt`: adapt a pre-trained model to new data, with predicted and measured cost side by side."""

import contextlib
import json
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

from costmodel.device import device
from refimpl import data
from refimpl.kernels.cuda import CudaError
from refimpl.recipes.course import Event
from refimpl.recipes.head import is_new, kept_bytes
from refimpl.recipes.plain import Unwatched
from refimpl.recipes.rehearsed import Rehearsed
from refimpl.recipes.watched import KEPT
from refimpl.storage import checkpoint
from refimpl.storage.checkpoint import CheckpointError
from refimpl.training.trainer import NonFiniteError

from . import called, describe, finish, head_first, options, run_state
from .adapt_record import confusion, make_record, measure_arena
from .errors import Malformed, Refused
from .job import Job, check_weights, prepare
from .models import results
from .run_folder import DIVERGED, PLOT, RECORD, RESUME, WEIGHTS, RunFolder, most_bytes
from .settings import AdaptSettings, beside_resume
from .signals import Stop
from .streams import tell

called.can_be(__name__)
SAVE_AFTER = 5.0  # least seconds between saves of the state that --resume goes on from
SAVE_SHARE = 0.05  # most of the time that they may take


class Interrupted(Exception):
    """A signal ended the run; the message says what is saved, and how to go on."""


def run(
    settings: AdaptSettings,
    output: Path,
    resume: bool,
    watch: Callable[[Event], None],
    given: Iterable[str] = (),
    end: Callable[[RunFolder, str], None] = lambda folder, kept: None,
    see: Callable[[dict], None] = lambda described: None,
) -> dict:
    """Adapt and write weights, record and plot into `output`, all of them or none; returns the record.

    Where it ended worse than it began, the weights are those that it began with, `ok` is false and `reason` says so.

    resume: go on with the run saved there; of `settings`, those named `given` may repeat its own or change the threads.
    watch: called after each step. end: called with the folder and the end of a sentence that says how to go on, when
    only costs, plot and the commit are left (`finish`); it may see to them elsewhere and not return. see: called with
    the description of the data before the training.
    Raises Malformed, Refused (NaN loss, memory limit), CheckpointError or Interrupted.
    """
    adaptation = Adaptation(output, watch, end, see)
    try:
        return adaptation.run(settings, resume, given)
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted{adaptation.kept() or ' before anything was saved'}") from None
    except CheckpointError as e:
        raise CheckpointError(f"{e}{adaptation.kept()}") from None
    except CudaError as e:
        raise Malformed(f"{e}{adaptation.kept()}") from None
    except MemoryError as e:
        problem = f"the memory that this process may use does not suffice ({str(e) or 'none is left'})"
        raise Malformed(f"{problem}: a smaller --batch takes less{adaptation.kept()}") from None


class Adaptation:
    """A run in its folder: what it is made of, and what of it is saved."""

    def __init__(
        self, output: Path, watch: Callable[[Event], None], end: Callable[[RunFolder, str], None],
        see: Callable[[dict], None],
    ):  # fmt: skip
        self.output, self.watch, self.end, self.see = output, watch, end, see
        self.saved: int | None = None  # steps that --resume would go on from
        self.folder = RunFolder(output)
        self.last_save = self.save_seconds = 0.0

    def run(self, settings: AdaptSettings, resume: bool, given: Iterable[str]) -> dict:
        """The whole run; returns its record. Raises as `adapt.run`, but KeyboardInterrupt as it comes."""
        with Stop() as self.stop, self.folder:
            if resume and self.folder.rolled_forward and not (self.output / RESUME).exists():
                record = json.loads((self.output / RECORD).read_text(encoding="utf-8"))
                return record | finish.there(record, self.output)
            state = run_state.read(self.output) if resume else None
            self.saved = len(state.step_seconds) if state else None
            self.job = prepare(beside_resume(state.settings, settings, given) if state else settings)
            check_weights(self.job)
            self.stop.check()
            if device.profile_path().is_file():  # the record will need it: a damaged one is told now
                options.device(device.HERE)
            self.folder.make(needed(self.job))
            with contextlib.suppress(OSError):  # whoever reads has read enough
                self.see(data.describe(self.job.dataset))
            self.identity = run_state.identity(self.job)
            self.notes = describe.notes(self.job) | {"run": self.identity.run}
            self.begin(state)
            self.stop.check()
            with self.stop.hold(1):  # the second signal cuts a step in half
                try:
                    self.train()
                except NonFiniteError as e:
                    self.diverged(e)
            self.stop.check()
            return self.finish()

    def begin(self, state: run_state.SavedRun | None) -> None:
        """Take up a saved run, or save a new one at its start, which gives an older one up."""
        trainer, path = self.job.trainer, self.output / RESUME
        if state:
            state.check(self.job, self.identity, path)
            self.before, self.step_seconds, self.first = state.before, state.step_seconds, state.first
            self.begun = [*state.begun, len(state.step_seconds)]
            try:
                trainer.resume(state.arrays, state.step, state.losses)
                self.job.course.resume(state.kept, state.course)
            except ValueError as e:
                raise Malformed(f"{path} cannot be resumed: {e}") from None
            for dropped, ran in state.made.items():
                trainer.made.setdefault(dropped, Counter()).update(ran)
            tell(f"the run in {self.output} goes on after step {self.saved}")
        else:
            self.before, self.step_seconds, self.begun = confusion(trainer, self.job.dataset), [], [0]
            self.first = None
            if path.exists():
                tell(f"the interrupted run in {self.output} is given up for this one")
            self.save()  # the maps before a classifier may take minutes: an interrupted run is one already
        if self.first or self.step_seconds:  # the classifier has trained
            self.job.head = None
        elif self.job.head:
            self.first = head_first.fit(self.job, self.show, self.stop.check)
            self.save_if_possible()

    def train(self) -> None:
        """Take the steps that are left and append the seconds of each; a signal saves and raises KeyboardInterrupt.

        Steps that were under way together share the seconds that they took.
        """
        self.last_save = mark = time.perf_counter()
        together = 0
        for event in self.job.course.run():
            now = time.perf_counter()
            self.step_seconds.append(now - mark - event.seconds)
            together += 1
            if not self.job.trainer.under_way:
                self.step_seconds[-together:] = [sum(self.step_seconds[-together:]) / together] * together
                together = 0
            self.show(event)
            pause = max(SAVE_AFTER, self.save_seconds * (1 / SAVE_SHARE - 1))
            if self.stop.asked or now - self.last_save > pause:
                self.save_if_possible()
            self.stop.check()
            mark = time.perf_counter()
        self.save_if_possible()

    def show(self, event: Event) -> None:
        """Tell whoever watches, as long as there is a terminal."""
        try:
            self.watch(event)
        except OSError:
            self.watch = lambda event: None

    def save(self) -> None:
        """Write the state that --resume goes on from; CheckpointError where that fails."""
        started = time.perf_counter()
        with self.stop.hold():  # what is said to be saved is what is saved
            found = self.before, self.step_seconds, self.begun, self.first
            run_state.write(self.output, self.job, self.identity, *found)
            self.saved = len(self.step_seconds)
        self.last_save = time.perf_counter()
        self.save_seconds = self.last_save - started

    def save_if_possible(self) -> None:
        """Save; where that fails, say so and let the training go on until the next time."""
        try:
            self.save()
        except CheckpointError as e:
            self.last_save = time.perf_counter()
            tell(f"{e}; step {self.saved} stays saved")

    def finish(self) -> dict:
        """Evaluate; put weights, record and plot in their places, where they replace those of an earlier run."""
        staged = self.folder.stage()
        self.job.trainer.save(staged / WEIGHTS, **self.notes)
        try:
            after = confusion(self.job.trainer, self.job.dataset)
            record = make_record(self.job, self.before, after, self.step_seconds, self.begun, self.first)
            if not record["ok"]:
                self.job.trainer.save(staged / WEIGHTS, first=True, **self.notes)
            record |= {"run": self.identity.run, "weights_sha256": checkpoint.sha256(staged / WEIGHTS)}
            record["measured"]["peak_bytes"] = measure_arena(self.job)
            checkpoint.write_json(staged / RECORD, record)
        except Exception as e:  # of whatever kind: the weights are there
            with self.stop.hold():
                self.folder.commit(gone=(PLOT, RECORD, DIVERGED))
            problem = f"{type(e).__name__}: {e}" if str(e) else type(e).__name__
            where = self.output / WEIGHTS
            raise Malformed(f"the record was not made ({problem}), but the weights are in {where}{self.kept()}") from e
        self.end(self.folder, self.kept())
        drawn = finish.draw_up(staged / RECORD)
        return finish.commit(self.folder, drawn, self.stop)

    def diverged(self, e: NonFiniteError) -> NoReturn:
        """Keep the last good weights beside the results of an earlier run, which stay, and raise Refused."""
        where, old = self.output / DIVERGED, self.output / WEIGHTS
        kept = {"model": self.job.settings.model, "method": self.job.method, "weights": str(where)}
        try:
            self.job.trainer.save(self.folder.stage() / DIVERGED, **self.notes)
            with self.stop.hold():
                self.folder.commit(gone=(RESUME,))
        except CheckpointError as full:
            raise Refused(f"{e}, but could not be saved: {full}", kept | {"weights": None}) from None
        earlier = f"; {old} is unchanged, of an earlier run" if old.exists() else ""
        raise Refused(f"{e}; they are in {where}{earlier}", kept) from None

    def kept(self) -> str:
        """The end of a sentence that says what is saved and how to go on; empty where nothing is."""
        if self.folder.finished:
            return finish.done(self.output)
        command = f"gradledger adapt --resume --output {shlex.quote(str(self.output))}"
        return "" if self.saved is None else f"; step {self.saved} is saved, go on with: {command}"


def needed(job: Job) -> int:
    """The most bytes that a run has on the disk at once, but for earlier results: two states, and the results."""
    state = sum(a.nbytes for a in job.trainer.resume_arrays().values())
    weights = sum(job.program.step.parameters[name].nbytes for name in job.program.graph.parameters)
    kept = 0 if isinstance(job.course, Unwatched) else len(KEPT)
    new = bool(job.head) and is_new(job.program.graph, job.head.tail)
    classifiers = kept_bytes(job.head.tail) * (new + isinstance(job.course, Rehearsed)) if job.head else 0
    return most_bytes(state, results(job.settings.model, weights), kept, classifiers, job.course.most)
