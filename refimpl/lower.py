"""Turn the logical calls of a step into kernel launches.

The reference backend launches each call's own kernel. The fast backend replaces groups of calls by hand-tuned kernels
where it has one; every logical call is covered by exactly one launch.
"""

from .program import SECTIONS, Call, Items, Launch, Step

BACKENDS = ("fast", "reference")


def lower(step: Step, backend: str, threads: int) -> dict[str, list[Launch]]:
    """Launches of each section, in order."""
    return {section: [reference(call) for call in step.calls[section]] for section in SECTIONS}


def reference(call: Call) -> Launch:
    """The launch of a call's own kernel."""
    passed = call.passed
    dtype = next((b.dtype for a, b in call.arrays.items() if ":" not in passed.shapes[a]), None)
    args = passed.arguments(call.arrays, call.attrs, dtype)
    return Launch(
        call.name, passed.kernel.cpu, (Items(call), *args), tuple(call.reads), tuple(call.writes), covers=(call,)
    )
