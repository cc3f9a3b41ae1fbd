"""Images for other processors: what is for one alone says so, and the builder tells what it lacks."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import build_images
import pytest
from image_graph import ROOT, image_folders, read_graph

NAMES_A_PROCESSOR = re.compile(r"x86_64|amd64|aarch64|arm64")
PLATFORM_WHEELS = re.compile(r"^(tensorflow-cpu|nvidia-[a-z-]+)", re.MULTILINE)


def build(task: str, platform: str) -> subprocess.CompletedProcess[str]:
    """ci/build_images.py for another processor."""
    command = [sys.executable, ROOT / "ci" / "build_images.py", task]
    environment = {**os.environ, "PLATFORM": platform}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_an_image_that_is_for_one_processor_alone_says_so_in_a_label() -> None:
    for folder in image_folders():
        dockerfile = (folder / "Dockerfile").read_text(encoding="utf-8")
        locks = "".join(path.read_text(encoding="utf-8") for path in folder.glob("requirements*.txt"))
        if NAMES_A_PROCESSOR.search(dockerfile) or PLATFORM_WHEELS.search(locks):
            labelled = build_images.PLATFORMS.search(dockerfile)
            assert labelled, f"{folder.name}: expected LABEL gbdx.image.platforms, found none"
            assert labelled[1] == "linux/amd64"


def test_the_first_task_and_gdal_are_for_every_processor() -> None:
    for folder in (ROOT / "hello-gbdx", ROOT / "base-images" / "gdal"):
        assert not build_images.PLATFORMS.search((folder / "Dockerfile").read_text(encoding="utf-8"))


def test_another_processor_has_tags_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TAG", raising=False)
    monkeypatch.delenv("BASE", raising=False)
    monkeypatch.setenv("PLATFORM", "linux/arm64")
    assert build_images.reference("gdal") == "localhost/gdal:dev-arm64"
    assert build_images.asked_arguments()["TAG"] == "dev-arm64"
    command = build_images.build_command("docker", read_graph()["hello-gbdx"], ["a:b"], {})
    assert command[command.index("--platform") + 1] == "linux/arm64"


def test_a_label_for_one_processor_is_held_to(engine: str) -> None:
    done = build("train-cnn", "linux/arm64")
    assert done.returncode == 1
    assert (
        "build: cuda: expected PLATFORM=linux/amd64, its label gbdx.image.platforms, found linux/arm64" in done.stderr
    )


def test_a_platform_is_written_as_the_engine_writes_it() -> None:
    done = build("hello-gbdx", "arm64")
    assert done.returncode == 1
    assert done.stderr == "build: PLATFORM: expected one such as linux/arm64, found 'arm64'\n"


def test_a_processor_that_the_engine_can_not_run_is_refused_with_what_it_needs(engine: str) -> None:
    # Debian has no base for this one, so that no machine can build it.
    done = build("hello-gbdx", "linux/sparc64")
    assert done.returncode == 1
    assert "PLATFORM=linux/sparc64 needs an engine that runs that processor's programs" in done.stderr
