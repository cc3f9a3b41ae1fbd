#!/usr/bin/env python3
"""Runs the steps of a GitHub workflow on this machine: ci/walk_workflows.py WORKFLOW [JOB ...]

Jobs go in the order of their `needs`, each with every entry of its matrix (TASK keeps to one), so that what the YAML
calls is executed, with the environment that the YAML gives it. `vars` and `secrets` come from the environment; the
event is a push to a new branch, or of the tag RELEASE. Not run: actions (`uses`), and jobs that want a runner with
what this machine may lack (self-hosted).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from image_graph import ROOT
from ruamel.yaml import YAML

WORKFLOWS = ROOT / ".github" / "workflows"
EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
OWN_SETTINGS = ("TASK", "WORKFLOW", "RELEASE", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")
Context = dict[str, Any]


class WalkError(RuntimeError):
    """A workflow that can't be walked; the message says where."""


def read_workflow(name: str) -> dict[str, Any]:
    """A workflow by its file's name without .yml."""
    path = WORKFLOWS / f"{name}.yml"
    if not path.is_file():
        known = ", ".join(sorted(other.stem for other in WORKFLOWS.glob("*.yml")))
        raise WalkError(f"no workflow is called {name!r}; there are: {known}")
    found: dict[str, Any] = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    return found


def evaluate(expression: str, context: Context) -> Any:
    """The value of an expression of the few kinds that our workflows use: || && == 'text' fromJSON() and paths."""
    for operator in ("||", "&&", "=="):
        left, found, right = expression.partition(operator)
        if found:
            value = evaluate(left.strip(), context)
            if operator == "==":
                return value == evaluate(right.strip(), context)
            return value if bool(value) == (operator == "||") else evaluate(right.strip(), context)
    if expression.startswith("'"):
        return expression.strip("'")
    if called := re.fullmatch(r"fromJSON\((.*?)\)(.*)", expression):
        return look_up(json.loads(evaluate(called[1], context)), called[2])
    name, _, _ = expression.partition(".")
    return look_up(context[name], expression[len(name) :])


def look_up(value: Any, path: str) -> Any:
    """What lies at a path such as `.include[0]`; empty, as on GitHub, where there is nothing."""
    for key, index in re.findall(r"\.([\w-]+)|\[(\d+)\]", path):
        if key:
            value = value.get(key, "") if isinstance(value, dict) else ""
        else:
            value = value[int(index)] if int(index) < len(value) else ""
    return value


def fill(value: Any, context: Context) -> Any:
    """A value of the YAML with its expressions replaced; one that is nothing but an expression keeps its type."""
    if isinstance(value, dict):
        return {key: fill(one, context) for key, one in value.items()}
    if not isinstance(value, str):
        return value
    if whole := EXPRESSION.fullmatch(value):
        return evaluate(whole[1], context)
    return EXPRESSION.sub(lambda found: str(evaluate(found[1], context)), value)


def starting_context() -> Context:
    """What an expression may ask for at the start: a push to a new branch, and the environment's settings."""
    git = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    sha = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    name = os.environ.get("RELEASE") or "new-branch"
    github = {"event": {"before": "0" * 40}, "event_name": "push", "sha": sha, "ref": name, "ref_name": name}
    return {"github": github, "vars": dict(os.environ), "secrets": dict(os.environ), "needs": {}}


def in_order(jobs: dict[str, Any], wanted: list[str]) -> list[str]:
    """The jobs that are wanted (all when none is named) and those they need, these first."""
    done: list[str] = []

    def visit(name: str) -> None:
        if name not in jobs:
            raise WalkError(f"no job is called {name!r}; there are: {', '.join(jobs)}")
        needed = jobs[name].get("needs", [])
        for other in [needed] if isinstance(needed, str) else needed:
            visit(other)
        if name not in done:
            done.append(name)

    for name in wanted or jobs:
        visit(name)
    return done


def matrix_entries(job: dict[str, Any], context: Context) -> Iterator[Context]:
    """The entries of a job's matrix, those of TASK alone when it is set; one empty entry without a matrix."""
    matrix = fill(job.get("strategy", {}).get("matrix"), context)
    task = os.environ.get("TASK")
    for entry in matrix["include"] if matrix else [{}]:
        if not entry or task in (None, "", entry["task"]):
            yield entry


def run_step(step: dict[str, Any], environment: dict[str, str], context: Context) -> dict[str, str]:
    """Runs a step's commands as GitHub does; returns what they wrote to $GITHUB_OUTPUT.

    Raises:
        WalkError: they failed.
    """
    given = {key: str(value) for key, value in fill(step.get("env", {}), context).items()}
    settings = " ".join(f"{key}={value}" for key, value in given.items() if "TOKEN" not in key)
    print(f"+ {settings} {step['run']}".replace("  ", " "), flush=True)
    with tempfile.NamedTemporaryFile("r") as output:
        whole = {**environment, **given, "GITHUB_OUTPUT": output.name, "CI": "true"}
        command = ["bash", "-eo", "pipefail", "-c", step["run"]]
        done = subprocess.run(command, cwd=ROOT, env=whole, check=False)
        if done.returncode:
            raise WalkError(f"{step['run']!r} ended with {done.returncode}")
        return dict(line.split("=", 1) for line in output.read().splitlines())


def run_job(job: dict[str, Any], context: Context) -> dict[str, Any]:
    """Runs a job's steps for one entry of its matrix; returns its outputs."""
    # What was said to this script is no setting of the steps.
    kept = {key: value for key, value in os.environ.items() if key not in OWN_SETTINGS}
    environment = {**kept, **{key: str(value) for key, value in fill(job.get("env", {}), context).items()}}
    context = {**context, "steps": {}}
    for step in job["steps"]:
        if "if" in step and not fill(step["if"], context):
            print(f"- {step.get('run') or step['uses']}: not now: if {step['if']}", flush=True)
        elif "uses" in step:
            print(f"- {step['uses'].partition('@')[0]}: an action, not run here", flush=True)
        else:
            context["steps"][step.get("id", "")] = {"outputs": run_step(step, environment, context)}
    found: dict[str, Any] = fill(job.get("outputs", {}), context)
    return found


def walk(name: str, jobs: dict[str, Any], context: Context) -> list[str]:
    """Runs one job with its whole matrix; returns what failed."""
    job, failed = jobs[name], []
    if "if" in job and not fill(job["if"], context):
        print(f"== {name}: not now: if {job['if']}", flush=True)
        return []
    for entry in matrix_entries(job, context):
        inside = {**context, "matrix": entry}
        title = " ".join([name, *(str(entry[key]) for key in ("task", "device") if key in entry)])
        if "self-hosted" in fill(job["runs-on"], inside):
            print(f"== {title}: wants a runner of its own: {job['runs-on']}", flush=True)
            continue
        print(f"== {title}", flush=True)
        try:
            context["needs"][name] = {"outputs": run_job(job, inside)}
        except WalkError as error:
            failed.append(f"{title}: {error}")
    return failed


def main(workflow: str, wanted: list[str]) -> int:
    """Walks a workflow, or some of its jobs and what they need; 1 when a step failed."""
    jobs, context = read_workflow(workflow)["jobs"], starting_context()
    for name in in_order(jobs, wanted):
        # As on GitHub, what needs a job that failed is not run.
        if failed := walk(name, jobs, context):
            raise WalkError("\nci: ".join(failed))
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("ci: expected the name of a workflow, for example: make ci WORKFLOW=test")
    try:
        sys.exit(main(sys.argv[1], sys.argv[2:]))
    except WalkError as error:
        sys.exit(f"ci: {error}")
