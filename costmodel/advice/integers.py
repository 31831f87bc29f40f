"""Products of whole numbers in a step, by the bits of their factors, and as how many products of floats they count.

A product-accumulate of whole numbers is one `imac` (imul + iadd), whatever its bits, as one of floats is a `mac`; it is
no flop. To set a step with both beside one of floats alone, an `imac` of a×b bits counts as a share of a `mac`:

    width   max(a, b) / 32      8 bits: 8/32 = 1/4, as bytes moved and vector lanes do      the default
    area    a·b / (32·32)       8 bits: 64/1,024 = 1/16, as the area of a multiplier does

arXiv 2007.03213 prints what its methods save with 8-bit arithmetic ("+Q"). Our reading: width; how the paper counts an
8-bit operation was not at hand.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from refimpl.compiler.ir import Call
from refimpl.compiler.program import Program

if TYPE_CHECKING:  # a training counts without loading what works with symbols
    from ..predict import Estimate

FLOAT_BITS = 32
NARROW = 16  # bits of the widest factors
RATIOS: dict[str, Callable[[int, int], float]] = {
    "width": lambda a, b: max(a, b) / FLOAT_BITS,
    "area": lambda a, b: a * b / FLOAT_BITS**2,
}
Bits = tuple[int, int]


def factors(call: Call) -> Bits | None:
    """Bits of the two arrays of narrow whole numbers that a call multiplies, the fewer first; None without such.

    One of a single axis is no factor: it is a bias.
    """
    of_integers = [b.dtype for b in call.reads if b.dtype.kind in "iu" and len(b.shape) > 1]
    bits = sorted(8 * dtype.itemsize for dtype in of_integers if 8 * dtype.itemsize <= NARROW)
    return (bits[0], bits[1]) if len(bits) == 2 else None


def products(estimate: "Estimate") -> dict[Bits, int | float]:
    """Bits of both factors → product-accumulates of one step."""
    found: Counter = Counter()
    for call, units in estimate.calls.items():
        found.update(products_of(call, units))
    return dict(sorted(found.items()))


def run_imacs(program: Program, batches: Iterable[int]) -> int | float:
    """Product-accumulates, of any bits, that are expected of a run: a step for each batch size in `batches`."""
    from ..predict import estimate

    return sum(times * sum(products(estimate(program, n)).values()) for n, times in Counter(batches).items())


def products_of(call: Call, units: Mapping[str, int | float]) -> dict[Bits, int | float]:
    """The same of one call that does so many of each unit."""
    bits, count = factors(call), min(units.get("imul", 0), units.get("iadd", 0))
    return {bits: count} if bits and count else {}


def weighed_macs(estimate: "Estimate", ratio: str = "width") -> float:
    """Multiply-adds of one step, those of whole numbers as what they count by one of RATIOS."""
    return estimate.macs + as_macs(products(estimate), ratio)


def as_macs(found: Mapping[Bits, int | float], ratio: str) -> float:
    """Multiply-adds of floats as which they count by one of RATIOS."""
    return sum(n * RATIOS[ratio](*bits) for bits, n in found.items())
