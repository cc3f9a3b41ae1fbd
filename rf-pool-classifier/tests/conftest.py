"""Fixtures; what they import is in the image alone."""

import pytest
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


@pytest.fixture
def inputs(tmp_path):
    """The ports of a sound run, on disk."""
    from sound_inputs import Inputs

    return Inputs(tmp_path / "input")
