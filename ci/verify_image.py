#!/usr/bin/env python3
"""Builds a published image again and compares: ci/verify_image.py TASK REGISTRY/NAME@sha256:DIGEST

The image is pulled by its digest, the commit that its label names is cloned out of this checkout, and that clone builds
it anew without any cache, on this machine's own Debian base. Layers, settings and labels have to be equal; what differs
is shown, file by file. Not compared: times, where every file is the same otherwise (kind, mode, owner, content), and
the names of our own bases in the engine's store.
Exit codes: 0 equal, 1 different or not to be verified.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import build_images
from build_images import VARIANTS, BuildError
from image_graph import ROOT

OCI = "org.opencontainers.image."
REFERENCE = re.compile(r"\S+/\S+@sha256:[0-9a-f]{64}")
MOST_FILES = 20
# Every file of the image: its kind, mode, owner and link, and its hash. The engine itself puts those three into /etc.
HASHES = (
    "set -- ! -path /etc/hosts ! -path /etc/hostname ! -path /etc/resolv.conf ! -name .dockerenv; "
    'find / -xdev "$@" -printf \'%y %m %U:%G [%l]  %p\\n\'; find / -xdev -type f "$@" -exec sha256sum {} +'
)


class VerifyError(RuntimeError):
    """An image can't be compared; the message says why."""


def inspect(engine: str, reference: str) -> dict[str, Any]:
    """The engine's account of an image, which is pulled when the store doesn't have it."""
    command = [engine, "image", "inspect", reference]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        print(f"pulling {reference}", file=sys.stderr, flush=True)
        pulled = subprocess.run([engine, "pull", "--quiet", reference], capture_output=True, text=True, check=False)
        if pulled.returncode:
            raise VerifyError(f"{reference}: expected an image that can be pulled, found: {pulled.stderr.strip()}")
    found: dict[str, Any] = json.loads(subprocess.check_output(command))[0]
    return found


def clone(labels: dict[str, str], folder: Path) -> None:
    """This repository at the commit of an image's label; its address is the label's too, as it becomes one again."""
    revision, source = labels.get(OCI + "revision", ""), labels.get(OCI + "source", "")
    if not re.fullmatch("[0-9a-f]{40}", revision):
        raise VerifyError(f"label {OCI}revision: expected a commit, found {revision!r}")
    subprocess.run(["git", "clone", "--quiet", "--no-checkout", ROOT, folder], check=True)
    done = subprocess.run(["git", "-C", folder, "checkout", "--quiet", "--detach", revision], check=False)
    if done.returncode:
        raise VerifyError(f"commit {revision}: expected it in this checkout, found none; fetch it: git fetch")
    address = ["remove", "origin"] if " " in source else ["set-url", "origin", source]
    subprocess.run(["git", "-C", str(folder), "remote", *address], check=True)


def build(checkout: Path, task: str, labels: dict[str, str], registry: str) -> str:
    """Builds a task and its bases from nothing, all under names of their own; returns the task's."""
    settings = {name: labels.get(f"gbdx.build.{name.lower()}", "") for name in VARIANTS}
    environment = {**os.environ, **settings, "REGISTRY": registry, "TAG": "dev", "NO_CACHE": "1"}
    command = [sys.executable, str(checkout / "ci" / "build_images.py"), task]
    if subprocess.run(command, env=environment, check=False).returncode:
        raise VerifyError(f"{task}: commit {labels[OCI + 'revision']} could not be built: see the lines above")
    suffix = f"-{settings['BASE']}" if settings["BASE"] else ""
    return f"{registry}/{task}:dev{suffix}"


def settings_of(image: dict[str, Any]) -> dict[str, Any]:
    """What has to be equal beside the layers: the configuration, one entry for each key and each label."""
    labels = dict(image["Config"].pop("Labels") or {})
    if labels.get(OCI + "base.name", "").startswith("localhost/"):
        labels = {key: value for key, value in labels.items() if not key.startswith(OCI + "base.")}
    # `Image` is the id of the step before the last, which holds the time of its creation.
    config = {key: value for key, value in image["Config"].items() if key not in ("Image", "Hostname")}
    return {"Os": image["Os"], "Architecture": image["Architecture"], **config, **labels}


def differing_files(engine: str, published: str, rebuilt: str) -> list[str]:
    """The files that are only in one of two images, or not the same in both."""
    found = []
    for reference in (published, rebuilt):
        command = [engine, "run", "--rm", "--network", "none", "--user", "0", "--entrypoint", "sh", reference]
        listed = subprocess.check_output([*command, "-c", HASHES], text=True).splitlines()
        facts: dict[str, str] = {}
        for fact, _, path in (line.partition("  ") for line in listed):
            facts[path] = facts.get(path, "") + fact
        found.append(facts)
    first, second = found
    paths = sorted(path for path in {*first, *second} if first.get(path) != second.get(path))
    words = {(True, False): "only published", (False, True): "only rebuilt", (True, True): "differs"}
    lines = [f"file {path}: {words[path in first, path in second]}" for path in paths[:MOST_FILES]]
    return [*lines, *([f"and {len(paths) - MOST_FILES} more files"] if len(paths) > MOST_FILES else [])]


def differences(engine: str, published: str, rebuilt: str) -> list[str]:
    """What is not equal in two images: settings, labels, layers and the files in them."""
    first, second = inspect(engine, published), inspect(engine, rebuilt)
    one, other = settings_of(first), settings_of(second)
    keys = sorted(key for key in {*one, *other} if one.get(key) != other.get(key))
    found = [f"{key}: published {json.dumps(one.get(key))}, rebuilt {json.dumps(other.get(key))}" for key in keys]
    layers, rebuilt_layers = first["RootFS"]["Layers"], second["RootFS"]["Layers"]
    if layers != rebuilt_layers:
        equal = sum(a == b for a, b in zip(layers, rebuilt_layers))
        line = f"layers: published {len(layers)}, rebuilt {len(rebuilt_layers)}, equal {equal}"
        if files := differing_files(engine, published, rebuilt):
            return [*found, line, *files]
        # Builders give folders that they copy into the time of the build.
        print(f"{line}; in these only times differ, every file is the same", flush=True)
    return found


def remove(engine: str, registry: str) -> None:
    """Removes the images that were built to compare with."""
    listed = subprocess.check_output([engine, "images", "--format", "{{.Repository}}:{{.Tag}}"], text=True).split()
    ours = [name for name in listed if name.startswith(f"{registry}/")]
    subprocess.run([engine, "rmi", *ours], capture_output=True, check=False)


def main(task: str, reference: str) -> int:
    """Compares a published image with a build of its commit."""
    if not REFERENCE.fullmatch(reference):
        raise VerifyError(f"REF: expected host/name@sha256:<64 digits>, as make push printed it, found {reference!r}")
    engine = build_images.find_engine()
    labels = inspect(engine, reference)["Config"].get("Labels") or {}
    if labels.get(OCI + "title") != task:
        raise VerifyError(f"label {OCI}title: expected {task!r}, found {labels.get(OCI + 'title')!r}")
    # Names of their own: what the user builds under localhost/ stays as it is.
    registry = f"localhost/verify-{os.getpid()}"
    with tempfile.TemporaryDirectory() as workspace:
        checkout = Path(workspace) / "checkout"
        clone(labels, checkout)
        try:
            found = differences(engine, reference, build(checkout, task, labels, registry))
        finally:
            remove(engine, registry)
    commit = labels[OCI + "revision"][:12]
    if found:
        print(f"{task}: {reference} differs from a build of commit {commit}:")
        print("\n".join(f"  {line}" for line in found))
        return 1
    print(f"{task}: {reference} equals a build of commit {commit}: files, settings and labels")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(
            "verify: expected a task and an image, for example: make verify TASK=hello-gbdx REF=host/name@sha256:..."
        )
    try:
        sys.exit(main(sys.argv[1], sys.argv[2]))
    except (VerifyError, BuildError) as error:
        sys.exit(f"verify: {error}")
