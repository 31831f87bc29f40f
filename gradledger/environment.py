"""Can kernels run under the environment variables of Numba that the user set?"""

import os
import warnings

from . import limits

MOST = 1024  # threads, as of a device's profile; with 100,000 the runtime crashes


def problem() -> str | None:
    """Why they cannot, in a sentence; None where they can. Where no such variable is set, Numba is not even loaded."""
    named = {name: value for name, value in sorted(os.environ.items()) if name.startswith("NUMBA_")}
    if not named:
        return None
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            import numba

            reason = next((str(w.message) for w in told if "Environment variable" in str(w.message)), None)
            if numba.config.NUMBA_NUM_THREADS > MOST:
                reason = f"at most {MOST} threads can be used"
            elif numba.config.DISABLE_JIT:
                reason = "NUMBA_DISABLE_JIT leaves nothing that could run: unset it"
            elif limits.addresses() is None:  # else a thread may not start, which who uses them finds out
                numba.get_num_threads()
        except Exception as e:  # whatever it raises over a value
            if limits.short_of_memory(e):
                return None  # which whoever loads it next tells
            reason = str(e)
    if reason is None:
        return None
    given = ", ".join(f"{name}={value!r}" for name, value in named.items())
    return f"no kernel can run with {given}: {reason.splitlines()[0]}"
