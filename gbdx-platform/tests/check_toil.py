"""The engine Toil on one machine: the states, notes, strings and files that cwltool in the service gives, and the
verdicts on the repository's misbehaving tasks. Minutes, as Toil starts a process for each task; so it is named by hand:

    gbdx-platform/test.sh gbdx-platform/tests/check_toil.py
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live_service import API, IMAGE, ROOT, Service, Session, definition, port, script, task
from misbehaving import check_end, documented, image, registered
from waiting import wait_until

# Those that only a limit of memory, disk or processes stops: Toil sets none, and they would harm the machine.
UNLIMITED = {"fills-disk", "fills-disk-at-once", "fills-tmp", "eats-memory", "child-eats-memory", "forks-without-end"}
LIMITED = [name for name in documented() if name not in UNLIMITED]


def outcome(state: Path, *options: str) -> dict[str, Any]:
    """What one engine makes of a workflow with a chain, a failure, a timeout and strings."""
    service = Service(state, *options)
    service.start()
    try:
        session = Session(service.client())
        hello = json.loads((ROOT / "hello-gbdx" / "hello-gbdx_definition.json").read_text("utf-8"))
        hello["containerDescriptors"][0]["properties"]["image"] = IMAGE
        session.register(hello)
        optional = [port("a", "string", required=False)]
        fail = "print('said'); status = 'failed'; reason = 'no bands'"
        session.register(definition("fails", optional, [port("out")], script(fail)))
        session.register(definition("forgets", optional, [port("out")], script("")))
        session.register(definition("slow", optional, [port("out")], script("time.sleep(60)")))
        session.register(
            definition("strings", [port("a", "string")], [port("b", "string")], script("strings['b'] = 'B'"))
        )
        data = session.put("in/a.txt")
        workflow = session.launch(
            task("first", "hello-gbdx", {"data_in": data}),
            task("second", "hello-gbdx", {"data_in": ("first:data_out",), "message": "m"}, {"data_out": "out"}),
            task("bad", "fails"),
            task("after", "hello-gbdx", {"data_in": ("bad:out",)}),
            task("forgetful", "forgets"),
            task("late", "slow", timeout=2),
            task("s1", "strings", {"a": "x"}),
            task("s2", "strings", {"a": ("s1:b",)}),
        )
        found = session.wait(workflow, 900)
        log = session.http.get(f"{API}/workflows/{found['id']}/tasks/bad/stdout").text
        return {
            "states": {one["name"]: one["state"] for one in found["tasks"]},
            "notes": {one["name"]: one["note"] for one in found["tasks"]},
            "strings": [output["value"] for one in found["tasks"] for output in one["outputs"]],
            "files": {name: session.text(f"out/{name}") for name in session.names("out")},
            "log": log,
        }
    finally:
        service.stop()


@pytest.fixture(scope="module")
def with_cwltool(hello_image: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The outcome in the service itself."""
    return outcome(tmp_path_factory.mktemp("cwltool"))


def test_toil_and_cwltool_come_to_the_same(with_cwltool: dict[str, Any], tmp_path: Path) -> None:
    assert with_cwltool["files"] == {"out.txt": "out.txt\nm"}
    assert outcome(tmp_path, "--engine", "toil") == with_cwltool


def test_a_job_store_elsewhere_brings_the_same_but_not_the_name_of_a_missing_output(
    with_cwltool: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "state").mkdir()
    store = f"--engine-argument=--jobStore={tmp_path}/store-{{workflow}}"
    found = outcome(tmp_path / "state", "--engine", "toil", store)
    assert found["notes"].pop("forgetful") == "broken contract: the declared outputs were not all there"
    expected = {name: note for name, note in with_cwltool["notes"].items() if name != "forgetful"}
    assert found == {**with_cwltool, "notes": expected}


def processes_of(service: Service) -> list[str]:
    """The command lines of Toil that name the service's runs."""
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if "toil" in line and f"{service.state}/runs/" in line]


def test_a_killed_service_leaves_no_toil_and_after_its_next_start_no_container(
    hello_image: str, tmp_path: Path
) -> None:
    service = Service(tmp_path, "--engine", "toil")
    service.start()
    session = Session(service.client())
    optional = [port("a", "string", required=False)]
    session.register(definition("slow", optional, [], script("time.sleep(3000)"), properties={"timeout": 3600}))
    workflow = session.launch(task("slow", "slow"))
    wait_until(lambda: service.mounting(workflow))
    left = service.mounting(workflow)
    service.kill()
    wait_until(lambda: not processes_of(service))
    service.start()
    assert not set(left) & set(service.mounting(workflow))
    session = Session(service.client())
    session.http.post(f"{API}/workflows/{workflow}/cancel")
    assert session.wait(workflow)["state"]["event"] == "canceled"
    assert service.mounting(workflow) == []
    service.stop()


@pytest.fixture(scope="module")
def ends(hello_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Any]]]:
    """Misbehaving task -> what became of it: all are one workflow."""
    service = Service(tmp_path_factory.mktemp("misbehaving"), "--engine", "toil")
    service.start()
    session = Session(service.client())
    data = session.put("in/data_file.txt", b"theirs")
    with image(tmp_path_factory.mktemp("context")) as name_of_image:
        tasks = [registered(session, name, name_of_image, data) for name in LIMITED]
        workflow = session.launch(*tasks)
        yield {task["name"]: task for task in session.wait(workflow, 1200)["tasks"]}
    service.stop()


@pytest.mark.parametrize("name", LIMITED)
def test_a_misbehaving_task_gets_the_verdict_of_make_run_on_toil(name: str, ends: dict[str, dict[str, Any]]) -> None:
    check_end(name, ends[name])
