"""Kills the service at random points, again and again: while it works, while it is asked for workflows, batches and
cancels, and while it starts. What it has answered for is there and ends truthfully, a batch is whole or not there, and
no container and no object storage is left. Minutes; the default tests do it three times, and once with PostgreSQL:

    gbdx-platform/test.sh -s gbdx-platform/tests/check_crashes.py        (KILLS=50, SEED=1)
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import sqlalchemy as sql
from gbdx_platform import containers
from gbdx_platform.database import BATCHES, MOST_ADDED, WORKFLOWS
from live_service import API, IMAGE, Service, Session, definition, port, script, task

# A workflow's tasks; each but the first gets a folder or a string from the one before.
NAMES = ("one", "two", "three")
# Of a batch: more than go to the database in one statement.
ITEMS = MOST_ADDED + 10
# The events that a workflow may end with, by what was answered.
Ends = dict[str, set[str]]


def registered(session: Session) -> None:
    """A task that writes a file and a string, and takes both."""
    text = (
        "time.sleep(0.3)\nos.makedirs(work + 'output/out')\n"
        "open(work + 'output/out/file.txt', 'w').write('kept')\nstrings['b'] = 'B'"
    )
    ports = [port("a", "string", required=False), port("data", required=False)], [port("b", "string"), port("out")]
    session.register(definition("crash", *ports, script(text)))


def launched(session: Session, ends: Ends) -> str:
    """A chain of three whose outputs are all kept."""
    tasks = [
        task("one", "crash", {"a": "x"}),
        task("two", "crash", {"data": ("one:out",)}),
        task("three", "crash", {"a": ("two:b",)}),
    ]
    for one in tasks:
        one["outputs"] = [{"name": "out", "persist": True}]
    workflow = session.launch(*tasks)
    ends[workflow] = {"succeeded"}
    return workflow


def post_until_it_dies(session: Session, ends: Ends) -> None:
    """One workflow that is to run; then others and batches that are canceled at once, until there is no answer."""
    items = [{"name": "n", "values": [str(number) for number in range(ITEMS)]}]
    request = {"name": "batch", "tasks": [task("one", "crash", {"a": "{{n}}"})], "batch_values": items}
    with contextlib.suppress(httpx.TransportError):
        launched(session, ends)
        while True:
            batch = session.http.post(f"{API}/batch_workflows", json=request).json()
            ends.update({one["workflow_id"]: {"succeeded", "canceled"} for one in batch["workflows"]})
            session.http.post(f"{API}/batch_workflows/{batch['batch_workflow_id']}/cancel")
            workflow = launched(session, ends)
            ends[workflow] = {"succeeded", "canceled"}
            state = session.http.post(f"{API}/workflows/{workflow}/cancel").json()["state"]
            ends[workflow] = {state["event"] if state["state"] == "complete" else "canceled"}


def kill_while_it_works(service: Service, session: Session, ends: Ends, seconds: float) -> None:
    """A kill some time after two workflows were launched."""
    for _ in range(2):
        launched(session, ends)
    time.sleep(seconds)
    service.kill()


def kill_while_it_is_asked(service: Service, session: Session, ends: Ends, seconds: float) -> None:
    """A kill amid requests."""
    asking = threading.Thread(target=post_until_it_dies, args=(session, ends))
    asking.start()
    time.sleep(seconds)
    service.kill()
    asking.join()


def kill_while_it_starts(service: Service, session: Session, ends: Ends, seconds: float) -> None:
    """A kill while workflows run, and one before the service that is started then has come back."""
    for _ in range(2):
        launched(session, ends)
    service.kill()
    service.begin()
    time.sleep(seconds)
    service.kill()


def kills(service: Service, number: int, longest: float, seed: int) -> Ends:
    """Kills the service in each way in turn, `number` times; returns what it answered for. It runs afterwards."""
    chance = random.Random(seed)  # noqa: S311
    service.begin()
    time.sleep(chance.uniform(0, 2))
    service.kill()  # in the first start of all
    begun = time.monotonic()
    service.start()
    start = time.monotonic() - begun
    registered(Session(service.client()))
    ways = (
        (kill_while_it_is_asked, min(longest / 2, 3)),
        (kill_while_it_starts, start),
        (kill_while_it_works, longest),
    )
    ends: Ends = {}
    for way, most in itertools.islice(itertools.cycle(ways), number):
        way(service, Session(service.client()), ends, chance.uniform(0, most))
        service.start()
        assert len(service.object_stores()) == 1
    return ends


def check_chain(session: Session, workflow: str) -> Iterator[str]:
    """Holds a chain that succeeded against what it left; yields the words of its events."""
    words = [one["event"] for one in session.http.get(f"{API}/workflows/{workflow}/events").json()["Events"]]
    assert words.count("succeeded") == len(NAMES), "a finished task was run again"
    assert [session.text(f"workflow_output/{workflow}/{name}/out/file.txt") for name in NAMES] == ["kept"] * len(NAMES)
    yield from words


def kill_at_random(service: Service, number: int, longest: float, seed: int) -> None:
    """Kills the service, then holds all that was answered against what is there."""
    ends = kills(service, number, longest, seed)
    session = Session(service.client())
    there = {row["id"]: row["batch"] for row in service.store().rows(sql.select(WORKFLOWS.c.id, WORKFLOWS.c.batch))}
    assert set(ends) <= set(there), "what was answered for is lost"
    batches = [row["id"] for row in service.store().rows(sql.select(BATCHES.c.id))]
    assert Counter(filter(None, there.values())) == dict.fromkeys(batches, ITEMS), "a batch is there in part"
    for batch in batches:  # one may be there without an answer
        session.http.post(f"{API}/batch_workflows/{batch}/cancel")
    told, starts = Counter[str](), 0
    for workflow, batch in there.items():
        found = session.wait(workflow, 1200)
        event = found["state"]["event"]
        assert event in ends.get(workflow, {"succeeded", "canceled"} if batch else {"succeeded"}), found
        events = {one["state"]["event"] for one in found["tasks"]}
        assert events == {"succeeded"} if event == "succeeded" else "canceled" in events <= {"succeeded", "canceled"}
        if event == "succeeded" and not batch:
            starts += list(check_chain(session, workflow)).count("started")
        told[f"{event} {'of a batch' if batch else 'chains'}"] += 1
    assert session.http.get(f"{API}/tasks/crash").json()["containerDescriptors"][0]["properties"]["image"] == IMAGE
    unanswered = len(set(there) - set(ends))
    print(f"\n{number} kills: {dict(told)}, {unanswered} without an answer; {starts} starts of the chains' tasks")


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
    assert service.object_stores() == []
