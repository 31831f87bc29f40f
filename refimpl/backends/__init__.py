"""How launches run: the tuned kernels of a backend, and the rules by which they cover logical calls.

Each backend registers itself for `compile(backend=NAME)`; its kernels are imported when it is first asked for.
"""

from collections.abc import Callable
from functools import cache

from ..compiler.ir import Launch, Step
from ..compiler.lower import Lowering, reference, register
from ..kernels.passes import Pass


@cache
def fast_rules() -> dict[Pass, list[Callable]]:
    """Pass → the rules that may begin at a call of it, in the order in which they are tried."""
    from .cpu import channel_rules, conv_rules, norm_rules, pool_rules, rules

    found: dict[Pass, list[Callable]] = {}
    for room in (norm_rules, conv_rules, pool_rules, channel_rules, rules):
        for rule, passes in room.RULES.items():
            for passed in passes:
                found.setdefault(passed, []).append(rule)
    return found


@register("fast")
def fast(step: Step, threads: int) -> dict[str, list[Launch]]:
    """Hand-tuned kernels for CPU cores, each covering as many calls as it can do together."""
    return Lowering(step, threads).launches(fast_rules())


@register("reference")
def by_reference(step: Step, threads: int) -> dict[str, list[Launch]]:
    """Each call's own kernel."""
    return {section: [reference(call) for call in calls] for section, calls in step.calls.items()}
