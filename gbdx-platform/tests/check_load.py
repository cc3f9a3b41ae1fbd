"""200 workflows at once complete in bounded memory; printed are their seconds beside a plain loop of the engine, and
the cost of one by how many are in the database. Minutes; not collected by default:

    gbdx-platform/test.sh -s gbdx-platform/tests/check_load.py        (WORKFLOWS=200)
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gbdx_platform import containers
from gbdx_platform.database import new_id
from live_service import API, IMAGE, Service, Session, definition, port, script, task

# Containers that run at a time, in the service and in the plain loop.
AT_A_TIME = "2"


def memory(pid: int) -> int:
    """Resident bytes of a process."""
    fields = Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()
    return int(fields[0]) * 1024


def seconds_of(function: Callable[[], Any], times: int) -> float:
    """Median seconds of a call."""
    found = []
    for _ in range(times):
        begun = time.perf_counter()
        function()
        found.append(time.perf_counter() - begun)
    return statistics.median(found)


def plain_loop(number: int) -> float:
    """Seconds of `xargs -P` over the same container, started with the same options."""
    options = containers.run_options("NAME", "bench", [], False)
    options[options.index("--name") : options.index("--name") + 2] = ["--rm"]
    line = ["xargs", "-P", AT_A_TIME, "-I", "{}", *options, IMAGE, "python", "-c", "pass"]
    numbers = "\n".join(map(str, range(number)))
    return seconds_of(lambda: subprocess.run(line, input=numbers, text=True, check=True), 1)


def test_many_workflows_at_once_complete_in_bounded_memory(hello_image: str, tmp_path: Path) -> None:
    number = int(os.environ.get("WORKFLOWS", "200"))
    service = Service(tmp_path, GBDX_SLOTS=AT_A_TIME)
    started = seconds_of(service.start, 1)
    session = Session(service.client())
    session.register(definition("quick", [port("a", "string")], [], script("")))
    session.run(task("warm", "quick", {"a": "x"}))
    assert service.process is not None
    idle = memory(service.process.pid)
    single = seconds_of(lambda: session.run(task("one", "quick", {"a": "x"})), 5)
    lists = [{"name": "n", "values": [str(index) for index in range(number)]}]
    request = {"name": "many", "tasks": [task("quick", "quick", {"a": "{{n}}"})], "batch_values": lists}
    begun = time.monotonic()
    batch = session.http.post(f"{API}/batch_workflows", json=request).json()["batch_workflow_id"]
    peak = 0
    while True:
        states = [one["state"] for one in session.http.get(f"{API}/batch_workflows/{batch}").json()["workflows"]]
        peak = max(peak, memory(service.process.pid))
        if not {"pending", "running"} & set(states):
            break
        time.sleep(0.5)
    seconds = time.monotonic() - begun
    bare = plain_loop(number)
    service.stop()
    print(f"\nstart with S3 {started:.1f} s; one workflow {single:.2f} s")
    print(f"{number} workflows {seconds:.0f} s, plain loop {bare:.0f} s, ratio {seconds / bare:.2f}")
    print(f"memory idle {idle >> 20} MB, peak {peak >> 20} MB")
    assert states == ["succeeded"] * number
    assert peak < idle + 60 * 2**20


def fill(service: Service, workflow: str, number: int) -> None:
    """Copies a finished workflow in the database, until there are so many."""
    store = service.store()
    row, tasks = store.workflow(workflow), store.tasks_of(workflow)
    assert row is not None
    entries = []
    for _ in range(number):
        copy = {**row, "id": new_id()}
        entries.append((copy, [{**one, "id": new_id(), "workflow": copy["id"]} for one in tasks]))
    store.add_workflows(entries)


def test_workflows_run_beside_a_thousand_in_the_database(hello_image: str, tmp_path: Path) -> None:
    service = Service(tmp_path, GBDX_SLOTS=AT_A_TIME)
    service.start()
    session = Session(service.client())
    session.register(definition("quick", [port("a", "string")], [], script("")))
    http, one = session.http, task("one", "quick", {"a": "x"})
    workflow = session.run(one)["id"]
    costs, there, events = [], 1, []
    for wanted in (10, 100, 1000):
        fill(service, workflow, wanted - there)
        there = wanted + 6  # the six that follow
        costs.append(
            {
                "run": seconds_of(lambda: events.append(session.run(one)["state"]["event"]), 5),
                "launch": seconds_of(lambda: session.launch(one), 1),
                "get": seconds_of(lambda: http.get(f"{API}/workflows/{workflow}"), 50),
                "list": seconds_of(lambda: http.get(f"{API}/workflows"), 50),
            }
        )
        print(f"\n{wanted} workflows:", ", ".join(f"{name} {1000 * cost:.1f} ms" for name, cost in costs[-1].items()))
    service.stop()
    growth = (f"{name} {cost / costs[0][name]:.1f}" for name, cost in costs[-1].items())
    print(f"ratio of {wanted} to 10 workflows:", ", ".join(growth))
    assert events == ["succeeded"] * 15
