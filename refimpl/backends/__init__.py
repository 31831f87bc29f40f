"""How launches run: a backend's memory, its tuned kernels, and the rules by which they cover logical calls.

`backend.py` is the seam. The kernels of a backend are imported when it is first compiled for.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from ..compiler.ir import Launch, Step
from ..compiler.lower import Lowering, reference, register_backend
from ..kernels.cuda import problem, simulated
from ..kernels.passes import Pass
from ..methods.registry import known
from .backend import Host
from .cuda.gpu import Gpu


@cache
def fast_rules() -> dict[Pass, list[Callable]]:
    """Pass → the rules that may begin at a call of it, in the order in which they are tried."""
    from .cpu import (
        conv_rules,
        elementwise_rules,
        move_rules,
        norm_rules,
        pool_rules,
        product_rules,
        quantized_norm_rules,
        quantized_rules,
        quantized_training_rules,
        row_rules,
        rules,
        spread_rules,
    )

    found: dict[Pass, list[Callable]] = {}
    norms = (norm_rules, quantized_norm_rules)
    floats = (conv_rules, elementwise_rules, move_rules, pool_rules, product_rules, row_rules, spread_rules)
    for room in (*rules_of_methods(), *norms, *floats, quantized_rules, quantized_training_rules, rules):
        for rule, passes in room.RULES.items():
            for passed in passes:
                found.setdefault(passed, []).append(rule)
    return found


def rules_of_methods() -> list[ModuleType]:
    """The files of rules that are a method's own: `refimpl/methods/NAME.py` has `backends/cpu/NAME_rules.py`."""
    files = dict.fromkeys(method.__module__.rpartition(".")[2] for method in known().values())
    names = (f"{__package__}.cpu.{file}_rules" for file in files)
    return [import_module(name) for name in names if find_spec(name)]


class Fast(Host):
    """Hand-tuned kernels for CPU cores, each covering as many calls as it can do together."""

    def lower(self, step: Step, threads: int) -> dict[str, list[Launch]]:
        """By the rules of `backends.cpu`; what no rule takes runs its reference kernel."""
        return Lowering(step, threads).launches(fast_rules())


class Rows(Host):
    """Those of `Fast`, but blocks of convolutions in whole numbers row by row: the least memory, not the fastest."""

    def lower(self, step: Step, threads: int) -> dict[str, list[Launch]]:
        """By the rules of `quantized_rows_rules` first."""
        from .cpu import quantized_rows_rules

        rules = {passed: list(found) for passed, found in fast_rules().items()}
        for rule, passes in quantized_rows_rules.RULES.items():
            for passed in passes:
                rules[passed] = [rule, *rules.get(passed, ())]
        return Lowering(step, threads).launches(rules)


class Reference(Host):
    """Each call's own kernel."""

    def lower(self, step: Step, threads: int) -> dict[str, list[Launch]]:
        """A launch for each call."""
        return {section: [reference(call) for call in calls] for section, calls in step.calls.items()}


def best() -> str:
    """The backend of who names none: a GPU where one can be used, else the tuned kernels of the CPU.

    A simulated GPU is none.
    """
    return "fast" if simulated() or problem() else "cuda"


register_backend("fast", Fast())
register_backend("reference", Reference())
register_backend("rows", Rows())
register_backend("cuda", Gpu())
