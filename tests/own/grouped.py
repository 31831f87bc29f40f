"""A backend that launches a whole group at once: its calls' reference kernels, one after the other, for the tests."""

from refimpl.backends.backend import Host
from refimpl.compiler import grouping
from refimpl.compiler.executed import NOTHING, Ops, executes
from refimpl.compiler.ir import AtBatch, Launch
from refimpl.compiler.lower import Lowering, reference
from refimpl.methods import gradient_filter
from refimpl.ops import add, batch_norm, max_pool
from validation.instruments.counting import count_call


@executes(lambda n, parts, *args: sum((Ops.of(count_call(call, n)) for call, _ in parts), NOTHING))
def together(n, parts, *args):
    """Run the kernels of `parts`, calls with the numbers of their arguments, on n samples; args: one part's by one."""
    for call, count in parts:
        call.passed.kernel.cpu(*args[:count])
        args = args[count:]


def launch(lowering, calls):
    """One launch for some calls. What they alone read is its scratch."""
    calls = sorted(calls, key=lowering.place.get)
    own = [reference(call) for call in calls]
    if len(own) == 1:
        return own
    args = (AtBatch(lambda n: n), tuple((c, len(one.args)) for c, one in zip(calls, own, strict=True)))
    reads, writes = [], []
    for call in calls:
        reads += [b for b in call.reads if b.root not in {w.root for w in writes}]
        writes += call.writes
    inner = [b for b in writes if lowering.readers(b) and set(lowering.readers(b)) <= set(calls)]
    writes = tuple(b for b in writes if b not in inner)
    name = " + ".join(call.name for call in calls)
    args += tuple(a for one in own for a in one.args)
    return [Launch(name, together, args, tuple(reads), writes, tuple(calls), tuple(inner))]


def normalised(lowering, call):
    """The statistics of a batch, its norm and what follows; before them the convolution that nobody else reads."""
    mean = call if call.passed is batch_norm.mean else None
    norm = grouping.norms(lowering).by_call.get(mean) if mean else grouping.beside(lowering, call).after
    if norm is None or norm.when != call.when:
        return None
    calls = [c for c in (*norm.statistics, *norm.map.calls) if c.section == call.section]
    readers = lowering.readers(norm.raw)
    if mean is None and any(c is None or c.section == call.section and c not in calls for c in readers):
        return None
    return launch(lowering, {call, *calls})


def followed(lowering, call):
    """A convolution, a sum or a rectifier, with what follows."""
    return launch(lowering, grouping.chain(lowering, call).calls)


def norm_gradients(lowering, call):
    """The gradients of a training norm, behind the rectifier where there is one."""
    norm = grouping.norms(lowering).by_call.get(call)
    if norm and norm.when == call.when and (call in norm.gradients or norm.receives(call.arrays["dx"])):
        return launch(lowering, {call, *norm.gradients})
    return None


def gradients(lowering, call):
    """What a gradient passes on its way, with the gradients that read it there."""
    arrival = grouping.arrival(lowering, call, *grouping.GRADIENTS, gradient_filter.pool_dy)
    return launch(lowering, (*arrival.passed, *arrival.readers))


def of_convolution(lowering, call):
    """The gradients of a convolution, and the sum that takes that of x to another one."""
    conv = grouping.beside(lowering, call)
    if call.renamed:
        return None  # what is made of channels side by side is put back between the two
    return launch(lowering, grouping.given(*conv.gradients, conv.total))


def expanded(lowering, call):
    """A filtered gradient with its expansion."""
    return launch(lowering, grouping.given(call, grouping.expansion(lowering, call)))


def largest(lowering, call):
    """Max pooling, with where the maxima were."""
    return launch(lowering, grouping.given(call, grouping.places(lowering, call)))


BEGIN = {  # rule → the passes of the calls that its groups begin at
    normalised: (*grouping.FORWARD, batch_norm.mean),
    followed: (*grouping.FORWARD, *grouping.RECTIFIERS, add.forward),
    norm_gradients: (*grouping.NORM_GRADIENTS, *grouping.MASKED),
    gradients: grouping.PASSED,
    of_convolution: (*grouping.GRAD_W, *grouping.GRAD_X),
    expanded: (gradient_filter.patch_grad, gradient_filter.patch_grad_dilated, gradient_filter.patch_grad_w),
    largest: (max_pool.forward,),
}
RULES = {passed: [rule for rule in BEGIN if passed in BEGIN[rule]] for passed in {p for b in BEGIN.values() for p in b}}


class Grouped(Host):
    """The backend."""

    def lower(self, step, threads):
        return Lowering(step, threads).launches(RULES)
