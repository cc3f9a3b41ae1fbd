"""A workflow's life without an engine: what the service makes of what it hears, when it is told to end meanwhile."""

from __future__ import annotations

import contextlib
import http.server
import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest
import sqlalchemy as sql
from gbdx_platform import callbacks, containers, cwl_workflow, cwltool_engine
from gbdx_platform.database import WORKFLOWS, Row, Store
from gbdx_platform.runs import Runner
from gbdx_platform.settings import Settings
from gbdx_platform.storage import Storage, StorageError
from gbdx_platform.task_verdict import Verdict
from gbdx_platform.verdicts import Watch
from gbdx_platform.workflow_objects import new_workflow
from gbdx_platform.workflow_request import parsed
from live_service import Service, Session, definition, port, script, states, task
from waiting import wait_until


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    """A runner that is not started, with object storage that doesn't answer."""
    settings = Settings(tmp_path, f"sqlite:///{tmp_path}/platform.sqlite", "service")
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
    storage = Storage("bucket", endpoint_url="http://127.0.0.1:9", region_name="us-east-1", **keys)
    return Runner(settings, Store(settings.database_url), storage)


def added(runner: Runner, given: dict[str, Any], *tasks: dict[str, Any], image: str = "") -> Row:
    """A workflow of tasks with one definition, in the runner's database."""
    bound = {"image_id": image, "entrypoint": [], "command": [], "version": "0.1.0"}
    row, rows = new_workflow(
        parsed({"name": "test", "tasks": list(tasks)}), "gbdx", {given["name"]: {"definition": given, **bound}}
    )
    runner.store.add_workflows([(row, rows)])
    return row


def watched(runner: Runner, row: Row) -> Watch:
    """What an engine is given to run a workflow."""
    tasks = {one["name"]: one for one in runner.store.tasks_of(row["id"])}
    plan = cwl_workflow.plan([runner.step(one) for one in tasks.values()], bare=True)
    return runner.watch(row, tasks, plan, runner.settings.state / "runs" / row["id"])


@pytest.mark.parametrize(("canceled", "state"), [(False, "running/started"), (True, "complete/canceled")])
def test_a_task_whose_output_could_not_be_kept_for_the_end_of_the_service_is_unfinished(
    runner: Runner, canceled: bool, state: str
) -> None:
    row = added(runner, definition("t", [], [port("out")], "true"), task("one", "t", persist={"out": "kept"}))
    watch, work = watched(runner, row), runner.settings.state / "work"
    [step] = watch.plan.steps.values()
    watch.started(step, "container")
    (work / "output" / "out").mkdir(parents=True)
    (work / "output" / "out" / "x").touch()
    runner.stopping.set()
    if canceled:
        runner.canceled.add(row["id"])
    assert watch.finished(step, Verdict("success"), work).state == "canceled"
    [found] = runner.store.tasks_of(row["id"])
    assert f"{found['state']}/{found['event']}" == state


@pytest.mark.parametrize("reason", ["canceled by its owner", "the service was stopped"])
def test_a_task_that_waits_for_a_slot_ends_when_it_is_to(runner: Runner, reason: str) -> None:
    row = added(runner, definition("t", [], [], "true"), task("one", "t"), task("two", "t"))
    watch = watched(runner, row)
    watch.slots = threading.Semaphore(0)
    run = threading.Thread(target=cwltool_engine.run, args=(watch, runner.settings), daemon=True)
    run.start()
    run.join(3)
    assert run.is_alive()
    if reason == "the service was stopped":
        runner.stopping.set()
    else:
        runner.canceled.add(row["id"])
    wait_until(lambda: not run.is_alive())
    found = {(one["event"], one["note"]) for one in runner.store.tasks_of(row["id"])}
    assert found == {("canceled", reason) if runner.canceled else ("submitted", "")}


def test_a_workflow_asks_for_all_slots_at_once_whatever_cores_and_free_memory_the_machine_has(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "proc").mkdir()
    names = ["MemTotal", "MemFree", "MemAvailable", "Buffers", "Cached", "Shmem", "Active", "Inactive"]
    (tmp_path / "proc" / "meminfo").write_text("".join(f"{name}: 102400 kB\n" for name in names))
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path / "proc"))
    assert psutil.virtual_memory().available == 100 * 2**20
    runner.settings.slots = 3 * (os.cpu_count() or 1)
    row = added(
        runner, definition("t", [], [], "true"), *(task(f"t{one}", "t") for one in range(runner.settings.slots + 2))
    )
    watch = watched(runner, row)
    waiting: set[int] = set()
    watch.slots, watch.canceled = threading.Semaphore(0), lambda: waiting.add(threading.get_ident()) or ""
    run = threading.Thread(target=cwltool_engine.run, args=(watch, runner.settings), daemon=True)
    run.start()
    wait_until(lambda: len(waiting) == runner.settings.slots)
    watch.canceled = lambda: "enough"
    wait_until(lambda: not run.is_alive())


class Endless(http.server.BaseHTTPRequestHandler):
    """Object storage with one object of a terabyte, which comes a MiB in each twentieth of a second."""

    sent: ClassVar[list[int]] = []

    def do_GET(self) -> None:
        tag = f'"{0:032}"'
        found = f"<Contents><Key>gbdx/in/x</Key><Size>{2**40}</Size><ETag>{tag}</ETag></Contents>"
        listed = f"<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>".encode()
        object_asked = "list-type" not in self.path
        self.send_response(200)
        self.send_header("Content-Length", str(2**40 if object_asked else len(listed)))
        self.send_header("ETag", tag)
        self.end_headers()
        with contextlib.suppress(OSError):
            while object_asked:
                self.wfile.write(bytes(2**20))
                self.sent.append(2**20)
                threading.Event().wait(0.05)
            self.wfile.write(listed)

    def log_message(self, *arguments: Any) -> None:
        """Says nothing."""


@pytest.fixture
def endless(runner: Runner) -> Iterator[None]:
    """Has the runner read from the endless object storage."""
    Endless.sent.clear()
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        runner.storage = Storage("bucket", endpoint_url=address, region_name="us-east-1", **keys)
        yield
        server.shutdown()


@pytest.mark.parametrize(("end", "state"), [("cancel", "complete/canceled"), ("stop", "pending/scheduled")])
def test_a_workflow_ends_in_the_midst_of_one_large_input(
    runner: Runner, endless: None, hello_image: str, end: str, state: str
) -> None:
    image = containers.inspect_image(hello_image)
    assert image
    given = definition("t", [port("data")], [], "true")
    row = added(runner, given, task("one", "t", {"data": "s3://bucket/gbdx/in"}), image=image.id)
    life = threading.Thread(target=runner.live, args=(row,), daemon=True)
    life.start()
    wait_until(lambda: Endless.sent)
    if end == "cancel":
        runner.canceled.add(row["id"])
    else:
        runner.stopping.set()
    wait_until(lambda: not life.is_alive())
    [found] = runner.store.tasks_of(row["id"])
    assert f"{found['state']}/{found['event']}" == state


def test_an_upload_ends_between_two_of_its_parts(session: Session, tmp_path: Path, fresh: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "large").write_bytes(bytes(40 * 2**20))
    calls: list[int] = []

    def go_on() -> None:
        calls.append(1)
        if len(calls) > 2:
            raise StorageError("ended")

    with pytest.raises(StorageError, match="ended"):
        session.storage.keep(tmp_path / "out", f"{session.prefix}/{fresh}", go_on)
    assert session.names(fresh) == []


class Receiver(http.server.BaseHTTPRequestHandler):
    """A receiver of callbacks: /flood answers with 200 and a body without end, /drip with a head without end, /hang
    not at all; what else it is asked for it takes, and writes down."""

    taken: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        with contextlib.suppress(OSError):
            while self.path == "/drip":
                self.wfile.write(b"X-More: 1\r\n")
                threading.Event().wait(1)
            while self.path == "/hang":
                threading.Event().wait(1)
            self.end_headers()
            self.taken.append(self.path)
            while self.path == "/flood":
                self.wfile.write(bytes(2**20))

    def log_message(self, *arguments: Any) -> None:
        """Says nothing."""


@pytest.fixture
def receiver() -> Iterator[str]:
    """The address of a server that callbacks go to."""
    Receiver.taken.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def told(address: str) -> bool:
    """Whether a callback to an address is answered well."""
    return callbacks.told(new_workflow({"name": "w", "tasks": [], "callback": address}, "gbdx", {})[0], [])


def test_the_answer_to_a_callback_is_its_status_and_nothing_after_it_is_read(receiver: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert told(f"{receiver}/flood")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**16  # KiB


@pytest.mark.parametrize("address", ["http://a..b/", f"http://{'a' * 64}/", "{receiver}/drip", "http://127.0.0.1:9/"])
def test_an_address_that_never_answers_or_can_be_none_is_told_nothing_and_ends_no_thread(
    receiver: str, address: str
) -> None:
    assert not told(address.format(receiver=receiver))


def complete(runner: Runner, owner: str, address: str) -> str:
    """A workflow of an owner that is complete, with its callback yet to be told; its id."""
    row, _ = new_workflow({"name": "w", "tasks": [], "callback": address}, owner, {})
    runner.store.write(WORKFLOWS.insert().values(**row | {"state": "complete", "event": "succeeded", "completed": 0.0}))
    return str(row["id"])


def test_a_receiver_that_hangs_holds_up_no_other_accounts_callbacks(runner: Runner, receiver: str) -> None:
    for _ in range(50):
        complete(runner, "alice", f"{receiver}/hang")
    others = [complete(runner, "bob", f"{receiver}/{number}") for number in range(5)]
    runner.dispatcher.start()
    wait_until(lambda: all(runner.store.workflow(one)["called_back"] for one in others))
    assert sorted(Receiver.taken) == [f"/{number}" for number in range(5)]
    assert [thread.name for thread in runner.calling.values()].count("alice") == callbacks.CALLS_OF_ONE
    runner.stop()


def test_a_database_that_is_away_for_the_record_has_a_callback_told_once(runner: Runner, receiver: str) -> None:
    workflow = complete(runner, "gbdx", f"{receiver}/one")
    refuse = "CREATE TRIGGER refuse BEFORE UPDATE OF called_back ON workflows BEGIN SELECT RAISE(ABORT, 'full'); END"
    runner.store.write(sql.text("ALTER TABLE workflow_tasks RENAME TO away"), sql.text(refuse))
    runner.dispatcher.start()
    wait_until(lambda: workflow in runner.tried)
    assert Receiver.taken == []
    runner.store.write(sql.text("ALTER TABLE away RENAME TO workflow_tasks"))
    wait_until(lambda: runner.tried[workflow][0] == callbacks.TRIES)
    runner.store.write(sql.text("DROP TRIGGER refuse"))
    wait_until(lambda: runner.store.workflow(workflow)["called_back"])
    assert Receiver.taken == ["/one"]
    runner.stop()


def test_after_a_restart_nothing_runs_again_for_an_output_that_was_never_left_and_what_requires_it_fails(
    own_service: Service,
) -> None:
    own_service.start()
    session = Session(own_service.client())
    may = [port("word", "string", False), port("out", required=False), port("main")]
    session.register(
        definition("leaves", [port("a", "string", False)], may, script("os.makedirs(work + 'output/main')"))
    )
    wait = "for _ in range(600):\n    if os.path.exists(work + 'input/main/go'): break\n    time.sleep(0.1)"
    inputs = [port("main"), port("word", "string", False), port("out", required=False)]
    session.register(definition("waits", inputs, [], script(wait)))
    session.register(definition("needs", [port("out")], [], script("")))
    given = {name: (f"first:{name}",) for name in ("main", "word", "out")}
    workflow = session.launch(
        task("first", "leaves"), task("slow", "waits", given), task("unfed", "needs", {"out": ("first:out",)})
    )
    alone = session.launch(task("first", "leaves"), task("unfed", "needs", {"out": ("first:out",)}))
    wait_until(lambda: "started" in session.events(workflow, "slow") and own_service.containers())
    own_service.kill()
    [folder] = (own_service.state / "runs" / workflow).glob("*/output/main")
    (folder / "go").touch()
    own_service.start()
    session = Session(own_service.client())
    found = session.wait(workflow)
    expected = {"first": "complete/succeeded", "slow": "complete/succeeded", "unfed": "complete/failed"}
    assert (states(found), found["state"]["event"]) == (expected, "failed")
    assert found["tasks"][2]["note"] == "input port 'out': task 'first' left no output 'out'"
    assert session.events(workflow, "first").count("started") == 1
    assert states(session.wait(alone)) == {"first": "complete/succeeded", "unfed": "complete/failed"}


def test_a_task_that_requires_what_a_finished_one_never_left_is_no_reason_to_run_anything(runner: Runner) -> None:
    ports = [port("a", "string")], [port("b", "string", False)]
    tasks = task("one", "t", {"a": "x"}), task("two", "t", {"a": ("one:b",)}), task("three", "t", {"a": ("two:b",)})
    row = added(runner, definition("t", *ports, "true"), *tasks)
    one, *_ = runner.store.tasks_of(row["id"])
    work = runner.settings.state / "runs" / row["id"] / "work"
    work.mkdir(parents=True)
    runner.store.set_task(one, "complete", "succeeded", body=one["body"] | {"work": str(work), "strings": {}})
    runner.live(row)
    found = [(one["event"], one["note"]) for one in runner.store.tasks_of(row["id"])]
    waits = "a task that it waits for did not succeed"
    lost = "input port 'a': task 'one' left no output 'b'"
    assert found == [("succeeded", ""), ("failed", lost), ("canceled", waits)]
    assert runner.store.workflow(row["id"])["event"] == "failed"


def test_an_input_that_is_not_there_has_no_other_one_fetched_again(
    runner: Runner, session: Session, hello_image: str, fresh: str
) -> None:
    image = containers.inspect_image(hello_image)
    assert image
    runner.storage = session.storage
    asked: list[str] = []
    session.storage.client.meta.events.register(
        "provide-client-params.s3.GetObject", lambda params, **_: asked.append(params["Key"])
    )
    places = {name: session.put(f"{fresh}/{name}/x", name.encode()) for name in ("good", "better")}
    places["bad"] = f"s3://{session.bucket}/{session.prefix}/{fresh}/bad"
    text = "reason = open(work + 'input/data/x').read()"
    tasks = [task(name, "t", {"data": places[name]}) for name in ("good", "bad", "better")]
    row = added(runner, definition("t", [port("data")], [], script(text)), *tasks, image=image.id)
    runner.live(row)
    good, bad, better = runner.store.tasks_of(row["id"])
    assert bad["note"].startswith(f"input port 'data': '{places['bad']}': expected at least one object there")
    assert [(one["event"], one["note"]) for one in (good, better)] == [("succeeded", "good"), ("succeeded", "better")]
    assert asked == [f"{session.prefix}/{fresh}/good/x", f"{session.prefix}/{fresh}/better/x"]
