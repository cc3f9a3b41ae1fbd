"""Kills the service at random points, again and again: nothing is lost, nothing stays running. Minutes; not collected
by default:

    python -m pytest gbdx-platform/tests/check_crashes.py        (KILLS=50, SEED=1)
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

from gbdx_platform import containers
from live_service import API, IMAGE, Service, Session, definition, port, script, task


def registered(session: Session) -> None:
    """A task that writes a file and a string, and takes both."""
    text = (
        "import shutil\ntime.sleep(0.3)\nos.makedirs(work + 'output/out')\n"
        "open(work + 'output/out/file.txt', 'w').write('kept')\nstrings['b'] = 'B'"
    )
    ports = [port("a", "string", required=False), port("data", required=False)], [port("b", "string"), port("out")]
    session.register(definition("crash", *ports, script(text)))


def launched(session: Session, number: int) -> str:
    """A chain of three whose outputs are all kept."""
    places = [{"out": f"kept/{number}/{name}"} for name in ("one", "two", "three")]
    return session.launch(
        task("one", "crash", {"a": "x"}, places[0]),
        task("two", "crash", {"data": ("one:out",)}, places[1]),
        task("three", "crash", {"a": ("two:b",)}, places[2]),
    )


def test_a_service_that_is_killed_at_random_loses_nothing(hello_image: str, tmp_path: Path) -> None:
    kills, chance = int(os.environ.get("KILLS", "50")), random.Random(int(os.environ.get("SEED", "1")))  # noqa: S311
    service = Service(tmp_path)
    service.start()
    session = Session(service.client())
    registered(session)
    ends: dict[str, int] = {}
    workflows: dict[str, int] = {}
    try:
        for number in range(kills):
            for offset in range(2):
                workflows[launched(session, 2 * number + offset)] = 2 * number + offset
            time.sleep(chance.uniform(0, 10))
            service.kill()
            service.start()
            session = Session(service.client())
        for workflow, number in workflows.items():
            found = session.wait(workflow)
            ends[found["state"]["event"]] = ends.get(found["state"]["event"], 0) + 1
            for one in found["tasks"]:
                assert one["state"]["state"] == "complete"
                if one["state"]["event"] == "succeeded":
                    assert session.text(f"kept/{number}/{one['name']}/file.txt") == "kept"
                else:
                    assert one["note"], found
        assert len(workflows) == 2 * kills == sum(ends.values())
        assert set(session.http.get(f"{API}/workflows").json()["workflows"]) == set(workflows)
        assert session.http.get(f"{API}/tasks/crash").json()["containerDescriptors"][0]["properties"]["image"] == IMAGE
        print(f"\n{kills} kills, {len(workflows)} workflows: {ends}")
    finally:
        service.stop()
    mark = (tmp_path / "service-id").read_text()
    time.sleep(3)
    assert containers.call("ps", "--all", "--quiet", "--filter", f"label={containers.LABEL}={mark}").stdout == ""
