"""A task folder is whole: a fork works without an edit, and a folder moved alone still builds and runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from image_graph import ROOT, task_folders

pytestmark = pytest.mark.container


def make(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """make, in another checkout."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }
    command = ["make", "--no-print-directory", "-C", str(folder), *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def clone(engine: str, tmp_path: Path) -> Iterator[Path]:
    """A copy of the repository as git sees it, with the tools that are installed here."""
    folder = tmp_path / "clone"
    listed = subprocess.check_output(
        ["git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard"], text=True
    )
    for line in listed.splitlines():
        if (ROOT / line).exists():
            (folder / line).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / line, folder / line)
    subprocess.run(["git", "init", "--quiet", folder], check=True)
    (folder / ".venv").symlink_to(sys.prefix)
    yield folder
    subprocess.run([engine, "rmi", "--force", "localhost/my-task:dev"], capture_output=True, check=False)


def test_a_fork_passes_lint_build_container_test_and_run_without_an_edit(clone: Path) -> None:
    for words in (
        ("new", "NAME=my-task", "FROM=hello-gbdx"),
        ("lint",),
        ("build", "TASK=my-task"),
        ("container-test", "TASK=my-task"),
        ("run", "TASK=my-task", "PORTS=message=Made by a fork"),
    ):
        done = make(clone, *words)
        assert done.returncode == 0, f"make {' '.join(words)}\n{done.stdout}{done.stderr}"
    assert (clone / "runs/my-task/latest/data_out/out.txt").read_text() == "data_file.txt\nMade by a fork"


@pytest.mark.parametrize("folder", [f for f in task_folders() if f.name == "hello-gbdx"], ids=lambda f: f.name)
def test_a_folder_moved_alone_builds_and_runs(engine: str, folder: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(folder, alone)
    (tmp_path / "work" / "output").mkdir(parents=True)
    (tmp_path / "work" / "output").chmod(0o777)
    (tmp_path / "work").chmod(0o777)
    environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
    tag = "localhost/moved-alone:test"
    try:
        subprocess.run([engine, "build", "--quiet", "--tag", tag, str(alone)], env=environment, check=True)
        mounts = ["--volume", f"{tmp_path}/work:/mnt/work", "--volume", f"{alone}/test_inputs:/mnt/work/input:ro"]
        subprocess.run([engine, "run", "--rm", "--network", "none", *mounts, tag], check=True)
    finally:
        subprocess.run([engine, "rmi", "--force", tag], capture_output=True, check=False)
    assert (tmp_path / "work/output/data_out/out.txt").read_text() == "data_file.txt\nThis is my message!"
