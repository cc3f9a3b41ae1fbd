"""The GitHub workflows: what they call exists, is pinned, and runs here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from image_graph import ROOT, read_graph, task_folders
from ruamel.yaml import YAML
from walk_workflows import evaluate, read_workflow

WORKFLOWS = sorted(path.stem for path in (ROOT / ".github" / "workflows").glob("*.yml"))
STEPS = [
    (workflow, job, step)
    for workflow in WORKFLOWS
    for job, settings in read_workflow(workflow)["jobs"].items()
    for step in settings["steps"]
]
# Settings of a run that the tests' own run may have.
CLEAN = {key: value for key, value in os.environ.items() if key not in ("SINCE", "RELEASE", "GPU_RUNNER", "TASK")}


def walk(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """ci/walk_workflows.py, as `make ci` calls it."""
    command = [sys.executable, ROOT / "ci" / "walk_workflows.py", *arguments]
    return subprocess.run(command, env={**CLEAN, **settings}, capture_output=True, text=True, check=False)


def job_matrix(**settings: str) -> subprocess.CompletedProcess[str]:
    """ci/job_matrix.py, as `make matrix` calls it."""
    command = [sys.executable, ROOT / "ci" / "job_matrix.py"]
    return subprocess.run(command, env={**CLEAN, **settings}, capture_output=True, text=True, check=False)


def jobs_of(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """The entries of a printed matrix."""
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout.removeprefix("matrix="))["include"]
    return found


def test_there_are_workflows_to_test_publish_and_rebuild_and_one_for_a_card() -> None:
    assert WORKFLOWS == ["gpu", "publish", "rebuild", "test"]


def test_every_step_is_an_action_or_a_make_target_that_exists() -> None:
    verbs = set(re.findall(r"^([a-z-]+):.*?## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for workflow, job, step in STEPS:
        if "run" in step:
            called = re.fullmatch(r'make ([a-z-]+)( >>"\$GITHUB_OUTPUT")?', step["run"])
            assert called, f"{workflow}/{job}: expected a make target alone, found {step['run']}"
            assert called[1] in verbs, f"{workflow}/{job}: make {called[1]}"


def test_every_action_is_pinned_by_its_commit_with_the_version_beside_it() -> None:
    texts = [(ROOT / ".github" / "workflows" / f"{name}.yml").read_text() for name in WORKFLOWS]
    used = [line for text in texts for line in text.splitlines() if "uses:" in line]
    assert len(used) == sum("uses" in step for _, _, step in STEPS)
    assert [line for line in used if not re.search(r"uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line)] == []


@pytest.mark.parametrize("name", WORKFLOWS)
def test_jobs_have_no_permission_that_they_do_not_name_and_an_end(name: str) -> None:
    workflow = read_workflow(name)
    assert workflow["permissions"] == {}
    assert "concurrency" in workflow
    for job in workflow["jobs"].values():
        assert job["permissions"].items() >= {("contents", "read")}
        assert job["timeout-minutes"] <= 90


def test_only_publishing_may_write() -> None:
    writing = {
        (name, job)
        for name in WORKFLOWS
        for job, settings in read_workflow(name)["jobs"].items()
        if "write" in settings["permissions"].values()
    }
    assert writing == {("publish", "publish")}


def test_dependabot_looks_after_every_lock_and_every_base_but_those_of_the_past() -> None:
    updates = YAML(typ="safe").load((ROOT / ".github" / "dependabot.yml").read_text())["updates"]
    watched = {update["package-ecosystem"]: update.get("directories") for update in updates}
    listed = subprocess.check_output(["git", "-C", ROOT, "ls-files", "--", "*requirements*.txt"], text=True)
    locks = {f"/{Path(name).parent}" for name in listed.splitlines()}
    assert set(watched["pip"]) == locks - {"/base-images/theano"}
    bases = {f"/{image.folder.relative_to(ROOT)}" for image in read_graph().values() if image.external}
    assert set(watched["docker"]) == bases - {"/base-images/theano"}


def test_without_a_question_the_matrix_has_every_task_once() -> None:
    assert [job["task"] for job in jobs_of(job_matrix())] == [folder.name for folder in task_folders()]


def test_a_runner_with_a_card_gets_the_gpu_tasks_and_registers_them() -> None:
    jobs = [job for job in jobs_of(job_matrix(GPU_RUNNER="true")) if job["task"] == "train-cnn"]
    assert jobs == [
        {"task": "train-cnn", "device": "cpu", "runner": ["ubuntu-24.04"], "register": False},
        {"task": "train-cnn", "device": "gpu", "runner": ["self-hosted", "linux", "gpu"], "register": True},
    ]


def test_a_release_is_of_one_task_at_its_definitions_version() -> None:
    version = json.loads((ROOT / "hello-gbdx" / "hello-gbdx_definition.json").read_text())["version"]
    assert [job["task"] for job in jobs_of(job_matrix(RELEASE=f"hello-gbdx-{version}"))] == ["hello-gbdx"]
    other = job_matrix(RELEASE="hello-gbdx-99.0.0")
    assert other.returncode == 1
    assert f"tag 'hello-gbdx-99.0.0': expected the version of hello-gbdx's definition, {version}" in other.stderr
    unknown = job_matrix(RELEASE="v1")
    assert unknown.returncode == 1
    assert "tag 'v1': expected <task>-<version>, such as hello-gbdx-0.2.0" in unknown.stderr


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("github.ref", "refs/heads/main"),
        ("github.event.missing.sha || github.ref", "refs/heads/main"),
        ("github.ref == 'refs/heads/main'", True),
        ("vars.A && vars.B", ""),
        ("fromJSON(vars.list).include[0]", {"task": "x"}),
        ("fromJSON(vars.list).include[1]", ""),
    ],
)
def test_expressions_mean_what_they_mean_on_github(expression: str, expected: Any) -> None:
    listed = '{"include": [{"task": "x"}]}'
    context = {"github": {"ref": "refs/heads/main", "event": {}}, "vars": {"A": "1", "list": listed}}
    assert evaluate(expression, context) == expected


@pytest.mark.container
def test_the_test_workflow_runs_here_for_one_task(engine: str) -> None:
    done = walk("test", "container-test", TASK="hello-gbdx", DEVICE="cpu")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("== ")] == ["== affected", "== container-test hello-gbdx cpu"]
    assert "+ TASK=hello-gbdx DEVICE=cpu make container-test" in lines
    assert re.search(r"\d+ passed", done.stdout)


def test_a_step_that_fails_is_named_and_ends_the_walk() -> None:
    done = walk("publish", RELEASE="hello-gbdx-99.0.0")
    assert done.returncode == 1
    assert "matrix: tag 'hello-gbdx-99.0.0'" in done.stderr
    assert "ci: plan: 'make matrix >>\"$GITHUB_OUTPUT\"' ended with 2" in done.stderr
    assert "== publish" not in done.stdout


def test_a_job_for_a_card_is_left_out_where_nobody_has_one() -> None:
    done = walk("gpu", GPU_RUNNER="false")
    assert (done.returncode, done.stdout) == (0, "== gpu: not now: if ${{ vars.GPU_RUNNER == 'true' }}\n")


def test_signing_says_what_has_to_go_before(checkout: Path) -> None:
    command = [sys.executable, checkout / "ci" / "sign_image.py", "hello-gbdx"]
    done = subprocess.run(command, env=CLEAN, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "sign: hello-gbdx: expected what `make push TASK=hello-gbdx` writes, found none\n"
