#!/usr/bin/env python3
"""Pushes a task's image under its version and its commit: REGISTRY=registry.example.org/team ci/push_images.py NAME ...

`make push` runs the container tests first. Only what is committed is pushed: an image whose folder, or whose parent's,
holds anything else is refused. Logging in is the engine's business (`docker login`). The digest that the registry
answers is printed, and written to .make/pushed/NAME.json, where `make register` reads it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import build_images
from build_images import BuildError
from image_graph import ROOT, GraphError, Image, lineage, read_graph

PUSHED = ROOT / ".make" / "pushed"
SEMANTIC_VERSION = re.compile(r"\d+\.\d+\.\d+")


class PushError(RuntimeError):
    """An image can't be pushed as it is; the message says why."""


def target_registry() -> str:
    """The registry from the environment; this machine's own store is none."""
    registry = os.environ.get("REGISTRY") or ""
    if registry in ("", "localhost"):
        raise PushError("expected REGISTRY=host/path, found none; for example: make push TASK=hello-gbdx REGISTRY=...")
    return registry.rstrip("/")


def uncommitted(image: Image, images: dict[str, Image]) -> list[str]:
    """Files that an image is made of, its parents' included, that are not as committed."""
    folders = [str(ancestor.folder) for ancestor in lineage(image.name, images)]
    listed = build_images.git("status", "--porcelain", "--", *folders, "ci/build_images.py")
    return [line.split(maxsplit=1)[1] for line in listed.splitlines()]


def check(image: Image, images: dict[str, Image]) -> None:
    """Refuses what couldn't be built again from a commit."""
    if not build_images.git("rev-parse", "HEAD"):
        raise PushError(f"{image.name}: expected a git checkout with a commit, found none")
    if changed := uncommitted(image, images):
        raise PushError(f"{image.name}: expected a clean working tree, found changes in {', '.join(changed)}")
    version_of(image)


def version_of(image: Image) -> str:
    """The version that the task's definition gives."""
    version = str(build_images.read_definition(image.folder).get("version") or "")
    if not SEMANTIC_VERSION.fullmatch(version):
        raise PushError(f"{image.name}: expected a version such as 1.2.3 in its definition, found {version!r}")
    return version


def built_from_commit(engine: str, image: Image, images: dict[str, Image]) -> str:
    """The image's reference in the engine's store, made new when it was built from uncommitted files."""
    source = build_images.reference(image.name)
    arguments = build_images.asked_arguments()
    template = '{{index .Config.Labels "org.opencontainers.image.revision"}}'
    command = [engine, "image", "inspect", "--format", template, source]
    if subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip().endswith("-dirty"):
        for ancestor in lineage(image.name, images):
            build_images.build(engine, ancestor, [build_images.reference(ancestor.name)], arguments)
    return source


def push(engine: str, source: str, target: str) -> str:
    """Tags and pushes an image; returns the digest that the registry gave it."""
    subprocess.run([engine, "tag", source, target], check=True)
    done = subprocess.run([engine, "push", target], capture_output=True, text=True, check=False)
    if done.returncode:
        raise PushError(f"{target}: the registry refused it: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
    found = subprocess.run(
        [engine, "image", "inspect", "--format", "{{json .RepoDigests}}", target],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    repository = target.rpartition(":")[0]
    names: list[str] = json.loads(found.stdout)
    digests = [name for name in names if name.startswith(repository + "@")]
    if not digests:
        raise PushError(f"{target}: expected a digest from the registry, found none")
    return digests[-1]


def push_image(engine: str, registry: str, image: Image, images: dict[str, Image]) -> dict[str, str]:
    """Pushes one task's image, records where it went, and returns the record."""
    commit, version = build_images.git("rev-parse", "HEAD"), version_of(image)
    source = built_from_commit(engine, image, images)
    push(engine, source, f"{registry}/{image.name}:{commit[:12]}")
    digest = push(engine, source, f"{registry}/{image.name}:{version}")
    record = {"task": image.name, "version": version, "revision": commit, "image": digest}
    PUSHED.mkdir(parents=True, exist_ok=True)
    Path(PUSHED / f"{image.name}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return record


def main(names: list[str]) -> int:
    """Pushes the tasks that are named, all when none is."""
    registry = target_registry()
    # What is tested and pushed is the local build: the registry's name is only put before it.
    os.environ.update(REGISTRY="localhost", TAG="dev")
    images = read_graph(arguments=build_images.asked_arguments())
    wanted = names or [name for name, image in images.items() if image.is_task]
    for name in wanted:
        check(images[name], images)
    build_images.main(wanted)
    engine = build_images.find_engine()
    for name in wanted:
        print(push_image(engine, registry, images[name], images)["image"])
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (PushError, BuildError, GraphError) as error:
        sys.exit(f"push: {error}")
