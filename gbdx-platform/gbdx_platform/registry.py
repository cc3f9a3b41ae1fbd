"""The registry's rules: definitions without errors, versions that rise, images bound to their digest, owners."""

from __future__ import annotations

import json
import shlex
import threading
from typing import Any

from starlette.exceptions import HTTPException

from gbdx_platform.containers import ImageError, bind_image
from gbdx_platform.database import TASKS, Row, Store, version_key
from gbdx_platform.task_definition import Problem, container, container_properties, problems, quoted, with_defaults
from gbdx_platform.workflow_request import STAGING, RequestError

FIRST_VERSION = "0.0.1"
# Of a definition, as JSON: each port is held against each other.
LARGEST = 2**18
# Between the look at a name's owner and versions and the new row, no other registration may come.
REGISTERING = threading.Lock()


def checked(definition: Any) -> Row:
    """A definition with its defaults filled in.

    Raises:
        RequestError: all its errors.
    """
    if (size := len(json.dumps(definition))) > LARGEST:
        raise RequestError([Problem("definition", f"at most {LARGEST} characters of JSON", str(size))])
    errors = [problem for problem in problems(definition) if problem.severity == "error"] or unrunnable(definition)
    if errors:
        raise RequestError(errors)
    return with_defaults(definition)


def unrunnable(definition: Row) -> list[Problem]:
    """What the schema allows and this service does not take."""
    found = []
    command, kind = container(definition).get("command") or "", container(definition).get("type")
    # In small letters, as the name is looked for: they may be more.
    lengths = {"name": (len(definition["name"].lower()), 200), "version": (len(definition.get("version") or ""), 64)}
    for key, (length, most) in lengths.items():
        if length > most:
            found.append(Problem(key, f"at most {most} characters", str(length)))
    if kind not in ("DOCKER", "GPUDOCKER"):
        found.append(Problem("containerDescriptors[0].type", "DOCKER or GPUDOCKER to run here", quoted(kind)))
    try:
        shlex.split(command)
    except ValueError as error:
        expected = f"a command line ({str(error).lower()})"
        found.append(Problem("containerDescriptors[0].command", expected, quoted(command)))
    return found


def row_of(definition: Row, owner: str, version: str) -> Row:
    """The registry's row of a definition, its image bound.

    Raises:
        RequestError: the image is not to be had.
    """
    reference = container_properties(definition)["image"]
    try:
        image = bind_image(reference)
    except ImageError as error:
        expected = "an image in the engine's store or one that can be pulled"
        raise RequestError([Problem("containerDescriptors[0].properties.image", expected, str(error))]) from None
    return {
        "key": definition["name"].lower(), "version": version, "owner": owner, "definition": definition,
        "public": bool(definition["properties"].get("isPublic")), "image_id": image.id,
        "entrypoint": image.entrypoint, "command": image.command,
    }  # fmt: skip


def register(store: Store, definition: Any, owner: str) -> str:
    """Registers a definition, returns its name.

    Raises:
        RequestError: the definition's errors. HTTPException: it exists, or its version doesn't rise.
    """
    definition = checked(definition)
    name, version = definition["name"], definition.get("version") or FIRST_VERSION
    row = row_of(definition, owner, version)  # first, as a pull takes minutes
    with REGISTERING:
        newest = next(iter(store.versions(name)), None)
        if newest and newest["owner"] != owner:
            raise HTTPException(409, f"task {name!r} exists already and is another account's")
        if newest and version_key(version) <= version_key(newest["version"]):
            expected = f"expected a version above {newest['version']}, found {version}"
            raise HTTPException(409, f"task {name!r} exists already: {expected}")
        store.write(TASKS.insert().values(**row))
    return str(name)


def named(store: Store, task_type: str) -> list[Row]:
    """The rows that `name` or `name:version` means, the newest first, whosever they are."""
    name, _, version = task_type.partition(":")
    return [row for row in store.versions(name) if not version or row["version"] == version]


def find(store: Store, task_type: str, account: str) -> Row | None:
    """The row that `name` or `name:version` means to an account; None when there is none that it may use.

    Where none is registered, StageDataToS3 is the service's own.
    """
    rows = named(store, task_type)
    own = STAGING if task_type.partition(":")[0] == STAGING["definition"]["name"] else None
    return next((row for row in rows if row["public"] or row["owner"] == account), own)


def owned(store: Store, task_type: str, account: str, missing: int) -> list[Row]:
    """The versions that `name` or `name:version` means, all of them the account's own.

    Raises:
        HTTPException: there is none (status `missing`), or it is another account's.
    """
    rows = named(store, task_type)
    mine = [row for row in rows if row["owner"] == account]
    if not mine and any(row["public"] for row in rows):
        raise HTTPException(403, f"task {task_type!r} is another account's")
    if not mine:
        raise HTTPException(missing, f"task {task_type!r} is not registered")
    return mine


def update(store: Store, task_type: str, definition: Any, account: str) -> Row:
    """Replaces the definition of one version; returns it with defaults.

    Raises:
        RequestError, HTTPException.
    """
    row = owned(store, task_type, account, 404)[0]
    filled = checked(definition)
    version = filled.get("version") or row["version"]
    if filled["name"].lower() != row["key"] or version != row["version"]:
        expected = f"the name and version of the address, {row['key']}:{row['version']}"
        raise RequestError([Problem("name", expected, f"{filled['name']}:{version}")])
    changed = row_of(filled, account, version)
    place = (TASKS.c.key == row["key"], TASKS.c.version == row["version"], TASKS.c.owner == account)
    if not store.write(TASKS.update().where(*place).values(**changed)):
        raise HTTPException(404, f"task {task_type!r} was deleted a moment ago")
    return filled


def delete(store: Store, task_type: str, account: str) -> str:
    """Deletes a task, all versions when none is named; returns its name.

    Raises:
        HTTPException.
    """
    rows = owned(store, task_type, account, 400)
    keys = [row["version"] for row in rows]
    place = (TASKS.c.key == rows[0]["key"], TASKS.c.version.in_(keys), TASKS.c.owner == account)
    store.write(TASKS.delete().where(*place))
    return str(rows[0]["definition"]["name"])
