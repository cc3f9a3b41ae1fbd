#!/usr/bin/env python3
"""Registers a task, its version bound to the digest that was pushed, with a gbdx-platform: ci/register_task.py TASK

GBDX_URL and GBDX_TOKEN name the platform; without them it is the one that this user started on this machine. `make
push` leaves the digest in .make/pushed; DEVICE and BASE choose a variant as they did there. A version that the platform
has with this very image is left as it is, with another image it is refused. A task that was not pushed can only be
registered on this machine's own platform, which runs the local image. Runs in .venv.
"""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from card_options import wants_card
from image_graph import ROOT, GraphError, lineage, read_graph
from push_images import PUSHED, variant
from task_definition import DefinitionError, load_definition, problems, with_defaults

Definition = dict[str, Any]


class RegisterError(RuntimeError):
    """A task can't be registered; the message says why."""


def checked_definition(folder: Path) -> Definition:
    """The definition in a task's folder.

    Raises:
        RegisterError: all its errors.
    """
    path = folder / f"{folder.name}_definition.json"
    try:
        definition = load_definition(path)
    except DefinitionError as error:
        raise RegisterError(f"{path.name}: {error}") from None
    if errors := [str(problem) for problem in problems(definition) if problem.severity == "error"]:
        raise RegisterError("\nregister: ".join(f"{path.name}: {error}" for error in errors))
    return definition


def pushed_image(record: Path, definition: Definition) -> str:
    """The reference by digest that was pushed of this very definition.

    Raises:
        RegisterError: nothing was pushed, or another definition was.
    """
    if not record.is_file():
        raise RegisterError(f"{record.stem}: expected the digest of a pushed image, found none")
    pushed = json.loads(record.read_text(encoding="utf-8"))
    if pushed["definition"] != definition:
        keys = ", ".join(differing_keys(pushed["definition"], definition))
        raise RegisterError(f"{record.stem}: expected the definition as it was pushed, found another {keys}")
    return str(pushed["image"])


def differing_keys(one: Definition, other: Definition) -> list[str]:
    """The top-level keys in which two definitions differ."""
    return sorted(key for key in {*one, *other} if one.get(key) != other.get(key))


def with_image(definition: Definition, image: str, **more: str) -> Definition:
    """A copy of a definition whose container has another image, and `more` properties."""
    container = definition["containerDescriptors"][0]
    properties = {**container.get("properties", {}), "image": image, **more}
    return {**definition, "containerDescriptors": [{**container, "properties": properties}]}


def bound(definition: Definition, image: str) -> Definition:
    """A definition bound to what was pushed. The processor's variant of a GPU task needs no card, and asks for none."""
    if wants_card(definition) and os.environ.get("DEVICE") == "cpu":
        found = with_image(definition, image, domain="default")
        found["containerDescriptors"][0]["type"] = "DOCKER"
        return found
    return with_image(definition, image)


def image_of(definition: Definition) -> str:
    """The image that a definition names."""
    return str(definition["containerDescriptors"][0]["properties"]["image"])


def on_this_machine() -> bool:
    """Whether the platform is this machine's own, which has this machine's images."""
    host = urlsplit(os.environ.get("GBDX_URL") or "http://localhost").hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def platform(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """One command of gbdx-platform, installed when it is missing."""
    installed = subprocess.run([ROOT / "gbdx-platform" / "install.sh"], stdout=subprocess.PIPE, text=True, check=False)
    if installed.returncode:
        raise RegisterError("expected the command gbdx-platform, found that it can't be installed: see above")
    command = [installed.stdout.strip(), *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


def difference(registered: Definition, wanted: Definition) -> list[str]:
    """What is registered under a version and what was to be, where they differ."""
    found = []
    if image_of(registered) != image_of(wanted):
        found.append(f"image: registered {image_of(registered)}, pushed {image_of(wanted)}")
        registered = with_image(registered, image_of(wanted))
    for key in differing_keys(registered, wanted):
        found.append(f"{key}: registered {json.dumps(registered.get(key))}, here {json.dumps(wanted.get(key))}")
    return found


def register(definition: Definition) -> str:
    """Registers a definition that names its image by digest; returns what the platform says.

    Raises:
        RegisterError: the platform refuses it, or has another image or definition under this version.
    """
    done = platform("register", "-", text=json.dumps(definition))
    if done.returncode == 0:
        return done.stdout.strip()
    task_type = f"{definition['name']}:{definition.get('version')}"
    described = platform("describe", task_type)
    if described.returncode:
        raise RegisterError(f"{task_type}: the platform refused it: {done.stderr.strip()}")
    if lines := difference(json.loads(described.stdout), with_defaults(definition)):
        listed = "\n  ".join(lines)
        raise RegisterError(
            f"{task_type} is registered already, with another content; raise the definition's version and push it\n"
            f"  {listed}"
        )
    return f"{task_type} is registered already, with this image."


def main(task: str) -> int:
    """Registers the pushed image of a task, or the local one when nothing was pushed and the platform is local."""
    images = read_graph()
    image = lineage(task, images)[-1]
    definition = checked_definition(image.folder)
    try:
        pushed = pushed_image(PUSHED / f"{task}{variant(image, images)}.json", definition)
    except RegisterError as error:
        if not on_this_machine():
            raise RegisterError(f"{error}; push it first: make push TASK={task} REGISTRY=...") from None
        print(f"register: {error}: using the local image, for this machine alone", file=sys.stderr)
        return subprocess.run([ROOT / "gbdx-platform" / "register.sh", task], check=False).returncode
    print(register(bound(definition, pushed)))
    print(f"{task}:{definition['version']} is {pushed}")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1]:
        sys.exit("register: expected the name of a task, for example: make register TASK=hello-gbdx")
    try:
        sys.exit(main(sys.argv[1]))
    except (RegisterError, GraphError) as error:
        sys.exit(f"register: {error}")
