import os

os.environ.setdefault("NUMBA_NUM_THREADS", "2")  # read when numba is imported: thread counts are compared, 1 with 2

from hypothesis import settings

settings.register_profile("gradledger", derandomize=True, deadline=None, database=None, max_examples=12)
settings.load_profile("gradledger")
