#!/usr/bin/env python3
"""Builds the images that are missing or out of date: ci/build_images.py NAME ... (none: every task's).
With --stage STAGE NAME it builds a stage of an image that is never published, such as `test`, and tags it with that.

Parents first. An image is up to date when the store holds the tag `src-<hash of its sources and its parents'>`, so that
nothing is built twice, whatever the engine's cache holds. REGISTRY and TAG come from the environment (localhost, dev),
and so do NO_CACHE=1 (build all of it anew) and PLATFORM=linux/arm64 (for another processor, under a tag of its own).
Each image gets the standard OCI labels, its task's definition as a label, and DEVICE and BASE where they were given.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen

from image_graph import (
    NOT_IN_IMAGES,
    ROOT,
    GraphError,
    Image,
    declared_arguments,
    ignored_by_git,
    lineage,
    read_graph,
    source_hash,
)

LICENSE = "Apache-2.0"
DEFINITION_LABEL = "gbdx.task.definition"
# Build arguments that make another image of the same name. Given ones become labels, gbdx.build.device=cpu, which an
# image inherits from its base: what a variant was built with can be read from it.
VARIANTS = ("DEVICE", "BASE")

ONE_AT_A_TIME = threading.Lock()

# Where Debian, Red Hat, Alpine and SUSE keep the CA certificates that the machine trusts.
CA_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
)
PLATFORMS = re.compile(r'^LABEL gbdx\.image\.platforms="([^"]*)"', re.MULTILINE)
# Builders know these arguments of old and keep them out of the image's history.
PROXY_ARGUMENTS = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
EMULATION = "an engine that runs that processor's programs (package qemu-user-static) and bases for it (Docker Hub)"


class BuildError(RuntimeError):
    """An image could not be built; the message names it."""


def find_engine() -> str:
    """The engine's command line, found, or installed and started, by ci/engine.sh."""
    found = subprocess.run([ROOT / "ci" / "engine.sh"], stdout=subprocess.PIPE, text=True, check=False)
    if found.returncode:
        raise BuildError("no container engine: see the lines above")
    return found.stdout.strip()


def image_ids(engine: str, *references: str) -> list[str | None]:
    """The id of each reference in the engine's store, None for what isn't there."""
    found = []
    for reference in references:
        command = [engine, "image", "inspect", "--format", "{{.Id}}", reference]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found.append(done.stdout.strip() if done.returncode == 0 else None)
    return found


def asked_arguments() -> dict[str, str]:
    """The build arguments: REGISTRY and TAG, and DEVICE (gpu, cpu) and BASE when the environment has them."""
    asked = {name: os.environ[name] for name in VARIANTS if os.environ.get(name)}
    return {"REGISTRY": os.environ.get("REGISTRY") or "localhost", "TAG": asked_tag(), **asked}


def asked_platform() -> str:
    """PLATFORM of the environment, such as linux/arm64; empty for the engine's own.

    Raises:
        BuildError: it is none.
    """
    platform = os.environ.get("PLATFORM") or ""
    if platform and not re.fullmatch(r"linux/[a-z0-9]+(/v\d+)?", platform):
        raise BuildError(f"PLATFORM: expected one such as linux/arm64, found {platform!r}")
    return platform


def asked_tag() -> str:
    """TAG or `dev`; `dev-arm64` with PLATFORM=linux/arm64, so that images of two processors don't mix."""
    tag, platform = os.environ.get("TAG") or "dev", asked_platform()
    return "-".join([tag, *platform.split("/")[1:]])


def default_tag(name: str) -> str:
    """The asked tag; `dev-theano` for an image whose Dockerfile leaves its base open, when BASE=theano is asked for."""
    tag, base = asked_tag(), os.environ.get("BASE")
    return f"{tag}-{base}" if base and "BASE" in declared_arguments(ROOT / name / "Dockerfile") else tag


def reference(name: str, tag: str | None = None) -> str:
    """The full name of an image of ours: registry, name, tag."""
    return f"{os.environ.get('REGISTRY') or 'localhost'}/{name}:{tag or default_tag(name)}"


def source_reference(name: str, images: dict[str, Image], arguments: dict[str, str]) -> str:
    """The name that an image made of just these sources has."""
    return reference(name, f"src-{source_hash(name, images, arguments)}")


def git(*arguments: str) -> str:
    """What `git` prints about this checkout, empty where there is no git or no checkout."""
    try:
        return subprocess.run(
            ["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def revision(folder: Path) -> str:
    """The commit that a folder is built from, with `-dirty` when the folder holds something else."""
    commit = git("rev-parse", "HEAD") or "unknown"
    return commit + ("-dirty" if git("status", "--porcelain", "--", str(folder)) else "")


def read_definition(folder: Path) -> dict[str, object]:
    """The task definition in a folder, empty for a base image."""
    for path in folder.glob("*_definition.json"):
        definition: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
        return definition
    return {}


def base_description(folder: Path) -> str:
    """A base image describes itself in the first comment line of its Dockerfile."""
    first = (folder / "Dockerfile").read_text(encoding="utf-8").splitlines()[0]
    return first.lstrip("# ").rstrip() if first.startswith("#") else folder.name


def labels(engine: str, image: Image, arguments: dict[str, str]) -> dict[str, str]:
    """The OCI annotations of an image, its task's definition, and the variant that it is."""
    definition = read_definition(image.folder)
    base = reference(image.parents[0]) if image.parents else (image.external or ("scratch",))[0]
    found = {
        "title": image.name,
        "description": str(definition.get("description") or base_description(image.folder)),
        "version": str(definition.get("version") or "0.0.0"),
        "revision": revision(image.folder),
        "source": git("config", "--get", "remote.origin.url") or "a checkout without a remote",
        "licenses": LICENSE,
        "base.name": base,
        "base.digest": base_digest(engine, base),
    }
    oci = {f"org.opencontainers.image.{key}": value for key, value in found.items()}
    variant = {f"gbdx.build.{name.lower()}": arguments[name] for name in VARIANTS if name in arguments}
    return {**oci, **variant, **({DEFINITION_LABEL: json.dumps(definition)} if definition else {})}


def base_digest(engine: str, base: str) -> str:
    """The registry's digest of a base that was pulled, else its id in this store."""
    command = [engine, "image", "inspect", "--format", "{{json .RepoDigests}} {{.Id}}", base]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    digests, _, identity = done.stdout.strip().partition(" ")
    pulled = json.loads(digests or "null") or []
    return pulled[0].rpartition("@")[2] if pulled else identity


def copy_context(folder: Path, context: Path, moment: int) -> None:
    """A copy of an image folder that is the same for every checkout: git keeps no times, and few permission bits."""
    ignored = ignored_by_git(folder)

    def left_out(current: str, names: list[str]) -> list[str]:
        return [name for name in names if name in NOT_IN_IMAGES or Path(current, name) in ignored]

    shutil.copytree(folder, context, symlinks=True, ignore=left_out)
    for path in [*sorted(context.rglob("*")), context]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
        os.utime(path, (moment, moment), follow_symlinks=False)


def source_date_epoch(folder: Path) -> int:
    """The moment that a Dockerfile gives as the default of its SOURCE_DATE_EPOCH, else 1970."""
    for line in (folder / "Dockerfile").read_text(encoding="utf-8").splitlines():
        if line.startswith("ARG SOURCE_DATE_EPOCH="):
            return int(line.partition("=")[2])
    return 0


def check_platform(image: Image) -> None:
    """Refuses PLATFORM for an image whose label gbdx.image.platforms says that it is for other processors alone."""
    found = PLATFORMS.search((image.folder / "Dockerfile").read_text(encoding="utf-8"))
    asked = asked_platform()
    if asked and found and asked not in found[1].split():
        raise BuildError(f"{image.name}: expected PLATFORM={found[1]}, its label gbdx.image.platforms, found {asked}")


def build_command(engine: str, image: Image, tags: list[str], arguments: dict[str, str]) -> list[str]:
    """The engine's build command for an image, but for the context."""
    declared = declared_arguments(image.folder / "Dockerfile")
    values = {name: value for name, value in arguments.items() if name in declared or name in ("REGISTRY", "TAG")}
    platform = asked_platform()
    certificates = next((f for f in (os.environ.get("SSL_CERT_FILE") or "", *CA_FILES) if os.path.isfile(f)), None)
    return [
        *(engine, "build"),
        *(option for tag in tags for option in ("--tag", tag)),
        *(option for pair in labels(engine, image, values).items() for option in ("--label", "=".join(pair))),
        *(option for pair in values.items() for option in ("--build-arg", "=".join(pair))),
        *("--build-arg", f"SOURCE_DATE_EPOCH={source_date_epoch(image.folder)}"),
        *(("--platform", platform) if platform else ()),
        *(("--no-cache",) if os.environ.get("NO_CACHE") else ()),
        *(option for name in PROXY_ARGUMENTS if name in os.environ for option in ("--build-arg", name)),
        *(("--secret", f"id=ca,src={certificates}") if certificates else ()),
    ]


def fetch_external(engine: str, image: Image) -> None:
    """Pulls, or makes, the foreign images that an image starts from; one at a time, as two may want the same.

    For another platform the builder pulls them itself: a store may hold each name for one platform only.
    """
    if asked_platform():
        return
    with ONE_AT_A_TIME:
        for base in image.external:
            if subprocess.run([ROOT / "ci" / "debian_base.sh", engine, base], check=False).returncode:
                raise BuildError(f"{image.name}: its base {base} is not to be had: see the lines above")


def show_progress(name: str, line: str) -> None:
    """One line of a build: all of them with V=1, on a terminal the newest in place of the one before, else none."""
    if os.environ.get("V"):
        print(line, end="", file=sys.stderr)
    elif sys.stderr.isatty():
        text = f"{name}: {line.strip()}" if line else ""
        print(f"\r\033[K{text[: shutil.get_terminal_size().columns - 1]}", end="", file=sys.stderr, flush=True)


def run_builder(command: list[str], name: str) -> None:
    """Runs a build; when it fails, the end of what it printed is shown."""
    environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
    newest: deque[str] = deque(maxlen=40)
    with Popen(command, env=environment, stdout=PIPE, stderr=STDOUT, text=True, errors="replace") as builder:
        for line in builder.stdout or ():
            newest.append(line)
            show_progress(name, line)
    show_progress(name, "")
    if builder.returncode:
        print("".join(newest), file=sys.stderr)
        hint = f"; PLATFORM={asked_platform()} needs {EMULATION}" if asked_platform() else ""
        raise BuildError(f"{name}: the build failed: see the lines above{hint}")


def build(engine: str, image: Image, tags: list[str], arguments: dict[str, str]) -> None:
    """Builds one image from a normalised copy of its folder."""
    check_platform(image)
    fetch_external(engine, image)
    print(f"building {tags[-1]}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as workspace:
        context = Path(workspace) / image.name
        copy_context(image.folder, context, source_date_epoch(image.folder))
        run_builder([*build_command(engine, image, tags, arguments), str(context)], image.name)


def ensure(engine: str, name: str, images: dict[str, Image], arguments: dict[str, str]) -> None:
    """Brings one image up to date: nothing to do, a tag to move, or a build."""
    current, wanted = source_reference(name, images, arguments), reference(name)
    current_id, wanted_id = image_ids(engine, current, wanted)
    if current_id is None or os.environ.get("NO_CACHE"):
        start = time.monotonic()
        build(engine, images[name], [current, wanted], arguments)
        print(f"built {wanted} in {time.monotonic() - start:.0f} s", file=sys.stderr)
    elif current_id != wanted_id:
        subprocess.run([engine, "tag", current, wanted], check=True)


def ensure_all(engine: str, needed: list[str], images: dict[str, Image], arguments: dict[str, str]) -> None:
    """Brings images up to date, parents first, two at a time: one downloads while another unpacks."""
    builds: dict[str, Future[None]] = {}

    def after_parents(name: str) -> None:
        for parent in images[name].parents:
            builds[parent].result()
        ensure(engine, name, images, arguments)

    # Parents come first in `needed`, so that whatever waits here waits for a build that has begun.
    with ThreadPoolExecutor(max_workers=2) as pool:
        for name in needed:
            builds[name] = pool.submit(after_parents, name)
    for build_done in builds.values():
        build_done.result()


def bring_up_to_date(engine: str, names: list[str]) -> None:
    """Builds `names` (all tasks when there are none) and what they are built from, where that is missing or stale."""
    arguments = asked_arguments()
    images = read_graph(arguments=arguments)
    wanted = names or [name for name, image in images.items() if image.is_task]
    needed = {image.name for name in wanted for image in lineage(name, images)}
    ensure_all(engine, [name for name in images if name in needed], images, arguments)


def build_stage(engine: str, name: str, stage: str) -> str:
    """Brings an image up to date and builds another stage of its Dockerfile; the stage's tag."""
    bring_up_to_date(engine, [name])
    arguments = asked_arguments()
    image, tag = read_graph(arguments=arguments)[name], f"localhost/{name}:{stage}"
    with tempfile.TemporaryDirectory() as workspace:
        context = Path(workspace) / name
        copy_context(image.folder, context, source_date_epoch(image.folder))
        command = build_command(engine, image, [tag], arguments)
        run_builder([*command, "--target", stage, str(context)], f"{name}, stage {stage}")
    return tag


def main(arguments: list[str]) -> int:
    """Finds an engine and brings the images up to date, or builds the stage that --stage names."""
    if arguments[:1] == ["--stage"]:
        if len(arguments) != 3:
            raise BuildError(f"expected --stage STAGE NAME, found {' '.join(arguments)}")
        _, stage, name = arguments
        build_stage(find_engine(), name, stage)
    else:
        bring_up_to_date(find_engine(), arguments)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (BuildError, GraphError) as error:
        sys.exit(f"build: {error}")
