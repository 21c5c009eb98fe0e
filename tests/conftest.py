"""Settings of the whole suite."""

import os
import signal

# One thread each: the matrices are small, and threads that wait for one another are slow on a machine that is shared.
os.environ.setdefault("OMP_NUM_THREADS", "1")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell has it for what it runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # or the processes that tests interrupt would go on

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")  # machines that run tests are shared, and time says nothing of the code


@pytest.fixture(autouse=True)
def _number_of_threads_is_given_back() -> Iterator[None]:
    """A test that leaves another number of threads behind would slow down all that follow."""
    import torch

    before = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == before
