"""The examples that learn come to the same under `make run`, in the service, in cwltool alone and on Toil. Minutes, and
images of 3 GB in all, which are built for the processor; so it is named by hand:

    gbdx-platform/test.sh gbdx-platform/tests/check_differential.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from example_runs import Outcome, build, by_cwltool, by_make_run, example, launch, outcome, tagged, without
from gbdx_platform import containers
from live_service import Session, serving

# Files that tell of the run itself, so that no two are equal: its seconds, memory and speed, and in model.keras the
# second in which Keras saved it (its weights are those of model_weights.h5, which are compared). Only the name counts.
CHANGING = {
    "rf_pool_chain": (),
    "train_cnn_chain": ("metrics.json", "history.csv", "model.keras"),
}


@pytest.fixture(scope="module", autouse=True)
def images() -> Iterator[None]:
    """All images of the examples."""
    names = sorted({task["taskType"] for name in CHANGING for task in example(name)["tasks"]})
    build(names)
    yield
    containers.call("rmi", *map(tagged, names))


@pytest.fixture(scope="module")
def toil(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A service whose engine is Toil on this machine."""
    with serving(tmp_path_factory.mktemp("toil"), "--engine", "toil") as service:
        yield Session(service.client())


@pytest.mark.parametrize("name", CHANGING)
def test_make_run_the_service_cwltool_alone_and_toil_come_to_the_same(
    name: str, session: Session, toil: Session, tmp_path: Path
) -> None:
    request, workflow = example(name), launch(session, example(name))

    def compared(found: Outcome) -> Outcome:
        return without(found, CHANGING[name])

    in_service = compared(outcome(session, workflow))
    assert [task["state"] for task in in_service.values()] == ["success"] * len(in_service)
    assert compared(by_make_run(request, tmp_path / "make-run")) == in_service
    assert compared(by_cwltool(session, workflow, request, tmp_path / "cwltool")) == in_service
    assert compared(outcome(toil, launch(toil, request))) == in_service
