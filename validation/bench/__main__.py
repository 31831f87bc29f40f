"""One side of one case: `python -m validation.bench SIDE CASE THREADS REPEATS` prints a JSON object. See `launch`."""

import json
import sys
import traceback

from . import run_side

side, name, threads, repeats = sys.argv[1:]
try:
    print(json.dumps(run_side(side, name, int(threads), int(repeats))))
except Exception as e:  # of whatever kind; the last line says what it is, where PyTorch's own are advice
    traceback.print_exc()
    first = next(iter(str(e).strip().splitlines()), "")
    sys.exit(f"{type(e).__name__}: {first}")
