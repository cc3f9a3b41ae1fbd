"""ci/engine.sh: finds a working engine, remembers it, and says in a sentence when there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from image_graph import ROOT


def run(script: Path, user: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """The script in another environment, and perhaps as another user."""
    command = ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", script] if user else [script]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other users can enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def copy(folder: Path) -> Path:
    """The script in a folder of its own, so that it remembers nothing."""
    (folder / "ci").mkdir()
    return Path(shutil.copy(ROOT / "ci" / "engine.sh", folder / "ci"))


def test_an_engine_that_is_not_there_is_named(copy: Path) -> None:
    done = run(copy, ENGINE="no-such-engine")
    assert done.returncode == 1
    assert "ENGINE=no-such-engine does not work: expected a command that builds images" in done.stderr
    assert "To install Docker: https://" in done.stderr


def test_a_client_that_answers_but_cannot_build_is_not_taken(copy: Path, folder: Path) -> None:
    client = folder / "docker"
    client.write_text('#!/bin/sh\n[ "$1" = version ] && echo 99.0 && exit 0\nexit 1\n')
    client.chmod(0o755)
    done = run(copy, ENGINE=str(client))
    assert done.returncode == 1
    assert "found none that answers and builds" in done.stderr


def test_without_an_engine_and_without_root_it_says_what_to_do(copy: Path, folder: Path) -> None:
    # A Docker socket that nobody listens on: as on a machine without an engine.
    nobody = "65534" if os.getuid() == 0 else None
    done = run(copy, user=nobody, DOCKER_HOST=f"unix://{folder}/nothing.sock", PATH="/usr/sbin:/usr/bin:/bin")
    assert done.returncode == 1
    assert "no engine answers, and installing one needs root" in done.stderr
    assert "container tests and runs need Docker or Podman" in done.stderr


@pytest.mark.container
def test_the_answer_is_remembered_and_tried_again(engine: str, copy: Path, folder: Path) -> None:
    found = run(copy, ENGINE="").stdout.strip()
    stamp = folder / ".make" / "engine"
    assert stamp.read_text().strip() == found
    assert Path(found).is_file()
    stamp.write_text("/no/such/engine\n")
    assert run(copy, ENGINE="").stdout.strip() == found


@pytest.mark.container
def test_an_engine_that_was_asked_for_once_is_not_taken_later(engine: str, copy: Path, folder: Path) -> None:
    (folder / "bin").mkdir()
    (folder / "bin" / "my-engine").symlink_to(engine)
    path = f"{folder}/bin:{os.environ['PATH']}"
    assert run(copy, ENGINE="my-engine", PATH=path).stdout.strip() == f"{folder}/bin/my-engine"
    assert run(copy, ENGINE="", PATH=path).stdout.strip() != f"{folder}/bin/my-engine"


def test_a_missing_engine_fails_the_container_tests_with_a_sentence_and_skips_none() -> None:
    command = [
        ROOT / ".venv/bin/python",
        "-m",
        "pytest",
        "-q",
        "ci/tests/test_container_contract.py",
        "--task",
        "hello-gbdx",
    ]
    environment = {**os.environ, "ENGINE": "no-such-engine"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "container tests and runs need Docker or Podman" in done.stdout
    assert "skipped" not in done.stdout.splitlines()[-1]
    assert "passed" not in done.stdout.splitlines()[-1]
