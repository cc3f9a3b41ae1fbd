"""A service that is killed or stopped, and what it does when it comes back: nothing is lost, nothing stays running."""

from __future__ import annotations

import pytest
from check_crashes import kill_at_random
from gbdx_platform import containers
from live_service import API, Service, Session, definition, port, script, states, task
from postgresql import cluster
from waiting import wait_until

INTERRUPTED = "the service was stopped; the task starts again"
# Takes a folder and a string, gives both on; where the string ends with "slow", it takes three seconds.
RELAY = (
    "import shutil\ngiven = json.load(open(work + 'input/ports.json')).get('text', 'first')\n"
    "if given.endswith('slow'): time.sleep(3)\n"
    "os.makedirs(work + 'output/out')\n"
    "names = os.listdir(work + 'input/data') if os.path.isdir(work + 'input/data') else []\n"
    "open(work + 'output/out/' + given + '.txt', 'w').write(','.join(names))\nstrings['said'] = given + ' slow'"
)
RELAY_PORTS = (
    [port("data", required=False), port("text", "string", required=False)],
    [port("out"), port("said", "string")],
)


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_an_interrupted_workflow_goes_on_from_the_task_that_was_interrupted(own_service: Service, end: str) -> None:
    own_service.start()
    session = Session(own_service.client())
    session.register(definition("relay", *RELAY_PORTS, script(RELAY)))
    workflow = session.launch(
        task("one", "relay", persist={"out": "kept/one"}),
        task("two", "relay", {"data": ("one:out",), "text": ("one:said",)}),
        task("three", "relay", {"data": ("two:out",), "text": "third"}, {"out": "kept/three"}),
    )
    waiting = session.launch(task("next", "relay"))
    wait_until(lambda: "started" in session.events(workflow, "two") and own_service.containers())
    getattr(own_service, end)()
    own_service.start()
    session = Session(own_service.client())
    found = session.wait(workflow)
    assert states(found) == dict.fromkeys(["one", "two", "three"], "complete/succeeded")
    assert session.text("kept/three/third.txt") == "first slow.txt"
    assert session.events(workflow, "one") == ["submitted", "scheduled", "started", "succeeded"]
    assert session.events(workflow, "two") == [
        *("submitted", "scheduled", "started", "submitted", "scheduled", "started", "succeeded")
    ]
    events = session.http.get(f"{API}/workflows/{workflow}/events").json()["Events"]
    assert [one["note"] for one in events if one["note"]] == [INTERRUPTED]
    assert states(session.wait(waiting)) == {"next": "complete/succeeded"}
    wait_until(lambda: not own_service.containers() and not list((own_service.state / "runs").iterdir()))


def test_a_workflow_that_was_being_canceled_when_the_service_died_is_canceled(own_service: Service) -> None:
    own_service.start()
    session = Session(own_service.client())
    # It ignores SIGTERM, so that there is time between the wish and the end.
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    session.register(definition("stubborn", *RELAY_PORTS, script(stubborn)))
    workflow = session.launch(task("one", "stubborn"))
    wait_until(lambda: "started" in session.events(workflow, "one") and own_service.containers())
    session.http.post(f"{API}/workflows/{workflow}/cancel")
    own_service.kill()
    own_service.start()
    found = Session(own_service.client()).wait(workflow)
    assert (states(found), found["tasks"][0]["note"]) == ({"one": "complete/canceled"}, "canceled by its owner")


def test_a_batch_is_canceled_in_the_background_and_though_the_service_dies_at_once(own_service: Service) -> None:
    own_service.start()
    session = Session(own_service.client())
    session.register(definition("slow", *RELAY_PORTS, script("time.sleep(600)")))
    request = {"name": "many", "tasks": [task("one", "slow", {"text": "{{n}}"})]}
    request["batch_values"] = [{"name": "n", "values": [str(number) for number in range(400)]}]
    batch = session.http.post(f"{API}/batch_workflows", json=request).json()
    identifiers = [one["workflow_id"] for one in batch["workflows"]]
    wait_until(lambda: any("started" in session.events(one, "one") for one in identifiers[:1]))
    address = f"{API}/batch_workflows/{batch['batch_workflow_id']}"
    answered = session.http.post(f"{address}/cancel").json()
    assert "pending" in {one["state"] for one in answered["workflows"]}
    own_service.kill()
    own_service.start()
    session = Session(own_service.client())
    wait_until(lambda: {one["state"] for one in session.http.get(address).json()["workflows"]} == {"canceled"})
    assert session.events(identifiers[-1], "one") == ["submitted", "canceled"]


def test_object_storage_that_a_killed_start_left_is_ended_by_the_next_one(own_service: Service) -> None:
    own_service.begin()
    wait_until(own_service.object_stores)
    own_service.kill()
    [left] = own_service.object_stores()
    own_service.start()
    [running] = own_service.object_stores()
    assert running != left


def test_finished_work_whose_folder_was_lost_is_done_again(own_service: Service) -> None:
    own_service.start()
    session = Session(own_service.client())
    session.register(definition("relay", *RELAY_PORTS, script(RELAY)))
    workflow = session.launch(task("one", "relay"), task("two", "relay", {"text": ("one:said",), "data": ("one:out",)}))
    wait_until(lambda: "started" in session.events(workflow, "two"))
    own_service.kill()
    containers.remove_mounting(own_service.state)
    (own_service.state / "runs").rename(own_service.state / "lost")
    own_service.start()
    session = Session(own_service.client())
    assert states(session.wait(workflow)) == {"one": "complete/succeeded", "two": "complete/succeeded"}
    assert session.events(workflow, "one").count("started") == 2


def test_a_kill_at_work_one_amid_requests_and_one_in_the_start_lose_nothing(own_service: Service) -> None:
    own_service.environment["GBDX_WORKFLOWS"] = "4"
    kill_at_random(own_service, 3, longest=2, seed=1)
    wait_until(lambda: not own_service.containers())


def test_a_kill_amid_requests_loses_nothing_of_what_postgresql_holds(own_service: Service) -> None:
    with cluster() as database:
        own_service.environment["DATABASE_URL"] = database.url
        kill_at_random(own_service, 1, longest=2, seed=2)
        assert not (own_service.state / "platform.sqlite").exists()
        own_service.kill_all()


def test_workflows_that_ended_long_ago_are_forgotten_with_their_logs(own_service: Service) -> None:
    own_service.start()
    session = Session(own_service.client())
    session.register(definition("relay", *RELAY_PORTS, script(RELAY)))
    request = {"name": "old", "tasks": [task("one", "relay", {"text": "{{n}}"}, {"out": "kept"})]}
    request["batch_values"] = [{"name": "n", "values": ["old"]}]
    batch = session.http.post(f"{API}/batch_workflows", json=request).json()
    old = session.wait(batch["workflows"][0]["workflow_id"])["id"]
    assert (own_service.state / "logs" / old).is_dir()
    own_service.kill()
    own_service.environment["GBDX_KEEP_DAYS"] = "0.00001"
    own_service.start()
    session = Session(own_service.client())
    wait_until(lambda: session.http.get(f"{API}/workflows/{old}").status_code == 404)
    wait_until(lambda: not (own_service.state / "logs" / old).exists())
    assert session.http.get(f"{API}/workflows").json() == {"workflows": []}
    assert session.http.get(f"{API}/batch_workflows/{batch['batch_workflow_id']}").status_code == 404
    assert session.names("kept") == ["old.txt"]
    assert session.http.get(f"{API}/tasks").json() == {"tasks": ["relay"]}
