#!/usr/bin/env python3
"""Tests a task's image and pushes it: REGISTRY=registry.example.org/team ci/push_images.py NAME ... (none: all tasks)

The tags are the definition's version and the commit; a variant adds its name: 0.1.0-cpu, 0.1.0-theano. Only what is
committed is pushed, and only the very image that has just passed its container tests: what needs a card is refused
where there is none to test it on. Logging in is the engine's business (`docker login`). The digest that the registry
answers is printed, and written to .make/pushed/NAME.json, where `make register` reads it. Runs in .venv.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import build_images
from build_images import BuildError
from card_options import card_problem, wants_card
from image_graph import ROOT, GraphError, Image, declared_arguments, lineage, read_graph

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


def declares(argument: str, image: Image, images: dict[str, Image]) -> bool:
    """Whether a build argument makes another image of this one: its Dockerfile or a parent's asks for it."""
    return any(argument in declared_arguments(one.folder / "Dockerfile") for one in lineage(image.name, images))


def variant(image: Image, images: dict[str, Image]) -> str:
    """What the tag of a variant ends with, as BASE, DEVICE and PLATFORM ask for it: `-theano-cpu`; empty for none."""
    base = os.environ.get("BASE") if declares("BASE", image, images) else None
    device = "cpu" if os.environ.get("DEVICE") == "cpu" and declares("DEVICE", image, images) else None
    processor = build_images.asked_platform().split("/")[1:]
    return "".join(f"-{part}" for part in (base, device, *processor) if part)


def uncommitted(image: Image, images: dict[str, Image]) -> list[str]:
    """Files that an image is made of, its parents' included, that are not as committed."""
    folders = [str(ancestor.folder) for ancestor in lineage(image.name, images)]
    listed = build_images.git("status", "--porcelain", "--", *folders, "ci/build_images.py")
    return [line.split(maxsplit=1)[1] for line in listed.splitlines()]


def problems(image: Image, images: dict[str, Image]) -> list[str]:
    """Why an image can't be pushed from here: not to be built again from a commit, or not to be tested."""
    found = []
    if not build_images.git("rev-parse", "HEAD"):
        found.append("expected a git checkout with a commit, found none")
    if changed := uncommitted(image, images):
        found.append(f"expected a clean working tree, found changes in {', '.join(changed)}")
    definition = build_images.read_definition(image.folder)
    version = str(definition.get("version") or "")
    if not SEMANTIC_VERSION.fullmatch(version):
        found.append(f"expected a version such as 1.2.3 in its definition, found {version!r}")
    if declares("DEVICE", image, images) and card_problem(definition, os.environ["DEVICE"]):
        found.append(
            "expected an NVIDIA card to test its GPU variant on before it is pushed, found none; "
            f"the processor's variant, {version}-cpu: make push TASK={image.name} DEVICE=cpu REGISTRY=..."
        )
    return [f"{image.name}: {problem}" for problem in found]


def build_from_commit(engine: str, image: Image, images: dict[str, Image]) -> str:
    """Brings an image up to date, made new when its files were not yet committed then; returns its id."""
    build_images.bring_up_to_date(engine, [image.name])
    source = build_images.reference(image.name)
    template = '{{index .Config.Labels "org.opencontainers.image.revision"}}'
    command = [engine, "image", "inspect", "--format", template, source]
    if subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip().endswith("-dirty"):
        arguments = build_images.asked_arguments()
        build_images.build(
            engine, image, [build_images.source_reference(image.name, images, arguments), source], arguments
        )
    return str(build_images.image_ids(engine, source)[0])


def run_container_tests(engine: str, image: Image, identity: str) -> None:
    """Runs the container tests of one task; what they tested is the image with this id, or they count for nothing."""
    definition = build_images.read_definition(image.folder)
    on_card = os.environ["DEVICE"] == "gpu" and wants_card(definition)
    tests = ["ci/tests/test_container_contract.py", *(["ci/tests/test_graphics_card.py"] if on_card else [])]
    print(f"testing {image.name}", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not theano", *tests, "--task", image.name]
    # Where a card is wanted no test may be skipped for want of one.
    environment = {**os.environ, "REQUIRE_GPU": "1" if on_card else ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=sys.stderr, check=False)
    if done.returncode:
        raise PushError(f"{image.name}: its container tests failed: see the lines above")
    if build_images.image_ids(engine, build_images.reference(image.name)) != [identity]:
        raise PushError(f"{image.name}: it was built anew while it was tested: push again")


def push_to_registry(engine: str, source: str, target: str) -> str:
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


def push_image(engine: str, registry: str, image: Image, images: dict[str, Image]) -> str:
    """Builds, tests and pushes one task's image, and records where it went; returns its reference by digest."""
    definition = build_images.read_definition(image.folder)
    commit, suffix = build_images.git("rev-parse", "HEAD"), variant(image, images)
    identity = build_from_commit(engine, image, images)
    run_container_tests(engine, image, identity)
    push_to_registry(engine, identity, f"{registry}/{image.name}:{commit[:12]}{suffix}")
    digest = push_to_registry(engine, identity, f"{registry}/{image.name}:{definition['version']}{suffix}")
    record = {"task": image.name, "revision": commit, "image": digest, "definition": definition}
    PUSHED.mkdir(parents=True, exist_ok=True)
    (PUSHED / f"{image.name}{suffix}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return digest


def main(names: list[str]) -> int:
    """Pushes the tasks that are named, all when none is; nothing is pushed when one of them can't be."""
    registry = target_registry()
    # What is tested and pushed is the local build, the registry's name is only put before it. DEVICE is said, since
    # the tests would otherwise build the processor's variant, and test another than is pushed.
    os.environ.update(REGISTRY="localhost", DEVICE=os.environ.get("DEVICE") or "gpu")
    images = read_graph(arguments=build_images.asked_arguments())
    wanted = [lineage(name, images)[-1] for name in names] or [image for image in images.values() if image.is_task]
    if found := [problem for image in wanted for problem in problems(image, images)]:
        raise PushError("\npush: ".join(found))
    engine = build_images.find_engine()
    for image in wanted:
        print(push_image(engine, registry, image, images), flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (PushError, BuildError, GraphError) as error:
        sys.exit(f"push: {error}")
