"""An example comes to the same in each way that it can be run: status, strings, and the hash of each output file.

The chain runs on Slurm in test_slurm.py. The examples that learn take minutes: check_differential.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from example_runs import by_cwltool, by_make_run, example, launch, outcome
from live_service import Session, serving

EXAMPLES = ("hello_chain", "hello_batch")


@pytest.fixture(scope="module")
def toil(hello_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A service whose engine is Toil on this machine."""
    with serving(tmp_path_factory.mktemp("toil"), "--engine", "toil") as service:
        yield Session(service.client())


@pytest.fixture(scope="module")
def on_toil(toil: Session) -> dict[str, str]:
    """The examples on Toil, all at once: name -> workflow."""
    return {name: launch(toil, example(name)) for name in EXAMPLES}


@pytest.mark.parametrize("name", EXAMPLES)
def test_make_run_the_service_cwltool_alone_and_toil_come_to_the_same(
    name: str, session: Session, hello: str, toil: Session, on_toil: dict[str, str], tmp_path: Path
) -> None:
    request = example(name)
    by_hand = by_make_run(request, tmp_path / "make-run")
    assert {task["state"] for task in by_hand.values()} == {"success"}
    assert {path for task in by_hand.values() for path in task["files"]} == {"data_out/out.txt"}
    workflow = launch(session, request)
    assert outcome(session, workflow) == by_hand
    assert by_cwltool(session, workflow, request, tmp_path / "cwltool") == by_hand
    assert outcome(toil, on_toil[name]) == by_hand
