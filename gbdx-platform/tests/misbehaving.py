"""The repository's misbehaving tasks, as tasks of the platform."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gbdx_platform import containers
from live_service import IMAGE, ROOT, Session, port, task

FIXTURES = ROOT / "ci" / "tests" / "misbehaving_tasks"
TIMEOUTS = {"outlives-timeout": 2, "ignores-sigterm": 3, "forks-without-end": 4}
EVENTS = {"success": "succeeded", "timedout": "timedout"}


def documented() -> dict[str, str]:
    """Fixture -> verdict, out of the table in the fixtures' README."""
    rows = [
        line.strip("|").split("|")
        for line in (FIXTURES / "README.md").read_text().splitlines()
        if re.match(r"\| [a-z ]+ \| \d", line)
    ]
    return {
        name: cells[0].strip()
        for cells in rows
        for name in re.findall("`([^`]+)`", cells[3])
        if (FIXTURES / name).is_dir()
    }


@contextlib.contextmanager
def image(context: Path) -> Iterator[str]:
    """The image that holds all their scripts, built in an empty folder."""
    name = f"{IMAGE}-misbehaving"
    (context / "Dockerfile").write_text(f"FROM {IMAGE}\nCOPY *.py /\n")
    for path in FIXTURES.glob("*/*.py"):
        (context / path.name).write_bytes(path.read_bytes())
    built = containers.call("build", "--tag", name, str(context), timeout=300)
    assert built.returncode == 0, built.stderr
    yield name
    containers.call("rmi", name)


def registered(session: Session, name: str, image_name: str, data: str) -> dict[str, Any]:
    """Registers a fixture, completed to what a registry takes; returns it as the task of a workflow."""
    text = (FIXTURES / name / f"{name}_definition.json").read_text()
    found: dict[str, Any] = json.loads(text)
    found.setdefault("inputPortDescriptors", [port("unused", "string", required=False)])
    found["containerDescriptors"][0]["properties"] = {"image": image_name}
    session.register(found)
    more = {"timeout": TIMEOUTS[name]} if name in TIMEOUTS else {}
    return task(name, name, {"data_in": data} if "inputPortDescriptors" in text else {}, **more)


def check_end(name: str, ended: dict[str, Any]) -> None:
    """Holds what became of a fixture's task against its documented verdict."""
    verdict = documented()[name]
    assert ended["state"] == {"state": "complete", "event": EVENTS.get(verdict, "failed")}, ended["note"]
    said = re.match(r"(broken contract|over limit): ", ended["note"])
    assert (said[1] if said else "") == (verdict if verdict in ("broken contract", "over limit") else ""), ended["note"]
