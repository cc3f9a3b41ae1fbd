"""An example comes to the same in each way that it can be run: status, strings, and the hash of each output file.

A batch is one in both services; under `make run` and in cwltool alone each item runs by itself. The chain runs on Slurm
in test_slurm.py. The examples that learn take minutes: check_differential.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from example_runs import ODD, by_cwltool, by_make_run, example, items, launch_all, outcome
from live_service import Session, serving

EXAMPLES = ("hello", "hello_chain", "hello_batch", "string_chain")


@pytest.fixture(scope="module")
def toil(hello_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A service whose engine is Toil on this machine."""
    with serving(tmp_path_factory.mktemp("toil"), "--engine", "toil") as service:
        yield Session(service.client())


@pytest.fixture(scope="module")
def on_toil(toil: Session) -> dict[str, list[str]]:
    """The examples on Toil, all at once: name -> workflows."""
    return {name: launch_all(toil, example(name)) for name in EXAMPLES}


@pytest.mark.parametrize("name", EXAMPLES)
def test_make_run_the_service_cwltool_alone_and_toil_come_to_the_same(
    name: str, session: Session, hello: str, toil: Session, on_toil: dict[str, list[str]], tmp_path: Path
) -> None:
    request = example(name)
    workflows, single = launch_all(session, request), items(request)
    by_hand = [by_make_run(item, tmp_path / f"make-run-{number}") for number, item in enumerate(single)]
    assert [outcome(session, workflow) for workflow in workflows] == by_hand
    alone = [
        by_cwltool(session, workflow, item, tmp_path / f"cwltool-{number}")
        for number, (workflow, item) in enumerate(zip(workflows, single, strict=True))
    ]
    assert alone == by_hand
    assert [outcome(toil, workflow) for workflow in on_toil[name]] == by_hand
    tasks = [task for item in by_hand for task in item.values()]
    assert {task["state"] for task in tasks} == {"success"}
    if name == "string_chain":
        assert [task["strings"] for task in tasks] == [{"joined": f"a{ODD}"}, {"joined": f"a{ODD}c"}]
    else:
        assert [[*task["files"]] for task in tasks] == [["data_out/out.txt"]] * len(tasks)
    assert len({str(item) for item in by_hand}) == len(single) == (3 if name == "hello_batch" else 1)
