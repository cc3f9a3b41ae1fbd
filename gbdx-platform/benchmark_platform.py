"""What the platform costs over the bare engine: make bench TASK=gbdx-platform

Everything runs hello-gbdx on its sample inputs, the platform with S3 in and S3 out. What is compared runs in turn, so
that a machine that slows down slows down both. Prints tables; seconds are medians of wall time.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from gbdx_platform import containers, demo
from gbdx_platform.client import API, ENDED, Client, events_of
from gbdx_platform.database import WORKFLOW_TASKS, WORKFLOWS, Store, new_id

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = int(os.environ.get("ROUNDS") or 10)
ITEMS = int(os.environ.get("ITEMS") or 100)
DATABASE = (10, 100, 1000)
# Containers that run at a time, in the service and beside it.
AT_A_TIME = 2
SOURCE = f"{os.environ.get('REGISTRY') or 'localhost'}/hello-gbdx:{os.environ.get('TAG') or 'dev'}"
# A tag of its own, which no build beside it moves.
IMAGE = f"localhost/gbdx-platform-bench:{os.getpid()}"
DEFINITION = json.loads((ROOT / "hello-gbdx" / "hello-gbdx_definition.json").read_text("utf-8"))
DEFINITION["containerDescriptors"][0]["properties"]["image"] = IMAGE


def seconds(work: Callable[[], Any]) -> float:
    """Wall time of some work."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def in_turn(ways: dict[str, Callable[[], Any]], rounds: int = ROUNDS) -> dict[str, float]:
    """The median of each way, after one round that does not count."""
    times = [{name: seconds(work) for name, work in ways.items()} for _ in range(rounds + 1)]
    return {name: statistics.median(one[name] for one in times[1:]) for name in ways}


def table(*rows: tuple[Any, ...]) -> None:
    """Prints a table; the first row is its head."""
    head, *body = [[f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    for line in (head, ["---"] * len(head), *body):
        print(f"| {' | '.join(line)} |")
    print(flush=True)


def memory(pid: int) -> float:
    """Resident megabytes of a process."""
    return int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0]) * 1024 / 1e6


def cpu(pid: int) -> float:
    """CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def idle_memory(pid: int) -> float:
    """Resident megabytes of a service that was just started, once it has loaded its engine and rests."""
    used = -1.0
    while cpu(pid) - used > 0.1:
        used = cpu(pid)
        time.sleep(1)
    return memory(pid)


# --- the bare engine


def docker_run(folder: str) -> list[str]:
    """hello-gbdx as a person runs it by hand; the folder must be there."""
    inputs = f"{ROOT / 'hello-gbdx' / 'test_inputs'}:/mnt/work/input:ro"
    mounts = ["--volume", f"{folder}:/mnt/work", "--volume", inputs]
    words = shlex.split(DEFINITION["containerDescriptors"][0]["command"])
    return [containers.engine(), "run", "--rm", "--user", f"{os.getuid()}:{os.getgid()}", *mounts, IMAGE, *words]


def quiet(command: list[str], **more: Any) -> None:
    """Runs a command that has to succeed."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **more)


def loop(folder: Path) -> None:
    """ITEMS containers, as many at a time as the service runs."""
    numbers = "\n".join(map(str, range(ITEMS)))
    quiet(["xargs", "-P", str(AT_A_TIME), "-I", "{}", *docker_run(f"{folder}/{{}}")], input=numbers.encode())


# --- the platform


def task(name: str, data: str | None = None, **more: Any) -> dict[str, Any]:
    """A task of a workflow; without data, it is fed by the task `first`."""
    given = {"value": data} if data else {"source": "first:data_out"}
    inputs = [{"name": "data_in", **given}, {"name": "message", "value": "{{n}}" if more else "hello"}]
    outputs = [{"name": "data_out", "persist": True, "persistLocation": f"bench/{name}"}]
    return {"name": name, "taskType": DEFINITION["name"], "inputs": inputs, "outputs": outputs}


def run_workflow(client: Client, *tasks: dict[str, Any]) -> None:
    """A workflow from its launch to its end."""
    workflow = client.launch({"name": "bench", "tasks": tasks})
    while (found := client.look(f"{API}/workflows/{workflow}"))["state"]["state"] != "complete":
        time.sleep(0.05)  # each look costs the service some milliseconds
    assert found["state"]["event"] == "succeeded", found


def run_batch(client: Client, data: str, pid: int) -> float:
    """A batch of ITEMS; returns the most memory that the service had."""
    values = [{"name": "n", "values": [str(number) for number in range(ITEMS)]}]
    batch = client.launch({"name": "bench", "tasks": [task("item", data, batch=True)], "batch_values": values})
    most, events = 0.0, {"pending"}
    while not events <= ENDED:
        time.sleep(0.2)
        most = max(most, memory(pid))
        events = events_of(client.look(f"{API}/batch_workflows/{batch}"))
    assert events == {"succeeded"}, events
    return most


def register(client: Client, count: int) -> None:
    """The definition under so many other names."""
    for number in range(count):
        client.ask("POST", f"{API}/tasks", {**DEFINITION, "name": f"bench-{number}"})


def fill(store: Store, number: int) -> None:
    """Copies of a workflow that has ended, until the database holds so many."""
    [workflow] = store.rows(sql.select(WORKFLOWS).where(WORKFLOWS.c.state == "complete").limit(1))
    tasks = store.tasks_of(workflow["id"])
    for _ in range(number - len(store.rows(sql.select(WORKFLOWS.c.id)))):
        copy = {**workflow, "id": new_id()}
        rows = [{**one, "id": new_id(), "workflow": copy["id"]} for one in tasks]
        store.write(WORKFLOWS.insert().values(**copy), *(WORKFLOW_TASKS.insert().values(**row) for row in rows))


def start(**environment: str) -> tuple[float, float]:
    """Seconds from the command until the service listens, in a new folder of state; and its CPU seconds."""
    begun = time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        demo.service(Path(folder), subprocess.DEVNULL, **environment) as process,
    ):
        return time.perf_counter() - begun, cpu(process.pid)


def measure_start() -> None:
    """The start of the service, with object storage that is there and with its own."""
    away = {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    rows: dict[str, list[tuple[float, float]]] = {"without S3": [], "with its own S3": []}
    for _ in range(max(ROUNDS // 2, 1)):
        rows["without S3"].append(start(**away))
        rows["with its own S3"].append(start())
    medians = [(name, *map(statistics.median, zip(*times, strict=True))) for name, times in rows.items()]
    table(("start of the service", "seconds", "its CPU seconds"), *medians)


def measure_tasks(client: Client, data: str, folder: Path, pid: int) -> None:
    """One task and a chain of two, over the same by hand."""
    before = cpu(pid)
    bare = in_turn({
        "docker run": lambda: quiet(docker_run(f"{folder}/hand")),
        "one task": lambda: run_workflow(client, task("first", data)),
        "two chained tasks": lambda: run_workflow(client, task("first", data), task("second")),
    })  # fmt: skip
    base = bare["docker run"]
    rows = [(name, took, (took - number * base) / number, took / number / base) for name, took, number in (
        ("docker run", base, 1), ("one task", bare["one task"], 1), ("two chained tasks", bare["two chained tasks"], 2),
    )]  # fmt: skip
    table(("way", "seconds", "over docker run, each task", "ratio"), *rows)
    print(f"CPU seconds of the service for each task: {(cpu(pid) - before) / (3 * (ROUNDS + 1)):.2f}\n")


def measure_batch(client: Client, data: str, folder: Path, pid: int, idle: float) -> None:
    """A batch over a plain loop, and the memory it takes; idle: megabytes after the start."""
    most: list[float] = []
    rounds = max(ROUNDS // 3, 1)
    found = in_turn({
        f"xargs -P {AT_A_TIME}, {ITEMS} containers": lambda: loop(folder),
        f"batch of {ITEMS}": lambda: most.append(run_batch(client, data, pid)),
    }, rounds)  # fmt: skip
    base = next(iter(found.values()))
    table(("way", "seconds", "ratio"), *((name, took, took / base) for name, took in found.items()))
    table(
        ("memory of the service", "MB"),
        ("idle, after the start", idle),
        ("at most, in a batch", max(most)),
        ("after", memory(pid)),
    )


def measure_database(client: Client, data: str, store: Store) -> None:
    """One workflow, and the lists of them, by how many the database holds."""
    rows = []
    for number in DATABASE:
        fill(store, number)
        found = in_turn({
            "one task": lambda: run_workflow(client, task("first", data)),
            "list": lambda: client.ask("GET", f"{API}/workflows"),
            "search": lambda: client.ask("POST", f"{API}/workflows/search", {"lookback_h": 1}),
        })  # fmt: skip
        rows.append((number, *found.values()))
    table(("workflows in the database", "one task, seconds", "list, seconds", "search of an hour, seconds"), *rows)


def main() -> None:
    """All of it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    print(f"load at the beginning: {os.getloadavg()[0]:.1f}\n")
    measure_start()
    with tempfile.TemporaryDirectory() as name:
        folder, state = Path(name), Path(name, "state")
        state.mkdir(mode=0o700)
        quiet([containers.engine(), "tag", SOURCE, IMAGE])
        try:
            with demo.service(state, subprocess.DEVNULL, GBDX_SLOTS=str(AT_A_TIME)) as process:
                idle = idle_memory(process.pid)
                client = Client(str(state))
                client.ask("POST", f"{API}/tasks", DEFINITION)
                for number in ("hand", *range(ITEMS)):
                    (folder / str(number)).mkdir()
                data = client.upload(ROOT / "hello-gbdx" / "test_inputs" / "data_in", "bench/data_in")
                measure_tasks(client, data, folder, process.pid)
                took = seconds(lambda: register(client, 50))
                table(("registrations", "a second"), ("50, one after the other", 50 / took))
                measure_batch(client, data, folder, process.pid, idle)
                measure_database(client, data, Store(f"sqlite:///{state / 'platform.sqlite'}"))
        finally:
            containers.call("rmi", IMAGE)
    print(f"load at the end: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
