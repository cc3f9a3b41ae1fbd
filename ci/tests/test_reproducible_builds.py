"""Two builds of one commit, each from nothing, are the same image but for what is listed here."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import build_images
import pytest
from image_graph import ROOT, read_graph

pytestmark = pytest.mark.container

# Builders before BuildKit 0.11 (Docker 20.10) write the time of the build, and ignore SOURCE_DATE_EPOCH for it.
BUILD_TIME = ("created",)


def build_from_nothing(engine: str, tag: str, umask: int) -> None:
    """Builds hello-gbdx without the cache, out of a checkout made under another umask."""
    image = read_graph()["hello-gbdx"]
    build_images.fetch_external(engine, image)
    with tempfile.TemporaryDirectory() as workspace:
        checkout = Path(workspace) / "checkout"
        before = os.umask(umask)
        try:
            subprocess.run(["cp", "-r", "--no-preserve=all", image.folder, checkout], check=True)
        finally:
            os.umask(before)
        context = Path(workspace) / "context"
        build_images.copy_context(checkout, context, build_images.source_date_epoch(image.folder))
        command = build_images.build_command(engine, image, [tag], {})
        build_images.run_builder([*command, "--no-cache", str(context)], "hello-gbdx")


def inspect(engine: str, tag: str) -> dict[str, Any]:
    """The engine's account of an image: its configuration and the hashes of its layers."""
    template = '{"config":{{json .Config}},"layers":{{json .RootFS}},"os":{{json .Os}},"created":{{json .Created}}}'
    found: dict[str, Any] = json.loads(subprocess.check_output([engine, "image", "inspect", "--format", template, tag]))
    return found


def test_two_builds_without_a_cache_give_the_same_layers_and_settings(engine: str) -> None:
    tags = ["localhost/reproducible-first:test", "localhost/reproducible-second:test"]
    try:
        for tag, umask in zip(tags, (0o022, 0o077)):
            build_from_nothing(engine, tag, umask)
        first, second = (inspect(engine, tag) for tag in tags)
    finally:
        subprocess.run([engine, "rmi", "--force", *tags], capture_output=True, check=False)
    for name in BUILD_TIME:
        first.pop(name), second.pop(name)
    first["config"].pop("Image", None), second["config"].pop("Image", None)
    assert first == second


def test_no_file_of_the_image_is_younger_than_the_fixed_moment(engine: str) -> None:
    assert build_images.main(["hello-gbdx"]) == 0
    moment = build_images.source_date_epoch(ROOT / "hello-gbdx")
    find = f"find / -xdev -type f -newermt @{moment} ! -path '/etc/host*' ! -path /etc/resolv.conf ! -path /.dockerenv"
    command = [engine, "run", "--rm", "--network", "none", build_images.reference("hello-gbdx"), "sh", "-c", find]
    assert subprocess.run(command, capture_output=True, text=True, check=False).stdout == ""
