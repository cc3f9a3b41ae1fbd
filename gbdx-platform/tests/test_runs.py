"""A workflow's life without an engine: what the service makes of what it hears, when it is told to end meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gbdx_platform import cwl_workflow
from gbdx_platform.database import Row, Store
from gbdx_platform.runs import Runner
from gbdx_platform.settings import Settings
from gbdx_platform.storage import Storage
from gbdx_platform.task_verdict import Verdict
from gbdx_platform.verdicts import Watch
from gbdx_platform.workflow_objects import new_workflow
from gbdx_platform.workflow_request import parsed
from live_service import definition, port, task


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    """A runner that is not started, with object storage that doesn't answer."""
    settings = Settings(tmp_path, f"sqlite:///{tmp_path}/platform.sqlite", "service")
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
    storage = Storage("bucket", endpoint_url="http://127.0.0.1:9", region_name="us-east-1", **keys)
    return Runner(settings, Store(settings.database_url), storage)


def added(runner: Runner, given: dict[str, Any], *tasks: dict[str, Any], **more: Any) -> Row:
    """A workflow of tasks with one definition, in the runner's database."""
    registered = {given["name"]: {"definition": given, "image_id": "", "entrypoint": [], "command": [], "version": "1"}}
    row, rows = new_workflow(parsed({"name": "test", "tasks": list(tasks), **more}), "gbdx", registered)
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
