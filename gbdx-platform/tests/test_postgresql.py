"""The same service with its state in a real PostgreSQL, which goes away and comes back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from live_service import API, Service, Session, definition, port, script, states, task
from postgresql import Cluster, cluster
from waiting import wait_until


@pytest.fixture
def database() -> Iterator[Cluster]:
    """A PostgreSQL that a test may stop and start."""
    with cluster() as running:
        yield running


def test_a_database_that_is_away_for_a_while_costs_no_workflow(
    hello_image: str, database: Cluster, tmp_path: Path
) -> None:
    service = Service(tmp_path, DATABASE_URL=database.url)
    service.start()
    try:
        session = Session(service.client())
        wait = "time.sleep(3)\nstrings['b'] = 'B'"
        session.register(definition("relay", [port("a", "string")], [port("b", "string")], script(wait)))
        workflow = session.launch(task("one", "relay", {"a": "x"}), task("two", "relay", {"a": ("one:b",)}))
        wait_until(lambda: "started" in session.events(workflow, "one") and service.containers())
        database.stop()
        refused = session.http.get(f"{API}/workflows/{workflow}")
        assert (refused.status_code, refused.json()["status"]) == (503, 503)
        assert refused.json()["message"] == "the service's database can't be used now; its log says more"
        wait_until(lambda: not service.containers())
        database.start()
        assert states(session.wait(workflow)) == {"one": "complete/succeeded", "two": "complete/succeeded"}
        assert session.events(workflow, "one") == ["submitted", "scheduled", "started", "succeeded"]
        assert not (tmp_path / "platform.sqlite").exists()
    finally:
        service.stop()
