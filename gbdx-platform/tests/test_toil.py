"""What Toil is asked for each batch system, as its own parser takes it, and what is refused when the service starts."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from gbdx_platform import containers, cwl_tool, toil_engine
from gbdx_platform.cwl_workflow import Step, plan
from gbdx_platform.settings import Settings
from gbdx_platform.task_verdict import Verdict
from gbdx_platform.verdicts import Watch
from live_service import Service, definition, port, task
from toil.cwl.cwltoil import get_options

STORE = "--jobStore=aws:us-west-2:gbdx-{workflow}"


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        ([], {"batchSystem": "single_machine"}),
        (["--batchSystem=slurm", "--slurmPartition=long"], {"batchSystem": "slurm", "slurm_partition": "long"}),
        (["--batchSystem", "htcondor"], {"batchSystem": "htcondor"}),
        (["--batchSystem=lsf", "--maxJobs=50"], {"batchSystem": "lsf", "max_jobs": 50}),
        (["--batchSystem=grid_engine"], {"batchSystem": "grid_engine"}),
        (["--batchSystem=torque"], {"batchSystem": "torque"}),
        (["--batchSystem=mesos"], {"batchSystem": "mesos"}),
    ],
)
def test_a_batch_system_that_shares_the_folder_of_state_works_in_it(
    tmp_path: Path, arguments: list[str], asked: dict[str, object]
) -> None:
    found = vars(get_options(words_of_toil(tmp_path / "4711", arguments)))
    in_place = {
        "jobStore": f"file:{tmp_path}/4711/store",
        "bypass_file_store": True,
        "outdir": f"{tmp_path}/4711/results",
    }
    assert {key: found[key] for key in {**asked, **in_place}} == {**asked, **in_place}


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (
            ["--batchSystem=aws_batch", STORE, "--awsBatchRegion=us-west-2", "--awsBatchQueue=gbdx"],
            {"batchSystem": "aws_batch", "aws_batch_region": "us-west-2", "aws_batch_queue": "gbdx"},
        ),
        (["--batchSystem=kubernetes", STORE], {"batchSystem": "kubernetes"}),
    ],
)
def test_a_batch_system_in_a_cloud_gets_a_job_store_for_each_workflow(
    tmp_path: Path, arguments: list[str], asked: dict[str, object]
) -> None:
    found = vars(get_options(words_of_toil(tmp_path / "4711", arguments)))
    stored = {"jobStore": "aws:us-west-2:gbdx-4711", "bypass_file_store": False, "enable_ext": True}
    assert {key: found[key] for key in {**asked, **stored}} == {**asked, **stored}


def words_of_toil(folder: Path, arguments: list[str]) -> list[str]:
    """What follows the program's name on Toil's command line."""
    line = toil_engine.command(folder, tuple(arguments))
    return line[line.index(toil_engine.program()) + 1 :]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--batchSystem=slrum"], "--batchSystem: expected one of aws_batch, .*, slurm, torque, found 'slrum'"),
        (["--batchSystem=htcondor"], "--batchSystem=htcondor: expected the Python package htcondor, found none"),
        (["--batchSystem=lsf"], "--batchSystem=lsf: expected the program bsub on PATH, found none"),
        (
            ["--batchSystem=aws_batch"],
            "--batchSystem=aws_batch: expected --jobStore=aws:<region>:<name>-{workflow}, as its nodes share no folder",
        ),
        (["--jobStore=aws:us-west-2:gbdx"], "--jobStore: expected {workflow} in it, as each workflow needs its own"),
    ],
)
def test_arguments_with_which_nothing_could_run_are_refused_with_a_sentence(
    arguments: list[str], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(toil_engine.ToilError, match=sentence.replace("{", "\\{")):
        toil_engine.check(tuple(arguments), tmp_path)


def test_the_service_does_not_start_with_a_batch_system_that_there_is_not(tmp_path: Path) -> None:
    service = Service(tmp_path)
    done = service.command("serve", "--engine", "toil", "--engine-argument=--batchSystem=slrum", check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("--batchSystem: expected one of aws_batch, ")


def test_a_folder_of_state_that_toil_takes_for_another_is_refused_before_anything_runs(tmp_path: Path) -> None:
    done = Service(tmp_path / "my state").command("serve", "--engine", "toil", check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("state: expected letters, digits and ./,+@=~- in the path for Toil, found ' ' in /")


def test_a_gpu_is_looked_for_on_this_machine_and_left_to_a_cluster_that_only_knows_itself(tmp_path: Path) -> None:
    here = Settings(tmp_path, "", "", engine="toil")
    assert toil_engine.no_gpu(here) == (None if containers.has_gpu() else "on this machine")
    there = Settings(tmp_path, "", "", engine="toil", engine_arguments=("--batchSystem=aws_batch", STORE))
    assert toil_engine.no_gpu(there) is None


@pytest.mark.parametrize(
    ("kind", "in_another_domain"),
    [({"type": "GPUDOCKER"}, True), ({"properties": {"image": "i", "domain": "nvidiagpu"}}, False)],
)
def test_a_gpu_task_asks_each_engine_for_a_gpu_by_its_type_or_by_its_domain(
    kind: dict[str, Any], in_another_domain: bool
) -> None:
    found = definition("t", [], [], "true")
    assert not cwl_tool.wants_gpu(found)
    found["containerDescriptors"][0] |= kind
    assert cwl_tool.wants_gpu(found)
    assert cwl_tool.tool(found)["hints"] == cwl_tool.CUDA
    options = containers.run_options("name", "service", [], cwl_tool.wants_gpu(found))
    assert options[options.index("--gpus") + 1] == "all"
    assert cwl_tool.wants_gpu(found, domain="default") == in_another_domain


def test_streams_that_a_task_has_replaced_by_links_are_not_followed(tmp_path: Path) -> None:
    work, logs, secret = tmp_path / "step-1", tmp_path / "logs", tmp_path / "secret"
    work.mkdir()
    secret.write_text("secret")
    (work / "a.gbdx_stdout.txt").symlink_to(secret)
    (work / "a.gbdx_stderr.txt").write_text("said")
    toil_engine.link_logs(work, "a", logs)
    assert [path.name for path in logs.iterdir()] == ["stderr.txt"]
    with (work / "a.gbdx_stderr.txt").open("a") as stream:
        stream.write(" more")
    assert (logs / "stderr.txt").read_text() == "said more"


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("\tValueError: a\n\tcwl_utils.errors.WorkflowException: no card\n\t[E] [toil.worker] Exiting", "no card"),
        (
            "[x] [MainThread] [I] [toil] so\n[x] [MainThread] [E] [root] more than the maximum\n",
            "more than the maximum",
        ),
        ("said nothing of use", "said nothing of use"),
    ],
)
def test_the_reason_of_a_run_that_failed_is_found_in_the_log(tmp_path: Path, log: str, reason: str) -> None:
    (tmp_path / "toil.log").write_text(log)
    assert toil_engine.last_words(tmp_path / "toil.log", 1) == f"Toil ended with exit code 1: {reason}"


def test_toil_finds_the_container_engine_of_the_service() -> None:
    assert str(Path(containers.engine()).parent) in toil_engine.environment()["PATH"].split(os.pathsep)


def test_streams_are_linked_over_what_a_killed_service_left_and_a_folder_in_their_place_is_passed_over(
    tmp_path: Path,
) -> None:
    work, logs = tmp_path / "step-1", tmp_path / "logs"
    (work / "a.gbdx_stderr.txt").mkdir(parents=True)
    (work / "a.gbdx_stdout.txt").write_text("said")
    logs.mkdir()
    (logs / "stdout.new").touch()
    toil_engine.link_logs(work, "a", logs)
    assert [path.name for path in logs.iterdir()] == ["stdout.txt"]
    assert (logs / "stdout.txt").read_text() == "said"


def watching(folder: Path, told: list[Any]) -> Watch:
    """A watch on two tasks, `a` and then `b`, that writes down what it is told."""
    given = definition("t", [port("in", required=False)], [port("out")], "true")
    requests = [task("a", "t"), task("b", "t", {"in": ("a:out",)})]
    steps = [Step(request["name"], given, request, "image", timeout=60, own_command=[]) for request in requests]

    def finished(step: Step, verdict: Verdict, work: Path | None) -> Verdict:
        told.append((step.name, verdict.state, verdict.reason))
        return verdict

    begun = lambda step, container: told.append((step.name, "begun"))  # noqa: E731
    return Watch(begun, finished, lambda: "", threading.Semaphore(), "", plan(steps), folder, folder / "logs")


def test_a_task_is_running_and_then_judged_by_the_folder_that_it_leaves(tmp_path: Path) -> None:
    told: list[Any] = []
    progress: dict[str, toil_engine.Begun] = {}
    watch, work = watching(tmp_path, told), tmp_path / "step-x"
    (work / "output").mkdir(parents=True)
    (work / "a.gbdx_stdout.txt").write_text("said")
    toil_engine.look(watch, progress)
    assert told == [("a", "begun")]
    (work / "status.json").write_text('{"status": "success"}')
    (work / "gbdx_exit.json").write_text('{"exit_code": 0}')
    toil_engine.look(watch, progress)
    toil_engine.look(watch, progress)
    assert told[1:] == [("a", "broken contract", "output port 'out': expected a directory, found nothing")]
    assert (tmp_path / "logs" / "a" / "stdout.txt").read_text() == "said"


def test_no_task_tells_the_end_of_another_by_files_with_its_names(tmp_path: Path) -> None:
    told: list[Any] = []
    progress: dict[str, toil_engine.Begun] = {}
    watch, work = watching(tmp_path, told), tmp_path / "step-x"
    toil_engine.hide_names(watch.plan.document)
    work.mkdir()
    tool = watch.plan.document["steps"]["a"]["run"]
    for name in (tool["stdout"], "b.gbdx_stdout.txt"):
        (work / name).touch()
    (work / "gbdx_exit.json").write_text('{"exit_code": 1}')
    for _ in range(3):
        toil_engine.look(watch, progress)
    assert told == [
        ("a", "begun"),
        ("a", "failed", "exit code 1, and status.json: expected the task to write it, found none"),
    ]
    assert (tmp_path / "logs" / "a" / "stdout.txt").samefile(work / tool["stdout"])


def test_a_task_that_was_killed_after_its_time_leaves_no_record_and_is_timed_out(tmp_path: Path) -> None:
    told: list[Any] = []
    watch = watching(tmp_path, told)
    progress: dict[str, toil_engine.Begun] = {}
    (tmp_path / "step-x").mkdir()
    (tmp_path / "step-x" / "a.gbdx_stdout.txt").touch()
    toil_engine.look(watch, progress)
    progress["a"].since = time.monotonic() - 60 - 61
    toil_engine.look(watch, progress)
    toil_engine.look(watch, progress)
    assert told == [("a", "begun"), ("a", "timedout", "over its timeout of 60 s")]


def test_what_toil_could_not_run_has_failed_and_what_waits_for_it_has_not(tmp_path: Path) -> None:
    told: list[Any] = []
    watch = watching(tmp_path, told)
    for step in watch.plan.steps.values():
        toil_engine.fail(watch, step, None, {}, "no card")
    assert told == [("a", "failed", "no card")]


def test_a_name_that_toil_can_not_hand_on_is_told_with_the_port(tmp_path: Path) -> None:
    told: list[Any] = []
    watch, folder = watching(tmp_path, told), tmp_path / "step-x" / "output" / "out"
    folder.mkdir(parents=True)
    (folder / os.fsdecode(b"\xe9t\xe9")).touch()
    begun = toil_engine.Begun(tmp_path / "step-x", time.monotonic(), state="success")
    toil_engine.fail(watch, watch.plan.steps["b"], None, {"a": begun}, "surrogates not allowed")
    note = "input port 'in': expected names of files in UTF-8, as Toil needs them, found '\\udce9t\\udce9'"
    assert told == [("b", "failed", note)]
