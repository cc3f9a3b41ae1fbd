"""Kills the service at random points, again and again: no task, workflow or persisted output is lost, all succeed in
the end, and no container is left. Minutes; the default tests do it three times:

    gbdx-platform/test.sh -s gbdx-platform/tests/check_crashes.py        (KILLS=50, SEED=1)
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

from gbdx_platform import containers
from live_service import API, IMAGE, Service, Session, definition, port, script, task

# A workflow's tasks; each but the first gets a folder or a string from the one before.
NAMES = ("one", "two", "three")


def registered(session: Session) -> None:
    """A task that writes a file and a string, and takes both."""
    text = (
        "time.sleep(0.3)\nos.makedirs(work + 'output/out')\n"
        "open(work + 'output/out/file.txt', 'w').write('kept')\nstrings['b'] = 'B'"
    )
    ports = [port("a", "string", required=False), port("data", required=False)], [port("b", "string"), port("out")]
    session.register(definition("crash", *ports, script(text)))


def launched(session: Session, number: int) -> str:
    """A chain of three whose outputs are all kept."""
    places = [{"out": f"kept/{number}/{name}"} for name in NAMES]
    return session.launch(
        task("one", "crash", {"a": "x"}, places[0]),
        task("two", "crash", {"data": ("one:out",)}, places[1]),
        task("three", "crash", {"a": ("two:b",)}, places[2]),
    )


def kill_at_random(service: Service, kills: int, longest: float, seed: int) -> None:
    """Launches two workflows and kills the service up to `longest` seconds later, `kills` times; then holds all that
    was launched against what is there."""
    chance = random.Random(seed)  # noqa: S311
    service.start()
    session = Session(service.client())
    registered(session)
    workflows: list[str] = []
    for _ in range(kills):
        workflows += [launched(session, len(workflows)), launched(session, len(workflows) + 1)]
        time.sleep(chance.uniform(0, longest))
        service.kill()
        service.start()
        session = Session(service.client())
    starts = 0
    for number, workflow in enumerate(workflows):
        found = session.wait(workflow, 1200)
        assert [one["state"]["event"] for one in found["tasks"]] == ["succeeded"] * 3, found
        assert [session.text(f"kept/{number}/{name}/file.txt") for name in NAMES] == ["kept"] * 3
        words = [one["event"] for one in session.http.get(f"{API}/workflows/{workflow}/events").json()["Events"]]
        assert words.count("succeeded") == 3, "a finished task was run again"
        starts += words.count("started")
    assert set(session.http.get(f"{API}/workflows").json()["workflows"]) == set(workflows)
    assert session.http.get(f"{API}/tasks/crash").json()["containerDescriptors"][0]["properties"]["image"] == IMAGE
    print(f"\n{kills} kills, {len(workflows)} workflows, {3 * len(workflows)} tasks, {starts} starts: all succeeded")


def test_a_service_that_is_killed_at_random_loses_nothing(hello_image: str, tmp_path: Path) -> None:
    service = Service(tmp_path)
    begun = time.monotonic()
    try:
        kill_at_random(service, int(os.environ.get("KILLS", "50")), 10, int(os.environ.get("SEED", "1")))
    finally:
        service.stop()
    print(f"{time.monotonic() - begun:.0f} s")
    mark = (tmp_path / "service-id").read_text()
    time.sleep(3)
    assert containers.call("ps", "--all", "--quiet", "--filter", f"label={containers.LABEL}={mark}").stdout == ""
