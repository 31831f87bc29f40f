"""One side of one case: `python -m validation.bench SIDE CASE THREADS REPEATS` prints a JSON object. See `launch`."""

import json
import sys

from . import run_side

side, name, threads, repeats = sys.argv[1:]
print(json.dumps(run_side(side, name, int(threads), int(repeats))))
