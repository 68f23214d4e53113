"""What every test may ask for."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# Tiny models gain nothing from threads, and lose much where two wait for each other on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A machine that is busy with something else is no defect.
settings.register_profile("bothways", deadline=None)
settings.load_profile("bothways")


# A process that a shell starts in the background ignores Ctrl-C, and so would those that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets; tests that need it are skipped where it is not there."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the real data sets are not here: {folder}")
    return folder
