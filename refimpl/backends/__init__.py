"""How launches run: the tuned kernels of a backend, and the rules by which they cover logical calls.

Each backend registers itself for `compile(backend=NAME)`; its kernels are imported when it is first asked for.
"""

from ..compiler.ir import Launch, Step
from ..compiler.lower import Lowering, reference, register


@register("fast")
def fast(step: Step, threads: int) -> dict[str, list[Launch]]:
    """Hand-tuned kernels for CPU cores, each covering as many calls as it can do together."""
    from .cpu import channel_rules, conv_rules, norm_rules, pool_rules, rules

    rooms = (norm_rules, conv_rules, pool_rules, channel_rules, rules)
    return Lowering(step, threads).launches([rule for room in rooms for rule in room.RULES])


@register("reference")
def by_reference(step: Step, threads: int) -> dict[str, list[Launch]]:
    """Each call's own kernel."""
    return {section: [reference(call) for call in calls] for section, calls in step.calls.items()}
