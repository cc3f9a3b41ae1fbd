"""The registry on the live service: register, list, get, update, delete; owners, versions, images bound to a digest."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from live_service import API, Service, Session, definition, port, script, states, task

pytestmark = pytest.mark.both_databases
PORTS = ([port("a", "string", required=False)], [])


def test_a_task_is_registered_listed_described_and_deleted_with_the_contracts_words(
    session: Session, fresh: str
) -> None:
    asked = definition(fresh, *PORTS, script(""))
    del asked["properties"]
    registered = session.http.post(f"{API}/tasks", json=asked)
    assert (registered.status_code, registered.text) == (200, f"{fresh} successfully registered.")
    assert registered.headers["content-type"] == "text/html; charset=utf-8"
    assert fresh in session.http.get(f"{API}/tasks").json()["tasks"]
    filled = {**asked, "properties": {"isPublic": False, "timeout": 7200}}
    assert session.http.get(f"{API}/tasks/{fresh}").json() == filled
    assert session.http.get(f"{API}/tasks/{fresh.upper()}:0.1.0").json() == filled
    deleted = session.http.delete(f"{API}/tasks/{fresh}")
    assert (deleted.status_code, deleted.text) == (200, f"{fresh} successfully deleted.")
    assert session.http.get(f"{API}/tasks/{fresh}").status_code == 404
    again = session.http.delete(f"{API}/tasks/{fresh}")
    assert (again.status_code, again.json()) == (400, {"status": 400, "message": f"task '{fresh}' is not registered"})


def test_a_definition_of_generation_1_is_taken(session: Session, fresh: str) -> None:
    asked = definition(fresh, *PORTS, script(""))
    del asked["version"], asked["taskOwnerEmail"]
    session.register(asked)
    assert session.http.post(f"{API}/tasks", json=asked).status_code == 409
    assert states(session.run(task("old", f"{fresh}:0.0.1"))) == {"old": "complete/succeeded"}


def test_versions_must_rise_and_the_newest_is_meant_without_one(session: Session, fresh: str) -> None:
    asked = definition(fresh, *PORTS, script(""), version="0.9.0")
    session.register(asked)
    session.register({**asked, "version": "0.10.0"})
    refused = session.http.post(f"{API}/tasks", json={**asked, "version": "0.9.1"})
    said = f"task '{fresh}' exists already: expected a version above 0.10.0, found 0.9.1"
    assert (refused.status_code, refused.json()["message"]) == (409, said)
    assert session.http.get(f"{API}/tasks/{fresh}").json()["version"] == "0.10.0"
    assert session.http.get(f"{API}/tasks/{fresh}:0.9.0").json()["version"] == "0.9.0"


def test_a_version_is_deleted_alone_and_a_name_with_all_its_versions(session: Session, fresh: str) -> None:
    asked = definition(fresh, *PORTS, script(""))
    for version in ("0.1.0", "0.2.0", "0.3.0"):
        session.register({**asked, "version": version})
    deleted = session.http.delete(f"{API}/tasks/{fresh}:0.3.0")
    assert (deleted.status_code, deleted.text) == (200, f"{fresh} successfully deleted.")
    assert session.http.get(f"{API}/tasks/{fresh}").json()["version"] == "0.2.0"
    assert session.http.delete(f"{API}/tasks/{fresh}:0.1.0").status_code == 200

    def known() -> dict[str, bool]:
        paths = {version: f"{API}/tasks/{fresh}:{version}" for version in ("0.1.0", "0.2.0", "0.3.0")}
        return {version: session.http.get(path).status_code == 200 for version, path in paths.items()}

    assert known() == {"0.1.0": False, "0.2.0": True, "0.3.0": False}
    session.register({**asked, "version": "0.3.0"})
    assert session.http.delete(f"{API}/tasks/{fresh}").status_code == 200
    assert known() == {"0.1.0": False, "0.2.0": False, "0.3.0": False}


def test_all_errors_of_a_definition_come_at_once_with_key_expected_and_found(session: Session, fresh: str) -> None:
    asked = definition(fresh, [port("a", "number")], [], "")
    asked["properties"]["timeout"] = 172801
    asked["containerDescriptors"][0]["type"] = "PODMAN"
    answer = session.http.post(f"{API}/tasks", json=asked)
    assert answer.status_code == 400
    assert answer.json()["errors"] == [
        {
            "key": "containerDescriptors[0].type",
            "expected": 'one of "DOCKER", "GPUDOCKER", "AMI", "TASK_DRIVER"',
            "found": '"PODMAN"',
        },
        {"key": "inputPortDescriptors[0].type", "expected": 'one of "string", "directory"', "found": '"number"'},
        {"key": "properties.timeout", "expected": "an integer from 0 to 172800", "found": "172801"},
    ]  # fmt: skip


def test_all_that_the_schema_allows_and_the_service_does_not_take_comes_at_once(session: Session, fresh: str) -> None:
    asked = definition(fresh.ljust(201, "x"), *PORTS, "echo 'open")
    asked["containerDescriptors"][0]["type"] = "AMI"
    answer = session.http.post(f"{API}/tasks", json=asked)
    assert (answer.status_code, answer.json()["errors"]) == (400, [
        {"key": "name", "expected": "at most 200 characters", "found": "201"},
        {"key": "containerDescriptors[0].type", "expected": "DOCKER or GPUDOCKER to run here", "found": '"AMI"'},
        {
            "key": "containerDescriptors[0].command", "expected": "a command line (no closing quotation)",
            "found": '"echo \'open"',
        },
    ])  # fmt: skip


def test_an_image_that_is_nowhere_refuses_the_registration(session: Session, fresh: str) -> None:
    asked = definition(fresh, *PORTS, "")
    asked["containerDescriptors"][0]["properties"]["image"] = "localhost/no-such-image:1"
    answer = session.http.post(f"{API}/tasks", json=asked)
    assert answer.status_code == 400
    assert (
        "image 'localhost/no-such-image:1': expected it in the engine's store or to be pulled"
        in answer.json()["message"]
    )


def test_an_update_replaces_one_version_and_returns_it_with_defaults(session: Session, fresh: str) -> None:
    asked = definition(fresh, *PORTS, script(""))
    session.register(asked)
    changed = {**asked, "description": "Changed.", "properties": {"timeout": 9}}
    answer = session.http.put(f"{API}/tasks/{fresh}:0.1.0", json=changed)
    assert answer.json() == {**changed, "properties": {"isPublic": False, "timeout": 9}}
    assert session.http.get(f"{API}/tasks/{fresh}").json()["description"] == "Changed."
    other = session.http.put(f"{API}/tasks/{fresh}:0.1.0", json={**asked, "version": "0.2.0"})
    assert other.status_code == 400
    assert session.http.put(f"{API}/tasks/{fresh}:7.0.0", json=asked).status_code == 404


def test_another_account_sees_only_what_is_public_and_changes_nothing(
    session: Session, alice: Session, fresh: str
) -> None:
    private = definition(f"{fresh}-private", *PORTS, script(""))
    public = definition(f"{fresh}-public", *PORTS, script(""), properties={"isPublic": True, "timeout": 60})
    session.register(private)
    session.register(public)
    seen = alice.http.get(f"{API}/tasks").json()["tasks"]
    assert public["name"] in seen
    assert private["name"] not in seen
    assert alice.http.get(f"{API}/tasks/{private['name']}").status_code == 404
    assert alice.http.delete(f"{API}/tasks/{private['name']}").status_code == 400
    assert alice.http.delete(f"{API}/tasks/{public['name']}").status_code == 403
    assert alice.http.put(f"{API}/tasks/{public['name']}:0.1.0", json=public).status_code == 403
    assert alice.http.post(f"{API}/tasks", json={**public, "version": "9.0.0"}).status_code == 409
    assert states(alice.run(task("theirs", public["name"]))) == {"theirs": "complete/succeeded"}
    refused = alice.http.post(f"{API}/workflows", json={"name": "x", "tasks": [task("mine", private["name"])]})
    assert refused.status_code == 400


def test_a_name_that_two_accounts_register_at_the_same_time_becomes_one_accounts(
    service: Service, session: Session, alice: Session, fresh: str
) -> None:
    asked = [(who, definition(fresh, *PORTS, "", version=f"0.{n}.0")) for n in range(4) for who in (session, alice)]
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = list(pool.map(lambda one: one[0].http.post(f"{API}/tasks", json=one[1]), asked))
    assert {answer.status_code for answer in answers} == {200, 409}
    assert len({row["owner"] for row in service.store().versions(fresh)}) == 1
