"""What the tests that need containers share: the engine, the images, and the option --task.

Without an engine these tests fail, each with the sentence that ci/engine.sh ends with; none is ever skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import build_images
import pytest
from image_graph import ROOT

# Fixtures, handed on to all tests.
from publishing import checkout, logged_in, other_engine, platform, registry  # noqa: F401

# What make and a person's shell may set, and no test wants.
SETTINGS = (
    "TASK",
    "INPUT",
    "OUTPUT",
    "PORTS",
    "NETWORK",
    "MEMORY",
    "DISK",
    "NAME",
    "FROM",
    "V",
    "SUDO_UID",
    "SUDO_GID",
)
MAKE_SETTINGS = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
# GPU tasks are tested on the processor, in the CPU variant of their images.
os.environ.setdefault("DEVICE", "cpu")

MISBEHAVING_TASKS = Path(__file__).resolve().parent / "misbehaving_tasks"


def pytest_addoption(parser: pytest.Parser) -> None:
    """--task NAME keeps the contract tests to one task."""
    parser.addoption("--task", metavar="NAME", help="run the container contract tests for this task alone")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever asks for the engine, directly or not, is a container test: `-m 'not container'` leaves it out."""
    for item in items:
        if "engine" in getattr(item, "fixturenames", ()):
            item.add_marker("container")


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The environment without what `make test` and its caller set for a run: a test says what it asks for."""
    return {name: value for name, value in os.environ.items() if name not in (*SETTINGS, *MAKE_SETTINGS)}


@pytest.fixture(scope="session")
def engine() -> str:
    """The engine's command line, found or installed by ci/engine.sh."""
    found = subprocess.run([ROOT / "ci" / "engine.sh"], capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.fail(f"no container engine:\n{found.stderr.strip()}", pytrace=False)
    return found.stdout.strip()


@pytest.fixture(scope="session")
def containers_at(engine: str) -> Callable[[Path], list[str]]:
    """Finds the ids of a worker's containers, ended ones too, that have something mounted from below a folder."""

    def find(folder: Path) -> list[str]:
        listed = subprocess.check_output([engine, "ps", "--all", "--quiet", "--filter", "label=gbdx.task"], text=True)
        template = "{{.Id}} {{range .Mounts}}{{.Source}} {{end}}"
        # One that vanishes meanwhile makes the engine complain, and is none.
        command = [engine, "inspect", "--format", template, *listed.split()]
        found = subprocess.run(command, capture_output=True, text=True, check=False).stdout if listed else ""
        return [line.split()[0] for line in found.splitlines() if f" {folder}/" in line]

    return find


@pytest.fixture(scope="session")
def hello_image(engine: str) -> str:
    """The image of hello-gbdx, built when it is missing or out of date."""
    command = [sys.executable, ROOT / "ci" / "build_images.py", "hello-gbdx"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode:
        pytest.fail(built.stderr, pytrace=False)
    return build_images.reference("hello-gbdx")


@pytest.fixture(scope="session")
def misbehaving_image(engine: str, hello_image: str) -> str:
    """One image with the scripts of all misbehaving tasks."""
    name = build_images.reference("misbehaving-tasks")
    prefix, _, tag = hello_image.replace("/hello-gbdx:", " ").partition(" ")
    arguments = ["--build-arg", f"REGISTRY={prefix}", "--build-arg", f"TAG={tag}"]
    built = subprocess.run(
        [engine, "build", "--tag", name, *arguments, MISBEHAVING_TASKS],
        env={**os.environ, "DOCKER_BUILDKIT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode:
        pytest.fail(built.stderr, pytrace=False)
    return name
