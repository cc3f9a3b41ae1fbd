"""The repository's misbehaving tasks: the service comes to the verdict that `make run` comes to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from live_service import Service, Session
from misbehaving import TIMEOUTS, check_end, documented, image, registered

# The limits under which the repository's own table of verdicts holds.
LIMITS = {
    "GBDX_TASK_MEMORY": "64m",
    "GBDX_TASK_DISK": str(20 * 2**20),
    "GBDX_TASK_PROCESSES": "32",
    "GBDX_TASK_TMP": "16m",
}


@pytest.fixture(scope="module")
def ends(hello_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Any]]]:
    """Fixture -> its task, complete: all run at once."""
    service = Service(tmp_path_factory.mktemp("limited"), **LIMITS, GBDX_SLOTS="6", GBDX_WORKFLOWS="12")
    service.start()
    session = Session(service.client())
    data = session.put("in/data_file.txt", b"theirs")
    with image(tmp_path_factory.mktemp("context")) as name_of_image:
        names = sorted(documented(), key=lambda name: name not in TIMEOUTS)
        ids = {name: session.launch(registered(session, name, name_of_image, data)) for name in names}
        yield {name: session.wait(workflow)["tasks"][0] for name, workflow in ids.items()}
        assert session.text("in/data_file.txt") == "theirs"
    service.stop()


@pytest.mark.parametrize("name", documented())
def test_a_misbehaving_task_gets_the_same_verdict_as_under_make_run(name: str, ends: dict[str, dict[str, Any]]) -> None:
    check_end(name, ends[name])
