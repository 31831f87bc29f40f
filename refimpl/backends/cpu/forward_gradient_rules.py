"""How the fast kernels draw perturbations."""

import numpy as np

from ...compiler.ir import Call, Launch
from ...compiler.lower import Lowering
from ...ops import perturbation
from . import perturbation as fast_perturbation
from .rules import absent, present


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


RULES = {drawn: (perturbation.perturb, perturbation.estimate)}  # rule → the passes of the calls that it begins at
