#!/usr/bin/env python3
"""What the CI has to do, as a matrix for its jobs: one line, `matrix={"include": [...]}`, for $GITHUB_OUTPUT.

    ci/job_matrix.py                             all tasks
    SINCE=<git revision> ci/job_matrix.py        the tasks that changes since then touch; zeros (a new branch): all
    RELEASE=hello-gbdx-0.2.0 ci/job_matrix.py    the task of a release's tag, whose definition has to have that version

Each entry has a task, the variant (device), its runner, and whether this variant is the one to register. With
GPU_RUNNER=true, for those who have such a runner, a GPU task is there a second time, on the card, to be registered so.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

from card_options import wants_card
from image_graph import GraphError, Image, affected, changed_files, read_graph
from task_inputs import read_definition

RUNNER = ["ubuntu-24.04"]
GPU_RUNNER = ["self-hosted", "linux", "gpu"]
TAG = re.compile(r"(?P<task>.+)-(?P<version>\d+\.\d+\.\d+)")


class MatrixError(ValueError):
    """A tag that is no release's; the message says what was expected."""


def released(tag: str, images: dict[str, Image]) -> str:
    """The task that a tag such as hello-gbdx-0.2.0 releases."""
    found = TAG.fullmatch(tag)
    if not found or not (found["task"] in images and images[found["task"]].is_task):
        raise MatrixError(f"tag {tag!r}: expected <task>-<version>, such as hello-gbdx-0.2.0")
    version = read_definition(images[found["task"]].folder).get("version")
    if version != found["version"]:
        raise MatrixError(f"tag {tag!r}: expected the version of {found['task']}'s definition, {version}")
    return found["task"]


def entries(names: list[str], images: dict[str, Image], gpu: bool) -> Iterator[dict[str, Any]]:
    """A job for each task, and one on the card for each GPU task where there is a runner that has one."""
    for name in names:
        if images[name].is_task:
            on_card = gpu and wants_card(read_definition(images[name].folder))
            yield {"task": name, "device": "cpu", "runner": RUNNER, "register": not on_card}
            if on_card:
                yield {"task": name, "device": "gpu", "runner": GPU_RUNNER, "register": True}


def main() -> int:
    """Prints the matrix that the environment asks for."""
    images = read_graph()
    since, release = os.environ.get("SINCE") or "", os.environ.get("RELEASE")
    if release:
        names = [released(release, images)]
    else:
        names = affected(changed_files(since), images) if since.strip("0") else list(images)
    jobs = list(entries(names, images, os.environ.get("GPU_RUNNER") == "true"))
    print(f"matrix={json.dumps({'include': jobs})}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (MatrixError, GraphError) as error:
        sys.exit(f"matrix: {error}")
