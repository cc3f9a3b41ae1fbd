"""The scripts around the package: what a fresh clone begins with, and what runs these tests."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from live_service import ROOT


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with the files as they are here, and nothing installed."""
    target = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", "--shared", "--no-checkout", ROOT, target], check=True)
    subprocess.run(["git", "-C", target, "reset", "--quiet"], check=True)
    listed = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")
    files = [name for name in listed if name and os.path.lexists(ROOT / name)]
    subprocess.run(["cp", "-a", "--parents", *files, target], cwd=ROOT, check=True)
    return target


def test_make_demo_works_in_a_fresh_clone_even_after_an_installation_that_failed(clone: Path) -> None:
    # What `python3 -m venv` leaves where Debian's python3-venv is missing: an environment without pip.
    half = clone / "gbdx-platform" / ".venv"
    subprocess.run(["python3", "-m", "venv", "--without-pip", half], check=True)
    done = subprocess.run(["make", "demo"], cwd=clone, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\nThis is my message!\n" in done.stdout
    assert (half / "bin" / "pip").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-k", "registry"], {"gbdx-platform/tests/test_registry.py"}),
        (["gbdx-platform/tests/test_tls.py"], {"gbdx-platform/tests/test_tls.py"}),
    ],
)
def test_the_tests_that_are_run_are_the_platforms_own_where_no_path_is_named(
    arguments: list[str], expected: set[str]
) -> None:
    line = [ROOT / "gbdx-platform" / "test.sh", "--collect-only", "-qq", *arguments]
    listed = subprocess.run(line, capture_output=True, text=True, check=False)
    assert listed.returncode == 0, listed.stdout + listed.stderr
    files = {row.partition(":")[0] for row in listed.stdout.splitlines() if ".py" in row}
    assert expected <= files, listed.stdout
    assert {file.rpartition("/")[0] for file in files} == {"gbdx-platform/tests"}, listed.stdout
