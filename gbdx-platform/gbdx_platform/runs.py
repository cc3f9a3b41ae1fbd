"""The life of a workflow: waits in the database, is fetched, run, kept, and ends with a true state and a note."""

from __future__ import annotations

import contextlib
import importlib
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy.exc import OperationalError

from gbdx_platform import containers, cwl_workflow
from gbdx_platform.callbacks import CALLS, CALLS_OF_ONE, TRIES, told
from gbdx_platform.cwl_tool import cwl_ids, timeout_of, wants_gpu
from gbdx_platform.database import WORKFLOWS, Row, Store, now
from gbdx_platform.recovery import handed_on, made_inputs, passed_over, remove_all_but, remove_folder, runnable
from gbdx_platform.settings import Settings
from gbdx_platform.storage import Storage, StorageError
from gbdx_platform.task_definition import container_properties
from gbdx_platform.task_verdict import Verdict, printable
from gbdx_platform.verdicts import Watch, string_outputs

# Seconds between the three tries: a local S3 that died comes back within 20 on a slow machine.
STORAGE_PAUSES = (4, 20)
LEFTOVER_SECONDS = 30
# The dispatcher looks this often at what nobody told it, and waits this long for a database that is away.
IDLE_SECONDS = 5
FORGET_SECONDS = 3600
# Canceled workflows that are ended before the dispatcher looks again at those that wait.
MOST_ENDED = 100
# A task that was interrupted by the end of the service is started again, unless it seems to be the cause.
MOST_STARTS = 10
# The state of a run in the contract's words; all else is a failure, and its name stands in the note.
EVENTS = {"success": "succeeded", "failed": "failed", "timedout": "timedout", "canceled": "canceled"}
# Inputs that are there already: (task, port) -> folder.
Fetched = dict[tuple[str, str], Path]
CANCELED = "canceled by its owner"
INTERRUPTED = "the service was stopped; the task starts again"


def complain(about: str, error: Exception) -> None:
    """One line in the service's log, where the disk that it is on takes one."""
    with contextlib.suppress(OSError):
        print(f"gbdx-platform: {about}: {printable(str(error) or repr(error))}", file=sys.stderr, flush=True)


def begin(function: Callable[[Row], None], row: Row, under_way: dict[str, threading.Thread], name: str) -> None:
    """Calls a function with a workflow in a thread of its own, which is under way until it says otherwise.

    Raises:
        RuntimeError: no more threads; the workflow waits on.
    """
    thread = under_way[row["id"]] = threading.Thread(target=function, args=(row,), name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError:
        del under_way[row["id"]]
        raise


class Runner:
    """Takes workflows from the database, the oldest first, a few at a time; what waits, waits there."""

    def __init__(self, settings: Settings, store: Store, storage: Storage) -> None:
        self.settings, self.store, self.storage = settings, store, storage
        self.slots = threading.Semaphore(settings.slots)
        self.wake, self.stopping = threading.Event(), threading.Event()
        self.canceled: set[str] = set()
        self.running: dict[str, threading.Thread] = {}
        # Callbacks: the threads, named by their workflow's owner; how often each was tried, and until when it rests.
        self.calling: dict[str, threading.Thread] = {}
        self.tried: dict[str, tuple[int, float]] = {}
        self.dispatcher = threading.Thread(target=self.dispatch, name="dispatcher", daemon=True)

    def start(self) -> None:
        """Lets what an earlier life of the service left running wait again, then begins to work."""
        containers.remove_leftovers(self.settings.service)
        if self.settings.engine == "toil":  # its containers don't carry the service's mark
            containers.remove_mounting(self.settings.state / "runs")
        for row in self.store.rows(sql.select(WORKFLOWS).where(WORKFLOWS.c.state == "running")):
            self.put_back(row)
        self.dispatcher.start()

    def stop(self) -> None:
        """Interrupts what is running, in a few seconds, and waits for it."""
        self.stopping.set()
        self.wake.set()
        self.dispatcher.join()
        for thread in list(self.running.values()):
            thread.join(containers.GRACE + 15)

    def cancel(self, chosen: Any) -> None:
        """Has the dispatcher end the workflows that a condition of SQL chooses and that are not complete."""
        self.store.write(WORKFLOWS.update().where(chosen, WORKFLOWS.c.state != "complete").values(canceling=True))
        self.wake.set()

    def end_canceled(self) -> None:
        """Tells those that run that they are canceled, and ends some of those that wait."""
        unfinished = sql.and_(WORKFLOWS.c.state.in_(("pending", "running")), WORKFLOWS.c.canceling)
        running = list(self.running)
        told = self.store.rows(sql.select(WORKFLOWS.c.id).where(unfinished, WORKFLOWS.c.id.in_(running)))
        self.canceled.update(row["id"] for row in told)
        query = sql.select(WORKFLOWS).where(unfinished, WORKFLOWS.c.id.not_in(running)).limit(MOST_ENDED)
        for row in self.store.rows(query):
            self.end_unfinished(row, "canceled", CANCELED)
            self.wake.set()  # there may be more

    def dispatch(self) -> None:
        """The dispatcher's thread; whatever goes wrong in it, it goes on."""
        born, next_forget = now(), 0.0
        while not self.stopping.is_set():
            try:
                self.engine()
                self.begin_waiting()
                self.begin_calls()
                self.end_canceled()
                if now() >= next_forget:
                    self.forget()
                    next_forget = now() + FORGET_SECONDS
                # A client of the engine that outlived a killed service may start its container a moment later.
                if now() - born < LEFTOVER_SECONDS:
                    containers.remove_leftovers(self.settings.service)
            except OperationalError as error:
                complain("the database can't be used, it is tried again", error)
            except Exception as error:
                complain("workflows that wait could not be looked after, it is tried again", error)
            self.wake.wait(IDLE_SECONDS)
            self.wake.clear()

    def begin_waiting(self) -> None:
        """Gives threads to the workflows that have waited longest; a running one without a thread waits, too."""
        free = self.settings.workflows - len(self.running)
        if free <= 0:
            return
        query = sql.select(WORKFLOWS).where(
            WORKFLOWS.c.state.in_(("pending", "running")),
            WORKFLOWS.c.id.not_in(list(self.running)),
            ~WORKFLOWS.c.canceling,
        )
        for row in self.store.rows(query.order_by(WORKFLOWS.c.submitted).limit(free)):
            begin(self.live, row, self.running, row["id"])

    def begin_calls(self) -> None:
        """Gives threads to the callbacks that are due, the oldest first; those that rest hold none."""
        calling = dict(self.calling)
        resting = [workflow for workflow, (_, until) in list(self.tried.items()) if until > time.monotonic()]
        owners = [thread.name for thread in calling.values()]
        query = sql.select(WORKFLOWS).where(
            WORKFLOWS.c.state == "complete",
            ~WORKFLOWS.c.called_back,
            WORKFLOWS.c.id.not_in([*calling, *resting]),
            WORKFLOWS.c.owner.not_in([owner for owner in owners if owners.count(owner) >= CALLS_OF_ONE]),
        )
        for row in self.store.rows(query.order_by(WORKFLOWS.c.completed).limit(CALLS - len(owners))):
            if owners.count(row["owner"]) < CALLS_OF_ONE:
                owners.append(row["owner"])
                begin(self.call_back, row, self.calling, row["owner"])

    def call_back(self, row: Row) -> None:
        """One try of a callback, or the record that it needs no more."""
        workflow = row["id"]
        tries, _ = self.tried.get(workflow, (0, 0.0))
        try:
            if tries < TRIES:
                tries = TRIES if told(row, self.store.tasks_of(workflow)) else tries + 1
            if tries == TRIES:
                self.store.write(WORKFLOWS.update().where(WORKFLOWS.c.id == workflow).values(called_back=True))
                self.tried.pop(workflow, None)
            else:
                self.tried[workflow] = tries, time.monotonic() + 2**tries
        except Exception as error:  # the database, most likely; what was taken is not told again
            complain(f"workflow {workflow}: its callback could not be looked after, it is tried again", error)
            self.tried[workflow] = tries, time.monotonic() + IDLE_SECONDS
        finally:
            del self.calling[workflow]
            self.wake.set()

    def forget(self) -> None:
        """Removes workflows that ended longer ago than the settings say, with their logs; what was persisted stays."""
        oldest = now() - self.settings.keep_days * 24 * 3600
        while forgotten := self.store.forget_workflows(oldest):
            for workflow in forgotten:
                remove_folder(self.settings.state / "logs" / workflow)
                remove_folder(self.settings.state / "runs" / workflow)

    def live(self, row: Row) -> None:
        """One workflow from waiting to complete, or until the service stops."""
        workflow = row["id"]
        try:
            row = self.store.workflow(workflow) or row  # which may have been canceled meanwhile
            if row["canceling"]:
                self.canceled.add(workflow)
            self.run(row)
            if workflow in self.canceled:
                self.end_unfinished(row, "canceled", CANCELED)
            elif not self.stopping.is_set():  # else the next start puts it back
                tasks = {task["name"]: task for task in self.store.tasks_of(workflow)}
                for name, note in passed_over(tasks).items():
                    self.store.set_task(tasks[name], "complete", "failed", note)
                self.end_unfinished(row, "", "a task that it waits for did not succeed")
        except OperationalError as error:
            complain(f"workflow {workflow}: the database can't be used, it is tried again", error)
            remove_folder(self.settings.state / "runs" / workflow / "inputs")  # which may be what fills the disk
            self.stopping.wait(IDLE_SECONDS)
        except Exception as error:  # the note tells it; a workflow never stays running
            note = f"the platform could not run it: {printable(str(error) or repr(error))}"
            with contextlib.suppress(OperationalError):
                self.patiently(self.end_unfinished, row, "failed", note)
        finally:
            self.running.pop(workflow, None)
            self.canceled.discard(workflow)
            self.wake.set()

    def patiently(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        """Calls a function until the database takes what it writes, so that no work is lost to a database that is away.

        Raises:
            OperationalError: it did not, and the service stops.
        """
        while True:
            try:
                function(*arguments, **named)
                return
            except OperationalError as error:
                complain("the database can't be used, it is tried again", error)
                if self.stopping.wait(IDLE_SECONDS):
                    raise

    def put_back(self, row: Row) -> None:
        """An interrupted workflow waits again; what it has finished stays finished."""
        for task in self.store.tasks_of(row["id"]):
            if task["state"] != "running":
                continue
            if self.store.starts(task) < MOST_STARTS:
                self.store.set_task(task, "pending", "submitted", INTERRUPTED, started=None, container=None)
            else:
                self.store.set_task(task, "complete", "failed", f"the service ended while it ran, {MOST_STARTS} times")
        self.store.set_workflow(row["id"], "pending", "submitted")

    # --- one workflow

    def run(self, row: Row, fetched: Fetched | None = None) -> None:
        """Fetches and runs what a workflow's tasks have not done yet."""
        fetched = fetched or {}
        workflow, folder = row["id"], self.settings.state / "runs" / row["id"]
        tasks = {task["name"]: task for task in self.store.tasks_of(workflow)}
        names = runnable(tasks)
        finished = [task["body"] for name, task in tasks.items() if name not in names]
        remove_all_but([*(body["work"] for body in finished if "work" in body), *map(str, fetched.values())], folder)
        for name in names:
            if tasks[name]["event"] != "scheduled":
                self.store.set_task(tasks[name], "pending", "scheduled", again=tasks[name]["state"] == "complete")
        if not names:
            return
        self.store.set_workflow(workflow, "pending", "scheduled")
        steps = [self.step(tasks[name], handed_on(tasks[name], tasks, names)) for name in names]
        bare = self.settings.engine == "cwltool"
        if not bare:  # other machines have no ids of this one's images
            for step in steps:
                step.image = container_properties(step.definition)["image"]
        plan = cwl_workflow.plan(steps, row["name"], bare, cwl_ids(list(tasks)))
        faults = self.prepare(row, tasks, plan, folder, fetched)
        if faults:
            for name, note in faults.items():
                self.store.set_task(tasks[name], "complete", "failed", note)
            self.run(row, fetched)  # what does not wait for them
        elif not self.ended(workflow):
            self.engine().run(self.watch(row, tasks, plan, folder), self.settings)

    def step(self, task: Row, request: dict[str, Any] | None = None) -> cwl_workflow.Step:
        """A task of the database as a step to run; request: in place of its own."""
        body = task["body"]
        own = None if body["entrypoint"] else body["command"]
        return cwl_workflow.Step(
            task["name"], body["definition"], request or body["request"], body["image_id"],
            body["request"].get("timeout") or timeout_of(body["definition"]), body["domain"], own,
        )  # fmt: skip

    def engine(self) -> Any:
        """The module of the chosen engine; cwltool takes seconds to import, so that it is loaded beside the start."""
        return importlib.import_module(f"gbdx_platform.{self.settings.engine}_engine")

    def ended(self, workflow: str) -> str:
        """Why this workflow is to end, empty as long as nobody wants it to."""
        if workflow in self.canceled:
            return CANCELED
        return "the service was stopped" if self.stopping.is_set() else ""

    def prepare(
        self, row: Row, tasks: dict[str, Row], plan: cwl_workflow.Plan, folder: Path, fetched: Fetched
    ) -> dict[str, str]:
        """Checks images and GPUs, fetches the inputs; returns the notes of the tasks that can't start."""
        faults: dict[str, str] = {}
        for step in plan.steps.values():
            try:
                registered = tasks[step.name]["body"]["image_id"]
                containers.check_image(container_properties(step.definition)["image"], registered)
            except containers.EngineError as error:  # which was waited for, once for all steps
                return dict.fromkeys((one.name for one in plan.steps.values()), str(error))
            except containers.ImageError as error:
                faults[step.name] = str(error)
            if wants_gpu(step.definition, step.domain) and (where := self.engine().no_gpu(self.settings)):
                faults[step.name] = f"task {step.name!r}: expected a GPU (domain {step.domain}), found none {where}"
        if faults:
            return faults
        made = {(step.name, port) for step in plan.steps.values() for port in made_inputs(step.request)}
        for identifier, (task, port, url) in plan.folders.items():
            if task in faults or self.ended(row["id"]):
                continue
            # The basename is the port's, so that no file of a user can name a folder here.
            target = fetched.get((task, port), folder / "inputs" / str(len(fetched)) / "input")
            place = url if (task, port) in made else target.as_uri()
            try:
                if place != url and (task, port) not in fetched:
                    # Closed, because what is fetched into it is made readable for the tasks' user.
                    (folder / "inputs").mkdir(parents=True, exist_ok=True, mode=0o700)
                    self.try_storage(row["id"], self.storage.fetch, url, row["owner"], target)
                    containers.let_read(target)
                    fetched[task, port] = target
                plan.job[identifier] = {"class": "Directory", "location": place}
            except Exception as error:
                remove_folder(target)  # now, because a full disk has no room for the database's rows
                faults[task] = f"input port {port!r}: {printable(str(error))}"
        return {} if self.ended(row["id"]) else faults

    def try_storage(self, workflow: str, function: Callable[..., Any], *arguments: Any) -> None:
        """Three tries, except where another try can't help.

        Raises:
            StorageError: none succeeded, or the workflow is to end.
        """

        def go_on() -> None:
            if reason := self.ended(workflow):
                raise StorageError(reason)

        for tries, pause in enumerate((*STORAGE_PAUSES, 0), 1):
            try:
                function(*arguments, go_on)
                return
            except StorageError:
                raise
            except Exception as error:
                if not pause or self.ended(workflow):
                    raise StorageError(f"{error} ({tries} tries)") from error
            again = time.monotonic() + pause
            while time.monotonic() < again and not self.ended(workflow):
                self.stopping.wait(0.5)

    def watch(self, row: Row, tasks: dict[str, Row], plan: cwl_workflow.Plan, folder: Path) -> Watch:
        """What the engine tells, written into the database."""
        workflow = row["id"]

        def started(step: cwl_workflow.Step, container: str) -> None:
            task = tasks[step.name]
            # Together, so that no moment shows a running task in a workflow that waits.
            self.patiently(self.store.set_workflow, workflow, "running", "started")
            self.patiently(self.store.set_task, task, "running", "started", started=now(), container=container)

        def finished(step: cwl_workflow.Step, verdict: Verdict, work: Path | None) -> Verdict:
            task = tasks[step.name]
            if verdict.state == "success" and work:
                # A mode of 000 would stop the next task, or a service that isn't root.
                containers.let_read(work / "output")
                verdict, strings = self.keep(row, task, work, verdict), string_outputs(step, work)
                task["body"] |= {"work": str(work), "strings": strings}
                for output in task["body"]["outputs"]:
                    output["value"] = strings.get(output["name"])
            if verdict.state == "canceled" and workflow not in self.canceled:
                return verdict  # the service stops; the task stays unfinished
            event = EVENTS.get(verdict.state, "failed")
            note = verdict.reason if verdict.state in EVENTS else f"{verdict.state}: {verdict.reason}"
            self.patiently(self.store.set_task, task, "complete", event, note, body=task["body"])
            return verdict

        folder.mkdir(parents=True, exist_ok=True)
        logs = self.settings.state / "logs" / workflow
        return Watch(
            started, finished, lambda: self.ended(workflow), self.slots, self.settings.service, plan, folder, logs
        )

    def keep(self, row: Row, task: Row, work: Path, verdict: Verdict) -> Verdict:
        """Persists a task's outputs at once, so that they stay whatever becomes of the others."""
        for output in task["body"]["outputs"]:
            source = work / "output" / output["name"]
            if not output.get("persistLocation") or not source.is_dir():
                continue
            prefix = f"{row['owner']}/{output['persistLocation']}"
            try:
                self.try_storage(row["id"], self.storage.keep, source, prefix)
            except Exception as error:
                if reason := self.ended(row["id"]):
                    return Verdict("canceled", reason)
                return Verdict("failed", f"output port {output['name']!r} could not be kept: {printable(str(error))}")
        return verdict

    def end_unfinished(self, row: Row, event: str, note: str) -> None:
        """Completes the tasks that are not, and the workflow by what became of its tasks."""
        workflow = row["id"]
        # First, because on a full disk there is no room for the database's rows otherwise.
        remove_folder(self.settings.state / "runs" / workflow)
        for task in self.store.tasks_of(workflow):
            if task["state"] != "complete":
                done = (event or "failed") if task["state"] == "running" else "canceled"
                self.store.set_task(task, "complete", done, note)
        events = [task["event"] for task in self.store.tasks_of(workflow)]
        worst = next((one for one in ("failed", "timedout", "canceled") if one in events), "succeeded")
        if event and worst != "succeeded":
            worst = event
        values = {"completed": now(), "called_back": not row["callback"]}
        self.store.set_workflow(workflow, "complete", worst, **values)
        self.wake.set()  # there may be a callback
