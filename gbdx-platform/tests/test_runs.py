"""A workflow's life without an engine: what the service makes of what it hears, when it is told to end meanwhile."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from gbdx_platform import containers, cwl_workflow, cwltool_engine
from gbdx_platform.database import Row, Store
from gbdx_platform.runs import Runner
from gbdx_platform.settings import Settings
from gbdx_platform.storage import Storage, StorageError
from gbdx_platform.task_verdict import Verdict
from gbdx_platform.verdicts import Watch
from gbdx_platform.workflow_objects import new_workflow
from gbdx_platform.workflow_request import parsed
from live_service import Session, definition, port, task, wait_until


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
