import os

os.environ.setdefault("NUMBA_NUM_THREADS", "2")  # read when numba is imported: thread counts are compared, 1 with 2

from hypothesis import settings

EXAMPLES = int(os.environ.get("GRADLEDGER_EXAMPLES", 12))  # drawn cases of a property test; fewer where Python is slow

settings.register_profile("gradledger", derandomize=True, deadline=None, database=None, max_examples=EXAMPLES)
settings.load_profile("gradledger")
