"""Runs a CWL workflow with cwltool in this process; each container is hardened, watched and judged as `make run` does.

cwltool keeps the graph, the conditions, the staging of directories and the threads. What is ours hangs on its two
points of extension: a tool class that judges and collects outputs, and a job class that starts the container.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import secrets
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

from cwl_utils.sandboxjs import get_js_engine
from cwltool.command_line_tool import CommandLineTool
from cwltool.context import LoadingContext, RuntimeContext
from cwltool.docker import DockerCommandLineJob
from cwltool.executors import MultithreadedJobExecutor
from cwltool.load_tool import load_tool
from cwltool.workflow import default_make_tool

from gbdx_platform import containers
from gbdx_platform.cwl_tool import STATUS, is_string, output_ports, port_ids, wants_gpu
from gbdx_platform.cwl_workflow import Step
from gbdx_platform.hardened_container import Guard, account_of, give, mount
from gbdx_platform.recovery import remove_folder
from gbdx_platform.settings import Settings
from gbdx_platform.task_verdict import Verdict
from gbdx_platform.verdicts import Watch, end_of, string_outputs

# Bytes of a stream that are kept of one task, and what stands in place of those that are not.
LONGEST_LOG = 64 * 2**20
CUT = b"[the beginning of this log was cut]\n"

logging.getLogger("cwltool").setLevel(logging.CRITICAL)
logging.getLogger("salad").setLevel(logging.CRITICAL)


class TaskTool(CommandLineTool):
    """One task: its outputs are what the verdict leaves of them."""

    def make_job_runner(self, runtimeContext: RuntimeContext) -> type[DockerCommandLineJob]:
        """Our containers, whatever the context says, for the step that this tool was made for."""
        step_id = re.split("[#/]", self.tool["id"])[-1].removesuffix("-tool")
        return type("TaskJobOfStep", (TaskJob,), {"step_id": step_id})


class TaskJob(DockerCommandLineJob):
    """One container of one task."""

    step_id = ""

    def run(self, runtimeContext: RuntimeContext, tmpdir_lock: threading.Lock | None = None) -> None:
        """Waits for a slot, runs, judges, reports; nothing that goes wrong in here stops the other tasks."""
        watch: Watch = runtimeContext.gbdx_watch  # type: ignore[attr-defined]
        step = watch.plan.steps[self.step_id]
        outputs: dict[str, Any] = {}
        try:
            verdict = self.run_in_slot(runtimeContext, watch, step)
            outputs = self.outputs_of(watch, step, verdict)
        except Exception as error:  # the engine, the disk: the task's note says what
            verdict = watch.finished(step, Verdict("failed", f"the platform could not run it: {error}"), None)
            outputs = {STATUS: verdict.state}
        _, ids = port_ids(step.special)
        empty: dict[str, Any] = dict.fromkeys([*ids.values(), STATUS])
        assert runtimeContext.workflow_eval_lock is not None
        assert self.output_callback is not None
        with runtimeContext.workflow_eval_lock:
            self.output_callback({**empty, **outputs}, "success")

    def run_in_slot(self, context: RuntimeContext, watch: Watch, step: Step) -> Verdict:
        """The run once a slot is free, unless it is canceled before."""
        while not watch.slots.acquire(timeout=1):
            if reason := watch.canceled():
                return Verdict("canceled", reason)
        try:
            return self.one_run(context, watch, step)
        finally:
            watch.slots.release()

    def one_run(self, context: RuntimeContext, watch: Watch, step: Step) -> Verdict:
        """The container from its start to its end, and the verdict on it."""
        if reason := watch.canceled():
            return Verdict("canceled", reason)
        self._setup(context)
        name = f"gbdx-{self.step_id[:40].lower().strip('._-') or 'task'}-{secrets.token_hex(6)}"
        command = [
            *containers.run_options(name, watch.service, self.mounts(context), wants_gpu(step.definition, step.domain)),
            *(step.image, *map(str, self.command_line)),
        ]
        logs = watch.logs / self.step_id
        logs.mkdir(parents=True, exist_ok=True)
        stop = [containers.engine(), "stop", "--time", str(containers.GRACE), name]
        guard = Guard(stop, step.timeout, self.outdir, containers.limits().disk, watch.canceled)
        watch.started(step, name)
        guard.start()
        try:
            run_client(command, logs)
            account = account_of(containers.engine(), name)
        finally:
            guard.finished.set()
            # In the background, as nobody waits for it.
            threading.Thread(target=containers.remove, args=(name,), daemon=True).start()
        guard.join()
        return end_of(step, account, guard.stopped, Path(self.outdir), logs)

    def mounts(self, context: RuntimeContext) -> list[str]:
        """Bind mounts: the work folder, laid out by cwltool, and the input directories read-only below it."""
        assert self.generatemapper is not None
        volumes: list[str] = []
        self.add_volumes(self.generatemapper, volumes, context.tmpdir_prefix, None, True)
        (Path(self.outdir) / "output").mkdir()
        if os.getuid() == 0:
            give(Path(self.outdir), *containers.user())
        return [*mount(self.outdir, self.builder.outdir, False), *volumes]

    @staticmethod
    def append_volume(
        runtime: list[str], source: str, target: str, writable: bool = False, skip_mkdirs: bool = False
    ) -> None:
        """One bind mount, in the engine's spelling that takes any path."""
        runtime.extend(mount(source, target, not writable))

    def outputs_of(self, watch: Watch, step: Step, verdict: Verdict) -> dict[str, Any]:
        """Reports the end, and returns the CWL outputs: nothing but the state, when it was no success."""
        work = Path(self.outdir)
        if verdict.state != "success":  # now, as on a disk that it filled there is no room for the database otherwise
            remove_folder(work / "output")
        verdict = watch.finished(step, verdict, work)
        if verdict.state != "success":
            return {STATUS: verdict.state}
        _, ids = port_ids(step.special)
        strings = string_outputs(step, work)
        outputs: dict[str, Any] = {STATUS: "success"}
        for port in output_ports(step.special):
            folder = work / "output" / port["name"]
            if is_string(port):
                outputs[ids[port["name"]]] = strings.get(port["name"])
            elif folder.is_dir():
                outputs[ids[port["name"]]] = {
                    "class": "Directory",
                    "location": folder.as_uri(),
                    "basename": port["name"],
                }
        return outputs


def run_client(command: list[str], logs: Path) -> None:
    """Runs the engine's client to its end; the task's output goes to files as it comes, see copy_log."""
    client = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    streams = {"stdout.txt": client.stdout, "stderr.txt": client.stderr}
    copies = [threading.Thread(target=copy_log, args=(stream, logs / name)) for name, stream in streams.items()]
    for copy in copies:
        copy.start()
    for copy in copies:
        copy.join()
    client.wait()


def copy_log(stream: IO[bytes], path: Path) -> None:
    """Copies a stream to a file that holds LONGEST_LOG at most: the beginning goes for the end."""
    with stream, path.open("w+b", buffering=0) as file:
        while block := os.read(stream.fileno(), 65536):
            if file.tell() + len(block) > LONGEST_LOG:
                file.seek(-LONGEST_LOG // 2, os.SEEK_END)
                end = file.read()
                file.seek(0)
                file.truncate()
                file.write(CUT + end)
            with contextlib.suppress(OSError):  # a full disk ends the task, not the client that tells its end
                file.write(block)


def no_gpu(settings: Settings) -> str | None:
    """Where no GPU was found, None when there is one."""
    return None if containers.has_gpu() else "on this machine"


def make_tool(document: Any, loading: LoadingContext) -> Any:
    """cwltool's factory of processes, with our class for tools."""
    if document.get("class") == "CommandLineTool":
        return TaskTool(document, loading)
    return default_make_tool(document, loading)


def run(watch: Watch, settings: Settings) -> None:
    """Runs a plan to its end; what became of each task is told to the watch.

    Raises:
        cwltool's own errors, when the document could not be run at all.
    """
    # Relaxed, because a port may have any name, and its folder has it too.
    loading = LoadingContext(
        {"construct_tool_object": make_tool, "disable_js_validation": True, "relax_path_checks": True}
    )
    context = RuntimeContext(
        {
            "basedir": str(watch.folder),
            "tmpdir_prefix": f"{watch.folder}/tmp-",
            "tmp_outdir_prefix": f"{watch.folder}/out-",
            # Outputs of finished tasks stay for a new start, until the workflow is complete.
            "rm_tmpdir": False,
        }
    )
    context.gbdx_watch = watch  # type: ignore[attr-defined]
    document = watch.folder / "workflow.cwl.json"
    document.write_text(json.dumps(watch.plan.document), encoding="utf-8")
    process = load_tool(document.as_uri(), loading)
    executor = MultithreadedJobExecutor(min(settings.slots, len(watch.plan.steps)))
    executor.max_ram = sys.maxsize  # what a task may take is its container's limit, not what is free now
    try:
        executor.execute(process, watch.plan.job, context)
    finally:
        end_node()


def end_node() -> None:
    """Ends the node processes of this thread: cwl-utils keeps one for each thread that evaluates, past its end."""
    engine: Any = get_js_engine()
    started: dict[Any, subprocess.Popen[str]] = getattr(engine.localdata, "procs", {})
    for process in started.values():
        process.kill()
        process.communicate()
        with contextlib.suppress(ValueError):
            engine.processes_to_kill.remove(process)
    started.clear()
