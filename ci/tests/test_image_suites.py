"""Tests that need an image's libraries run inside it: one test here for each image folder with tests/test_*.py.

The folder's Dockerfile has a stage `test`: the image with pytest and whatever else the tests import. It is built with
`--target test`, and what never gets into an image (tests/, test_inputs/, test_*.py, make_*.py) is mounted beside it.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import build_images
import pytest
from image_graph import ROOT, image_folders

pytestmark = pytest.mark.container

SUITES = [folder for folder in image_folders() if any((folder / "tests").glob("test_*.py"))]
MOUNTED = ("tests", "test_inputs", "test_*.py", "make_*.py")
# Masters of files that two tasks share; a task's folder stands alone, so each has a copy.
COPIES = {"rf-pool-classifier/input_checks.py": ["rf-pool-deployer/input_checks.py"]}


def run_suite(engine: str, tag: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a folder's tests in its test stage, without a network and with nothing to write to but /tmp."""
    paths = sorted(path for pattern in MOUNTED for path in folder.glob(pattern))
    # The tests that are named after the task start containers themselves: they run outside.
    outside = f"test_{folder.name.replace('-', '_')}"
    paths = [path for path in paths if not path.name.startswith(outside)]
    mounts = [word for path in paths for word in ("--volume", f"{path}:/suite/{path.name}:ro")]
    settings = [word for pair in ("HOME=/tmp", "PYTHONPATH=/", "PYTHONDONTWRITEBYTECODE=1") for word in ("--env", pair)]
    return subprocess.run(
        [
            *(engine, "run", "--rm", "--init", "--network", "none", "--read-only", "--tmpfs", "/tmp:exec"),
            *("--workdir", "/suite", *mounts, *settings, tag),
            *("python3", "-m", "pytest", "--quiet", "-p", "no:cacheprovider", "--import-mode=prepend"),
            *("tests", *(path.name for path in paths if path.name.startswith("test_") and path.suffix == ".py")),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("folder", SUITES, ids=lambda folder: folder.name)
def test_the_tests_of_an_image_pass_inside_it(engine: str, folder: Path) -> None:
    done = run_suite(engine, build_images.build_stage(engine, folder.name, "test"), folder)
    print(done.stdout.strip().splitlines()[-1])
    assert done.returncode == 0, done.stdout[-8000:]


@pytest.mark.parametrize(("master", "copy"), [(master, copy) for master in COPIES for copy in COPIES[master]])
def test_files_that_two_tasks_share_are_equal(master: str, copy: str) -> None:
    assert (ROOT / copy).read_bytes() == (ROOT / master).read_bytes()
