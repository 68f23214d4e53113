"""What every test may ask for."""

from pathlib import Path

import pytest
from hypothesis import settings

# A machine that is busy with something else is no defect.
settings.register_profile("bothways", deadline=None)
settings.load_profile("bothways")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets; tests that need it are skipped where it is not there."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the real data sets are not here: {folder}")
    return folder
