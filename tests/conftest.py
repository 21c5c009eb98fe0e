"""Settings of the whole suite."""

import os

# One thread each: the matrices are small, and threads that wait for one another are slow on a machine that is shared.
os.environ.setdefault("OMP_NUM_THREADS", "1")
