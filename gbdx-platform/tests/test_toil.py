"""What Toil is asked for each batch system, as its own parser takes it, and what is refused when the service starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from gbdx_platform import containers, toil_engine
from gbdx_platform.settings import Settings
from live_service import Service
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
    arguments: list[str], sentence: str
) -> None:
    with pytest.raises(toil_engine.ToilError, match=sentence.replace("{", "\\{")):
        toil_engine.check(tuple(arguments))


def test_the_service_does_not_start_with_a_batch_system_that_there_is_not(tmp_path: Path) -> None:
    service = Service(tmp_path)
    done = service.command("serve", "--engine", "toil", "--engine-argument=--batchSystem=slrum", check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("--batchSystem: expected one of aws_batch, ")


def test_a_gpu_is_looked_for_on_this_machine_and_left_to_a_cluster_that_only_knows_itself(tmp_path: Path) -> None:
    here = Settings(tmp_path, "", "", engine="toil")
    assert toil_engine.no_gpu(here) == (None if containers.has_gpu() else "on this machine")
    there = Settings(tmp_path, "", "", engine="toil", engine_arguments=("--batchSystem=aws_batch", STORE))
    assert toil_engine.no_gpu(there) is None


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
