"""How the fast kernels draw perturbations."""

import numpy as np

from ...compiler.ir import Call, Launch
from ...compiler.lower import Lowering
from ...ops import perturbation, quantized_perturbation
from ..common import absent, present
from . import perturbation as fast_perturbation
from . import quantized_perturbation as fast_whole


def drawn(lowering: Lowering, call: Call) -> list[Launch] | None:
    """Perturbed weights or an estimate: in float32, of draws without a guide."""
    (out,), w = call.writes, call.arrays["w"]
    if "guide" in call.arrays or out.dtype != np.float32:
        return None
    given = [call.arrays[name] for name in ("seed", "draws", "coefficients")]
    dtypes = {"scales": out.dtype, "least": out.dtype, "step": np.int64}
    given += [call.arrays.get(name, absent(1, dtype)) for name, dtype in dtypes.items()]
    size = (call.sizes["E"],)
    attrs = [call.attrs[name] for name in ("stream", "signs", "chosen")]
    args = (out.reshape(size), w.reshape(size), *given, *attrs, call.passed is perturbation.perturb)
    return [Launch(call.name, fast_perturbation.summed, args, present(w, *given), (out,), (call,))]


WHOLE = ("stream", "binomial", "one", "z_multiplier", "z_shift")  # attributes of both passes


def whole(lowering: Lowering, call: Call) -> list[Launch] | None:
    """Perturbed whole weights or their update: of one scale, or of one for each element in turn."""
    moves, (out,) = call.passed is quantized_perturbation.perturb, call.writes
    steps = call.arrays["epsilon" if moves else "rate"]
    if call.attrs["each"] > 1 and steps.shape[0] > 1:
        return None
    given = [call.arrays[name] for name in ("seed", "draws", "signs")]
    size, w = (call.sizes["E"],), call.arrays["w"]
    more = ("unit_multiplier", "unit_shift", "low", "high", "wide") if moves else ("low", "high", "mean8")
    attrs = [call.attrs[name] for name in WHOLE + more]
    kernel = fast_whole.perturbed if moves else fast_whole.stepped
    first = (out.reshape(size), w.reshape(size)) if moves else (w.reshape(size),)
    return [Launch(call.name, kernel, (*first, *given, steps, *attrs), (w, *given, steps), (out,), (call,))]


RULES = {  # rule → the passes of the calls that it begins at
    drawn: (perturbation.perturb, perturbation.estimate),
    whole: (quantized_perturbation.perturb, quantized_perturbation.step),
}
