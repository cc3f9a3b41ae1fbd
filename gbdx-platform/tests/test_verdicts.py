"""The repository's misbehaving tasks: the service comes to the verdict that `make run` comes to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from gbdx_platform import containers
from live_service import IMAGE, ROOT, Service, Session, port, task

FIXTURES = ROOT / "ci" / "tests" / "misbehaving_tasks"
TIMEOUTS = {"outlives-timeout": 2, "ignores-sigterm": 3, "forks-without-end": 4}
# The limits under which the repository's own table of verdicts holds.
LIMITS = {
    "GBDX_TASK_MEMORY": str(64 * 2**20),
    "GBDX_TASK_DISK": str(20 * 2**20),
    "GBDX_TASK_PROCESSES": "32",
    "GBDX_TASK_TMP": "16m",
}
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


def registered(session: Session, name: str, image: str) -> None:
    """Registers a fixture, completed to what a registry takes."""
    found: dict[str, Any] = json.loads((FIXTURES / name / f"{name}_definition.json").read_text())
    found.setdefault("inputPortDescriptors", [port("unused", "string", required=False)])
    found["containerDescriptors"][0]["properties"] = {"image": image}
    session.register(found)


@pytest.fixture(scope="module")
def ends(hello_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Any]]]:
    """Fixture -> its workflow, complete: all run at once."""
    image = f"{IMAGE}-misbehaving"
    context = tmp_path_factory.mktemp("context")
    (context / "Dockerfile").write_text(f"FROM {IMAGE}\nCOPY *.py /\n")
    for path in FIXTURES.glob("*/*.py"):
        (context / path.name).write_bytes(path.read_bytes())
    built = containers.call("build", "--tag", image, str(context), timeout=300)
    assert built.returncode == 0, built.stderr
    service = Service(tmp_path_factory.mktemp("limited"), **LIMITS, GBDX_SLOTS="6", GBDX_WORKFLOWS="12")
    service.start()
    session = Session(service.client())
    data = session.put("in/data_file.txt", b"theirs")
    ids = {}
    for name in sorted(documented(), key=lambda name: name not in TIMEOUTS):
        registered(session, name, image)
        asks = "inputPortDescriptors" in (FIXTURES / name / f"{name}_definition.json").read_text()
        more = {"timeout": TIMEOUTS[name]} if name in TIMEOUTS else {}
        ids[name] = session.launch(task(name, name, {"data_in": data} if asks else {}, **more))
    yield {name: session.wait(workflow) for name, workflow in ids.items()}
    assert session.text("in/data_file.txt") == "theirs"
    service.stop()
    containers.call("rmi", image)


@pytest.mark.parametrize("name", documented())
def test_a_misbehaving_task_gets_the_same_verdict_as_under_make_run(name: str, ends: dict[str, dict[str, Any]]) -> None:
    verdict, only = documented()[name], ends[name]["tasks"][0]
    assert only["state"] == {"state": "complete", "event": EVENTS.get(verdict, "failed")}, only["note"]
    said = re.match(r"(broken contract|over limit): ", only["note"])
    assert (said[1] if said else "") == (verdict if verdict in ("broken contract", "over limit") else ""), only["note"]
