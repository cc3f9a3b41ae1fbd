"""The life of a workflow: waits in the database, is fetched, run, kept, and ends with a true state and a note."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import sqlalchemy as sql

from gbdx_platform import containers, cwl_workflow
from gbdx_platform.cwl_tool import timeout_of, wants_gpu
from gbdx_platform.database import WORKFLOW_TASKS, WORKFLOWS, Row, Store, now
from gbdx_platform.settings import Settings
from gbdx_platform.storage import Storage, StorageError
from gbdx_platform.task_definition import container_properties
from gbdx_platform.task_verdict import Verdict, printable
from gbdx_platform.verdicts import Watch
from gbdx_platform.workflow_objects import workflow_object

FETCH_TRIES = 3
CALLBACK_TRIES = 5
LEFTOVER_SECONDS = 30
# The state of a run in the contract's words; all else is a failure, and its name stands in the note.
EVENTS = {"success": "succeeded", "timedout": "timedout", "canceled": "canceled"}
STOPPED = "the service was stopped while the workflow was running"


def remove_folder(folder: Path) -> None:
    """Removes what tasks wrote, folders among it that are too deep for Python's own tools."""
    subprocess.run(["rm", "-rf", "--", folder], check=False, capture_output=True)


class Runner:
    """Takes workflows from the database, the oldest first, a few at a time; what waits, waits there."""

    def __init__(self, settings: Settings, store: Store, storage: Storage) -> None:
        self.settings, self.store, self.storage = settings, store, storage
        self.slots = threading.Semaphore(settings.slots)
        self.wake, self.stopping = threading.Event(), threading.Event()
        self.canceled: set[str] = set()
        self.running: dict[str, threading.Thread] = {}
        self.dispatcher = threading.Thread(target=self.dispatch, name="dispatcher", daemon=True)

    def start(self) -> None:
        """Ends truthfully what an earlier life of the service left running, then begins to work."""
        containers.remove_leftovers(self.settings.service)
        remove_folder(self.settings.state / "runs")
        for row in self.store.rows(sql.select(WORKFLOWS).where(WORKFLOWS.c.state == "running")):
            self.end_unfinished(row, "failed", STOPPED)
        for row in self.store.rows(
            sql.select(WORKFLOWS).where(WORKFLOWS.c.state == "complete", ~WORKFLOWS.c.called_back)
        ):
            self.call_back(row["id"])
        self.dispatcher.start()

    def stop(self) -> None:
        """Ends what is running, in a few seconds, and waits for it."""
        self.stopping.set()
        self.wake.set()
        self.dispatcher.join()
        for thread in list(self.running.values()):
            thread.join(containers.GRACE + 15)

    def cancel(self, workflow: str) -> None:
        """Cancels a workflow, whether it waits or runs; nothing happens to one that is complete."""
        self.canceled.add(workflow)
        self.store.write(WORKFLOWS.update().where(WORKFLOWS.c.id == workflow).values(canceling=True))
        row = self.store.workflow(workflow)
        if row and row["state"] == "pending" and workflow not in self.running:
            self.end_unfinished(row, "canceled", "canceled by its owner")
        if workflow not in self.running:
            self.canceled.discard(workflow)

    def dispatch(self) -> None:
        """The dispatcher's thread."""
        born = now()
        self.engine()
        while not self.stopping.is_set():
            free = self.settings.workflows - len(self.running)
            query = sql.select(WORKFLOWS.c.id).where(
                WORKFLOWS.c.state == "pending", WORKFLOWS.c.id.not_in(list(self.running))
            )
            waiting = self.store.rows(query.order_by(WORKFLOWS.c.submitted).limit(free)) if free > 0 else []
            for row in waiting:
                thread = threading.Thread(target=self.live, args=(row["id"],), name=row["id"], daemon=True)
                self.running[row["id"]] = thread
                thread.start()
            self.wake.wait(5)
            self.wake.clear()
            # A client of the engine that outlived a killed service may start its container a moment later.
            if now() - born < LEFTOVER_SECONDS:
                containers.remove_leftovers(self.settings.service)

    def live(self, workflow: str) -> None:
        """One workflow from waiting to complete."""
        folder = self.settings.state / "runs" / workflow
        row = self.store.workflow(workflow)
        assert row is not None
        try:
            self.run(row, folder)
        except Exception as error:  # the note tells it; a workflow never stays running
            self.end_unfinished(row, "failed", f"the platform could not run it: {printable(str(error) or repr(error))}")
        finally:
            remove_folder(folder)
            self.running.pop(workflow, None)
            self.canceled.discard(workflow)
            self.wake.set()

    # --- one workflow

    def run(self, row: Row, folder: Path) -> None:
        """Fetches, runs, and ends a workflow."""
        workflow = row["id"]
        tasks = {task["name"]: task for task in self.store.tasks_of(workflow)}
        steps = [self.step(task) for task in tasks.values()]
        for task in tasks.values():
            self.store.set_task(workflow, task, "pending", "scheduled")
        self.store.set_workflow(workflow, "pending", "scheduled")
        bare = self.settings.engine == "cwltool"
        if not bare:  # other machines have no ids of this one's images
            for step in steps:
                step.image = container_properties(step.definition)["image"]
        plan = cwl_workflow.plan(steps, row["name"], bare)
        faults = self.prepare(row, plan, folder)
        for name, note in faults.items():
            self.store.set_task(workflow, tasks[name], "complete", "failed", note)
        if faults or self.ended(workflow):
            return self.end_unfinished(row, "canceled" if self.ended(workflow) else "failed", self.why_ended(workflow))
        watch = self.watch(row, tasks, plan, folder)
        self.engine().run(watch, self.settings)
        self.end_unfinished(row, "canceled" if self.ended(workflow) else "", self.why_ended(workflow))

    def step(self, task: Row) -> cwl_workflow.Step:
        """A task of the database as a step to run."""
        body = task["body"]
        own = None if body["entrypoint"] else body["command"]
        return cwl_workflow.Step(
            task["name"], body["definition"], body["request"], body["image_id"],
            body["request"].get("timeout") or timeout_of(body["definition"]), body["domain"], own,
        )  # fmt: skip

    def engine(self) -> Any:
        """The module of the chosen engine; cwltool takes seconds to import, so that it is loaded beside the start."""
        if self.settings.engine == "cwltool":
            from gbdx_platform import cwltool_engine

            return cwltool_engine
        from gbdx_platform import toil_engine

        return toil_engine

    def ended(self, workflow: str) -> bool:
        """Whether somebody wants this workflow to end."""
        return self.stopping.is_set() or workflow in self.canceled

    def why_ended(self, workflow: str) -> str:
        """The note for tasks that didn't start."""
        if workflow in self.canceled:
            return "canceled by its owner"
        return STOPPED if self.stopping.is_set() else "a task that it waits for did not succeed"

    def prepare(self, row: Row, plan: cwl_workflow.Plan, folder: Path) -> dict[str, str]:
        """Checks images and GPUs, fetches the inputs; returns the notes of the tasks that can't start."""
        faults: dict[str, str] = {}
        registered = {task["name"]: task["body"]["image_id"] for task in self.store.tasks_of(row["id"])}
        for step in plan.steps.values():
            try:
                containers.check_image(container_properties(step.definition)["image"], registered[step.name])
            except containers.ImageError as error:
                faults[step.name] = str(error)
            local = self.settings.engine == "cwltool" or not self.settings.engine_arguments
            if wants_gpu(step.definition, step.domain) and local and not containers.has_gpu():
                faults[step.name] = (
                    f"task {step.name!r}: expected a GPU (domain {step.domain}), found none on this machine"
                )
        for number, (identifier, (task, port, url)) in enumerate(plan.folders.items()):
            if task in faults or self.ended(row["id"]):
                continue
            try:
                # The basename is the port's, so that no file of a user can name a folder here.
                target = folder / "inputs" / str(number) / "input"
                self.fetch(url, row["owner"], target, row["id"])
                plan.job[identifier] = {"class": "Directory", "location": target.as_uri()}
            except Exception as error:
                faults[task] = f"input port {port!r}: {printable(str(error))} ({FETCH_TRIES} tries)"
        return faults

    def fetch(self, url: str, owner: str, folder: Path, workflow: str) -> None:
        """Three tries, except where another try can't help."""
        for attempt in range(FETCH_TRIES):
            try:
                self.storage.fetch(url, owner, folder)
                return
            except StorageError:
                raise
            except Exception:
                if attempt == FETCH_TRIES - 1 or self.ended(workflow):
                    raise
                time.sleep(attempt + 0.5)

    def watch(self, row: Row, tasks: dict[str, Row], plan: cwl_workflow.Plan, folder: Path) -> Watch:
        """What the engine tells, written into the database."""
        workflow = row["id"]

        def started(name: str, container: str) -> None:
            # Together, so that no moment shows a running task in a workflow that waits.
            self.store.set_workflow(workflow, "running", "started")
            self.store.set_task(workflow, tasks[name], "running", "started", started=now(), container=container)

        def finished(name: str, verdict: Verdict, work: Path | None, strings: dict[str, Any]) -> Verdict:
            if verdict.state == "canceled" and workflow not in self.canceled:
                verdict = Verdict("failed", STOPPED)
            if verdict.state == "success" and work:
                verdict = self.keep(row, tasks[name], work, strings, verdict)
            event = EVENTS.get(verdict.state, "failed")
            prefix = "" if verdict.state in (*EVENTS, "failed") else f"{verdict.state}: "
            self.store.set_task(workflow, tasks[name], "complete", event, prefix + verdict.reason)
            return verdict

        folder.mkdir(parents=True, exist_ok=True)
        logs = self.settings.state / "logs" / workflow
        return Watch(
            started, finished, lambda: self.ended(workflow), self.slots, self.settings.service, plan, folder, logs
        )

    def keep(self, row: Row, task: Row, work: Path, strings: dict[str, Any], verdict: Verdict) -> Verdict:
        """Persists a task's outputs at once, so that they stay whatever becomes of the others."""
        try:
            for output in task["body"]["outputs"]:
                source = work / "output" / output["name"]
                if output.get("persistLocation") and source.is_dir():
                    self.storage.keep(source, f"{row['owner']}/{output['persistLocation']}")
        except Exception as error:
            return Verdict("failed", f"output port {output['name']!r} could not be kept: {printable(str(error))}")
        if strings:
            # The definition may have changed in the registry meanwhile, not here: the body is this task's own.
            for output in task["body"]["outputs"]:
                output["value"] = strings.get(output["name"], output.get("value"))
            self.store.write(WORKFLOW_TASKS.update().where(WORKFLOW_TASKS.c.id == task["id"]).values(body=task["body"]))
        return verdict

    def end_unfinished(self, row: Row, event: str, note: str) -> None:
        """Completes the tasks that are not, and the workflow by what became of its tasks."""
        workflow = row["id"]
        tasks = self.store.tasks_of(workflow)
        for task in tasks:
            if task["state"] == "running":
                self.store.set_task(workflow, task, "complete", event or "failed", note)
            elif task["state"] != "complete":
                self.store.set_task(workflow, task, "complete", "canceled", note)
        events = [task["event"] for task in self.store.tasks_of(workflow)]
        worst = next((one for one in ("failed", "timedout", "canceled") if one in events), "succeeded")
        if event and worst != "succeeded":
            worst = event
        self.store.set_workflow(workflow, "complete", worst, completed=now(), called_back=not row["callback"])
        if row["callback"]:
            self.call_back(workflow)

    def call_back(self, workflow: str) -> None:
        """Tells the callback URL, in the background."""
        threading.Thread(target=self.deliver, args=(workflow,), daemon=True).start()

    def deliver(self, workflow: str) -> None:
        """POSTs the workflow object to its callback until one POST is answered well, five times at most."""
        row = self.store.workflow(workflow)
        if row is None:
            return
        body = json.dumps(workflow_object(row, self.store.tasks_of(workflow))).encode()
        headers = {"Content-Type": "application/json", "X-Gbdx-Workflow": workflow}
        for attempt in range(CALLBACK_TRIES):
            with contextlib.suppress(OSError, ValueError):
                request = urllib.request.Request(row["callback"], body, headers)  # noqa: S310 (http or https, checked)
                urllib.request.urlopen(request, timeout=10).close()  # noqa: S310
                break
            if self.stopping.wait(min(2**attempt, 30)):
                return  # the next start tries again
        self.store.write(WORKFLOWS.update().where(WORKFLOWS.c.id == workflow).values(called_back=True))
