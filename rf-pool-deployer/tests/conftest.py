"""Fixtures; what they import is in the image alone."""

import shutil
from pathlib import Path

import pytest

SAMPLE = Path(__file__).parent.parent / "test_inputs"


@pytest.fixture
def work(tmp_path):
    """A work folder with the sample inputs, to be spoiled."""
    shutil.copytree(SAMPLE, tmp_path / "input")
    (tmp_path / "output").mkdir()
    return tmp_path
