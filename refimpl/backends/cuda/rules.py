"""How the GPU does groups of calls: rule → the passes of the calls that it begins at, as for the CPU."""

from ...compiler.ir import Call, Launch
from ...compiler.lower import Lowering, on_gpu
from ...compiler.two_stage import Pays, two_stage
from ...kernels.passes import Pass
from . import (
    alike,
    batch_norm_rules,
    conv_rules,
    depthwise_rules,
    error_map_pruning_rules,
    gradient_filter_rules,
    groups,
    pool_rules,
    quantized_rules,
    row_rules,
)

# Output items that keep a GPU busy, of which the smallest here has 512 lanes and the largest some 20,000; and terms of
# a sum that are worth a thread: a slice costs a store and a load more.
PAYS = Pays(items=1 << 14, terms=64)


def in_stages(lowering: Lowering, call: Call) -> list[Launch] | None:
    """A call of few items with long sums: on slices, then their sum."""
    return two_stage(call, PAYS, on_gpu)


class Every(dict):
    """Pass → the rules that may begin at a call of it, in their order; `in_stages` is the last of each."""

    def get(self, passed: Pass, default=()):
        """Those of a pass."""
        return [*super().get(passed, ()), in_stages]


RULES = Every()
_METHODS = (gradient_filter_rules, error_map_pruning_rules)
_SHARED = (batch_norm_rules, depthwise_rules, conv_rules, quantized_rules, groups, pool_rules, row_rules, alike)
for _room in (*_METHODS, *_SHARED):
    for _rule, _passes in _room.RULES.items():
        for _passed in _passes:
            RULES.setdefault(_passed, []).append(_rule)
