"""Workflows on the live service: chains, fans, strings, multiplex, batches, failures, timeouts, cancels, callbacks."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from cwl_runner import run
from gbdx_platform import containers
from live_service import API, Service, Session, definition, port, script, states, task
from waiting import wait_until


def test_hello_gbdx_runs_alone_and_its_output_is_where_persist_location_says(
    session: Session, hello: str, fresh: str
) -> None:
    data = session.put(f"{fresh}/in/data_file.txt")
    found = session.run(
        task("hello", hello, {"data_in": data, "message": "This is my message!"}, {"data_out": f"{fresh}/out"})
    )
    assert states(found) == {"hello": "complete/succeeded"}
    assert found["state"] == {"state": "complete", "event": "succeeded"}
    assert session.text(f"{fresh}/out/out.txt") == "data_file.txt\nThis is my message!"


def test_a_chain_feeds_the_second_task_and_the_default_location_holds_the_ids(
    session: Session, hello: str, fresh: str
) -> None:
    data = session.put(f"{fresh}/in/a.txt")
    second = task("second", hello, {"data_in": ("first:data_out",)})
    second["outputs"] = [{"name": "data_out", "persist": True}]
    found = session.run(task("first", hello, {"data_in": data}), second)
    assert states(found) == {"first": "complete/succeeded", "second": "complete/succeeded"}
    assert session.text(f"workflow_output/{found['id']}/second/data_out/out.txt") == "out.txt\nNo message!"
    assert session.names(f"workflow_output/{found['id']}/first") == []


def test_a_workflow_object_has_the_keys_of_the_contract(session: Session, hello: str, fresh: str) -> None:
    data = session.put(f"{fresh}/in/a.txt")
    found = session.run(task("hello", hello, {"data_in": data}))
    assert found.keys() == {"id", "name", "owner", "state", "submitted_time", "completed_time", "callback", "tasks"}
    assert len(found["id"]) == 19
    assert found["id"].isdigit()
    only = found["tasks"][0]
    assert only["taskType"] == "hello-gbdx:0.1.0"
    assert only["timeout"] == 7200
    assert only["inputs"] == [
        {"name": "data_in", "type": "directory", "value": data, "source": None, "dataflow_channel": None}
    ]
    assert only["run_parameters"]["image"] == "localhost/gbdx-platform-test"
    assert only["run_parameters"]["command"] == "python /hello_gbdx.py"
    assert only["instance_info"]["domain"] == "default"


def test_events_tell_a_tasks_life_in_order(session: Session, hello: str, fresh: str) -> None:
    data = session.put(f"{fresh}/in/a.txt")
    found = session.run(task("hello", hello, {"data_in": data}))
    events = session.http.get(f"{API}/workflows/{found['id']}/events").json()["Events"]
    said = [f"{one['state']}/{one['event']}" for one in events]
    assert said == ["pending/submitted", "pending/scheduled", "running/started", "complete/succeeded"]
    assert {one["task"] for one in events} == {"hello"}


def test_a_diamond_of_string_outputs_feeds_string_inputs(session: Session, fresh: str) -> None:
    add = (
        "strings['sum'] = '+'.join(value for key, value in sorted(json.load(open(work + 'input/ports.json')).items()))"
    )
    ports = [port("a", "string"), port("b", "string", required=False)]
    session.register(definition(fresh, ports, [port("sum", "string")], script(add)))
    found = session.run(
        task("top", fresh, {"a": "1"}),
        task("left", fresh, {"a": ("top:sum",), "b": "2"}),
        task("right", fresh, {"a": ("top:sum",), "b": "3"}),
        task("bottom", fresh, {"a": ("left:sum",), "b": ("right:sum",)}),
    )
    assert found["state"]["event"] == "succeeded"
    values = {one["name"]: one["outputs"][0]["value"] for one in found["tasks"]}
    assert values == {"top": "1", "left": "1+2", "right": "1+3", "bottom": "1+2+1+3"}


def test_multiplex_ports_take_several_directories_and_give_several(session: Session, fresh: str) -> None:
    copy = (
        "import shutil\n"
        "for name in sorted(os.listdir(work + 'input')):\n"
        "    if name.startswith('data'): shutil.copytree(work + 'input/' + name, work + 'output/result_' + name)"
    )
    inputs, outputs = [port("data", multiplex=True)], [port("result_", multiplex=True)]
    session.register(definition(fresh, inputs, outputs, script(copy)))
    one, two = session.put(f"{fresh}/one/1.txt", b"1"), session.put(f"{fresh}/two/2.txt", b"2")
    first = task("first", fresh, {"data1": one, "data:b": two}, {"result_data1": f"{fresh}/kept"})
    second = task("second", fresh, {"data_c": ("first:result_data:b",)}, {"result_data_c": f"{fresh}/last"})
    found = session.run(first, second)
    assert found["state"]["event"] == "succeeded", found
    assert session.names(f"{fresh}/kept") == ["1.txt"]
    assert session.text(f"{fresh}/last/2.txt") == "2"


def test_a_failing_task_gives_its_reason_as_note_and_cancels_what_waits(
    session: Session, hello: str, fresh: str
) -> None:
    fail = "status = 'failed'; reason = 'the image has no bands'"
    session.register(definition(fresh, [port("a", "string", required=False)], [port("out")], script(fail)))
    data = session.put(f"{fresh}/in/a.txt")
    found = session.run(
        task("good", hello, {"data_in": data}, {"data_out": f"{fresh}/kept"}),
        task("bad", fresh),
        task("after", hello, {"data_in": ("bad:out",)}),
        task("later", hello, {"data_in": ("after:data_out",)}),
    )
    assert states(found) == {
        "good": "complete/succeeded",
        "bad": "complete/failed",
        "after": "complete/canceled",
        "later": "complete/canceled",
    }
    notes = {one["name"]: one["note"] for one in found["tasks"]}
    assert notes["bad"] == "the image has no bands"
    assert found["state"]["event"] == "failed"
    assert [one["start_time"] for one in found["tasks"][2:]] == [None, None]
    assert session.names(f"{fresh}/kept") == ["out.txt"]


def test_logs_are_kept_of_a_failing_task_and_empty_ones_say_so(session: Session, fresh: str) -> None:
    speak = "import sys; print('to be seen'); print('to be read', file=sys.stderr); status = 'failed'"
    for name, text in ((f"{fresh}-speaks", speak), (f"{fresh}-silent", "")):
        session.register(definition(name, [port("a", "string", required=False)], [], script(text)))
    found = session.run(task("speaks", f"{fresh}-speaks"), task("silent", f"{fresh}-silent"))
    assert states(found) == {"speaks": "complete/failed", "silent": "complete/succeeded"}
    said = {}
    for one in found["tasks"]:
        for stream in ("stdout", "stderr"):
            answer = session.http.get(f"{API}/workflows/{found['id']}/tasks/{one['id']}/{stream}")
            assert answer.headers["content-type"].startswith("text/html")
            said[one["name"], stream] = answer.text
    assert said == {
        ("speaks", "stdout"): "to be seen\n", ("speaks", "stderr"): "to be read\n",
        ("silent", "stdout"): "<empty>", ("silent", "stderr"): "<empty>",
    }  # fmt: skip


def test_a_timeout_ends_the_container_and_cancels_what_waits(
    service: Service, session: Session, hello: str, fresh: str
) -> None:
    session.register(definition(fresh, [port("a", "string", required=False)], [port("out")], script("time.sleep(600)")))
    workflow = session.launch(task("slow", fresh, timeout=5), task("after", hello, {"data_in": ("slow:out",)}))
    wait_until(lambda: service.mounting(workflow))
    found = session.wait(workflow)
    wait_until(lambda: not service.mounting(workflow))
    assert states(found) == {"slow": "complete/timedout", "after": "complete/canceled"}
    assert found["state"]["event"] == "timedout"
    assert found["tasks"][0]["note"] == "over its timeout of 5 s"


def test_cancel_stops_what_runs_and_what_waits(service: Service, session: Session, hello: str, fresh: str) -> None:
    session.register(definition(fresh, [port("a", "string", required=False)], [port("out")], script("time.sleep(600)")))
    workflow = session.launch(task("slow", fresh), task("after", hello, {"data_in": ("slow:out",)}))
    wait_until(lambda: service.mounting(workflow))
    assert session.http.get(f"{API}/workflows/{workflow}").json()["state"]["state"] == "running"
    assert session.http.post(f"{API}/workflows/{workflow}/cancel").status_code == 200
    found = session.wait(workflow)
    wait_until(lambda: not service.mounting(workflow))
    assert states(found) == {"slow": "complete/canceled", "after": "complete/canceled"}
    assert found["state"]["event"] == "canceled"


def test_a_batch_zips_its_lists_and_runs_each_index(session: Session, hello: str, fresh: str) -> None:
    one, two = session.put(f"{fresh}/1/one.txt"), session.put(f"{fresh}/2/two.txt")
    entry = task("hello", hello, {"data_in": "{{places}}", "message": "$batch_value:words"})
    entry["outputs"] = [{"name": "data_out", "persist": True}]
    lists = [{"name": "places", "values": [one, two]}, {"name": "words", "values": ["uno", "due"]}]
    answer = session.http.post(f"{API}/batch_workflows", json={"name": "both", "tasks": [entry], "batch_values": lists})
    batch = answer.json()
    assert batch.keys() == {"batch_workflow_id", "workflow_name", "owner", "submitted_time", "workflows"}
    found = [session.wait(entry["workflow_id"]) for entry in batch["workflows"]]
    texts = [session.text(f"workflow_output/{one['id']}/hello/data_out/out.txt") for one in found]
    assert sorted(texts) == ["one.txt\nuno", "two.txt\ndue"]
    after = session.http.get(f"{API}/batch_workflows/{batch['batch_workflow_id']}").json()
    assert [entry["state"] for entry in after["workflows"]] == ["succeeded", "succeeded"]


def test_a_batch_can_be_canceled(session: Session, fresh: str) -> None:
    session.register(definition(fresh, [port("a", "string")], [], script("time.sleep(600)")))
    lists = [{"name": "n", "values": [str(number) for number in range(12)]}]
    request = {"name": "many", "tasks": [task("slow", fresh, {"a": "{{n}}"})], "batch_values": lists}
    batch = session.http.post(f"{API}/batch_workflows", json=request).json()
    session.http.post(f"{API}/batch_workflows/{batch['batch_workflow_id']}/cancel")
    for entry in batch["workflows"]:
        assert session.wait(entry["workflow_id"])["state"]["event"] == "canceled"


def test_a_batch_of_5000_is_taken_and_one_of_more_than_20000_runs_of_tasks_is_refused(own_service: Service) -> None:
    own_service.start()
    session = Session(own_service.client())
    session.register(definition("fails", [port("a", "string")], [], "false"))
    tasks = [task(f"t{number}", "fails", {"a": "{{n}}"}) for number in range(5)]

    def launch(tasks: list[Any], items: int) -> Any:
        lists = [{"name": "n", "values": [str(number) for number in range(items)]}]
        return session.http.post(f"{API}/batch_workflows", json={"name": "b", "tasks": tasks, "batch_values": lists})

    refused = launch(tasks, 4001)
    expected = "batch_values: expected at most 20000 runs of tasks in one batch, found 4001 times 5: 20005"
    assert (refused.status_code, refused.json()["message"]) == (400, expected)
    taken = launch(tasks[:1], 5000).json()
    assert len({one["workflow_id"] for one in taken["workflows"]}) == 5000
    session.http.post(f"{API}/batch_workflows/{taken['batch_workflow_id']}/cancel")


@pytest.mark.parametrize(
    ("message", "values"), [("x" * 10**6, ["1"] * 300), ("{{n}}" * 3000, ["y" * 10**5])], ids=["many", "named often"]
)
def test_a_batch_whose_workflows_would_take_much_more_than_its_request_is_refused(
    session: Session, hello: str, message: str, values: list[str]
) -> None:
    request = {"name": "w", "tasks": [task("one", hello, {"data_in": "s3://b/k", "message": message})]}
    request["batch_values"] = [{"name": "n", "values": values}]
    answer = session.http.post(f"{API}/batch_workflows", json=request)
    expected = "workflows that take at most 268435456 characters in all"
    assert (answer.status_code, answer.json()["errors"][0]["expected"]) == (400, expected)


def test_a_batch_with_one_item_that_is_wrong_leaves_nothing(session: Session, hello: str, fresh: str) -> None:
    places = [session.put(f"{fresh}/a.txt")] * 120 + ["no place"]
    request = {"name": fresh, "tasks": [task("one", hello, {"data_in": "{{places}}"})]}
    request["batch_values"] = [{"name": "places", "values": places}]
    answer = session.http.post(f"{API}/batch_workflows", json=request)
    assert (answer.status_code, answer.json()["errors"][0]["key"]) == (400, "tasks[0].inputs[0].value")
    found = session.http.post(f"{API}/workflows/search", json={"lookback_h": 1}).json()["Workflows"]
    assert fresh not in {one["name"] for one in found}


def test_everything_wrong_with_a_workflow_is_said_at_once(session: Session, hello: str, fresh: str) -> None:
    ports = [port("words", "string")], [port("text", "string"), port("out")]
    session.register(definition(fresh, *ports, script("")))
    wrong = task("wrong", fresh, {"wordz": "x"})
    wrong["outputs"] = [{"name": "text", "persist": True}, {"name": "out", "persist": True, "persistLocation": "../up"}]
    answer = session.http.post(
        f"{API}/workflows",
        json={
            "name": "bad",
            "callback": "ftp://there",
            "tasks": [
                wrong,
                task("clash", hello, {"data_in": ("wrong:text",)}),
                task("a", hello, {"data_in": ("b:data_out",)}),
                task("b", hello, {"data_in": ("a:data_out",)}),
                task("behind", hello, {"data_in": ("b:data_out",)}),
                task("self", hello, {"data_in": ("self:data_out",)}),
                task("ghost", "no-such-task"),
                task("place", hello, {"data_in": "/local/folder"}),
            ],
        },
    )
    assert answer.status_code == 400
    said = {f"{one['key']}: expected {one['expected']}, found {one['found']}" for one in answer.json()["errors"]}
    assert said == {
        'tasks[0].inputs[0].name: expected one of words, found "wordz"',
        'tasks[0].inputs: expected the required port "words", found none',
        "tasks[0].outputs[0].persist: expected false: strings can't be persisted, found true",
        "tasks[0].outputs[1].persistLocation: expected a relative path without '..', found \"../up\"",
        'tasks[1].inputs[0].source: expected a directory for the port "data_in", found the string "wrong:text"',
        'tasks[6].taskType: expected a registered task that you may use, found "no-such-task"',
        "tasks[7].inputs[0].value: expected the URL of a directory, found '/local/folder': "
        "expected s3://bucket/key, an http(s) URL of S3, or file:///path",
        "tasks: expected sources without a cycle, found tasks in one: a, b",
        "tasks: expected sources without a cycle, found tasks in one: self",
        'callback: expected an http or https URL, found "ftp://there"',
    }


def test_inputs_that_are_not_there_fail_the_task_with_the_url(session: Session, hello: str, fresh: str) -> None:
    url = f"s3://{session.bucket}/{session.prefix}/{fresh}/nothing"
    found = session.run(task("hello", hello, {"data_in": url}), task("after", hello, {"data_in": ("hello:data_out",)}))
    assert states(found) == {"hello": "complete/failed", "after": "complete/canceled"}
    assert found["tasks"][0]["note"].startswith(f"input port 'data_in': '{url}': expected at least one object there")


def test_a_gpu_task_runs_where_there_is_a_gpu_and_fails_at_once_with_a_sentence_where_there_is_none(
    session: Session, hello: str, fresh: str
) -> None:
    data = session.put(f"{fresh}/in/a.txt")
    domain = [{"properties": {"domain": "nvidiagpu"}}]
    found = session.run(task("hello", hello, {"data_in": data}, containerDescriptors=domain))
    missing = "task 'hello': expected a GPU (domain nvidiagpu), found none on this machine"
    expected = ("complete/succeeded", "") if containers.has_gpu() else ("complete/failed", missing)
    assert (states(found)["hello"], found["tasks"][0]["note"]) == expected


class Receiver(http.server.BaseHTTPRequestHandler):
    """Answers the first POST to /taken with no HTTP, sends the second elsewhere, takes the others; refuses /refused.

    received: the path of each POST and the id and state that it told.
    """

    received: ClassVar[list[tuple[str, str, str]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.received.append((self.path, body["id"], "/".join(body["state"].values())))
        tries = [path for path, _, _ in self.received].count("/taken")
        if self.path == "/taken" and tries == 1:
            self.wfile.write(b"no HTTP\r\n\r\n")
            return
        self.send_response({"/taken": 307 if tries == 2 else 200, "/refused": 503}.get(self.path, 200))
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        """Says nothing."""


@pytest.fixture
def receiver() -> Iterator[str]:
    """The address of a server that callbacks go to."""
    Receiver.received.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_callback_is_tried_until_it_is_taken_five_times_at_most_and_then_not_again(
    own_service: Service, receiver: str
) -> None:
    own_service.start()
    session = Session(own_service.client())
    session.register(definition("said", [port("a", "string", required=False)], [], script("")))

    def called_back(*paths: str) -> list[tuple[str, str, str]]:
        """Runs a workflow for each path, waits until the service has done with the callbacks; what each is told."""
        workflows = [session.run(task("one", "said"), callback=f"{receiver}{path}")["id"] for path in paths]
        for workflow in workflows:
            wait_until(lambda workflow=workflow: own_service.store().workflow(workflow)["called_back"])
        return [(path, workflow, "complete/succeeded") for path, workflow in zip(paths, workflows, strict=True)]

    taken, refused = called_back("/taken", "/refused")
    assert sorted(Receiver.received) == sorted([taken] * 3 + [refused] * 5)
    assert own_service.stop() == 0
    own_service.start()
    session = Session(own_service.client())
    # What the new start has to tell, it tells before another workflow can have come to its end.
    [later] = called_back("/later")
    assert sorted(Receiver.received) == sorted([taken] * 3 + [refused] * 5 + [later])


def test_a_task_that_does_not_wait_for_a_failed_one_runs_whatever_became_of_it(
    session: Session, hello: str, fresh: str
) -> None:
    data, nothing = session.put(f"{fresh}/in/a.txt"), f"s3://{session.bucket}/{session.prefix}/{fresh}/nothing"
    found = session.run(
        task("empty", hello, {"data_in": nothing}),
        task("good", hello, {"data_in": data}),
        task("after-empty", hello, {"data_in": ("empty:data_out",)}),
        task("after-good", hello, {"data_in": ("good:data_out",)}),
    )
    assert states(found) == {
        "empty": "complete/failed", "good": "complete/succeeded", "after-empty": "complete/canceled",
        "after-good": "complete/succeeded",
    }  # fmt: skip
    assert found["state"] == {"state": "complete", "event": "failed"}


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:abc/", "http://127.0.0.1:70000/", "http://:80/", "http://a b/", "http:///x", " http://a"],
)
def test_a_callback_that_can_be_no_address_is_refused(session: Session, hello: str, address: str) -> None:
    request = {"name": "w", "tasks": [task("a", hello, {"data_in": "s3://b/k"})], "callback": address}
    answer = session.http.post(f"{API}/workflows", json=request)
    expected = {"key": "callback", "expected": "an http or https URL", "found": json.dumps(address)}
    assert (answer.status_code, answer.json()["errors"]) == (400, [expected])


@pytest.mark.parametrize("place", ["{{places}}", "s3://b/{{ places }}/in", "$batch_value:places"])
def test_a_placeholder_for_a_directory_is_refused_where_there_is_no_batch(
    session: Session, hello: str, place: str
) -> None:
    request = {"name": "w", "tasks": [task("a", hello, {"data_in": place, "message": "{{text}}"})]}
    answer = session.http.post(f"{API}/workflows", json=request)
    expected = "the URL of a directory: placeholders are for a batch, with batch_values"
    assert (answer.status_code, answer.json()["message"]) == (
        400, f"tasks[0].inputs[0].value: expected {expected}, found {json.dumps(place)}",
    )  # fmt: skip


def test_a_member_of_a_multiplex_port_that_would_be_the_file_of_strings_is_refused(
    session: Session, fresh: str
) -> None:
    inputs, outputs = [port("p", multiplex=True, required=False)], [port("p", multiplex=True)]
    session.register(definition(fresh, inputs, outputs, script("")))
    one = task("a", fresh, {"ports.json": "s3://b/k"}, {"ports.json": "x"})
    request = {"name": "w", "tasks": [one, task("b", fresh, {"p1": ("a:ports.json",)})]}
    answer = session.http.post(f"{API}/workflows", json=request)
    assert answer.status_code == 400
    expected = "a folder's name, other than ports.json"
    assert [(one["key"], one["expected"]) for one in answer.json()["errors"]] == [
        ("tasks[0].inputs[0].name", expected),
        ("tasks[0].outputs[0].name", expected),
        ("tasks[1].inputs[0].source", "one of a:p..."),
    ]


def test_values_that_are_no_strings_are_spelled_as_in_json_but_for_a_null_which_is_none(
    session: Session, fresh: str
) -> None:
    written = {"number": 1.5, "null": None, "object": {"k": [1, True, None, "é"]}, "flag": True, "text": "None"}
    read = "strings.update(json.load(open(work + 'input/ports.json')))"
    ports = [port(name, "string", required=False) for name in written]
    for name, text in ((f"{fresh}-1", f"strings.update({written})"), (f"{fresh}-2", read)):
        session.register(definition(name, ports, ports, script(text)))
    found = session.run(
        task("one", f"{fresh}-1"), task("two", f"{fresh}-2", {name: (f"one:{name}",) for name in written})
    )
    expected = {"number": "1.5", "null": None, "object": '{"k": [1, true, null, "é"]}', "flag": True, "text": "None"}
    for one in found["tasks"]:
        assert {output["name"]: output["value"] for output in one["outputs"]} == expected, one


def test_a_batchs_booleans_are_spelled_as_in_json_within_a_text(session: Session, hello: str, fresh: str) -> None:
    entry = task("one", hello, {"data_in": session.put(f"{fresh}/a.txt"), "message": "is {{flags}}"})
    request = {"name": "w", "tasks": [entry], "batch_values": [{"name": "flags", "values": [True, "True"]}]}
    batch = session.http.post(f"{API}/batch_workflows", json=request).json()
    found = [session.http.get(f"{API}/workflows/{one['workflow_id']}").json() for one in batch["workflows"]]
    assert sorted(one["tasks"][0]["inputs"][1]["value"] for one in found) == ["is True", "is true"]


def test_the_six_characters_of_an_escaped_nul_are_text_and_a_nul_is_refused(session: Session, fresh: str) -> None:
    session.register(
        definition(fresh, [port("a", "string")], [port("b", "string")], script(
            "strings['b'] = json.load(open(work + 'input/ports.json'))['a']"
        ))
    )  # fmt: skip
    for value in ("\\u0000", "\\\\u0000"):
        assert session.run(task("one", fresh, {"a": value}))["tasks"][0]["outputs"][0]["value"] == value
    for value in ("\0", "\\\0"):
        answer = session.http.post(f"{API}/workflows", json={"name": "w", "tasks": [task("one", fresh, {"a": value})]})
        assert (answer.status_code, answer.json()["message"]) == (400, "body: expected text without NUL, found NUL")


@pytest.mark.parametrize("name", ["out_/../../..", "out_\\..", "out_\n"])
def test_a_multiplex_name_that_leaves_its_folder_is_refused(session: Session, fresh: str, name: str) -> None:
    inputs, outputs = [port("in", required=False)], [port("out_", multiplex=True)]
    session.register(definition(fresh, inputs, outputs, script("os.makedirs(work + 'output/out_')")))
    request = {"name": "w", "tasks": [task("a", fresh, persist={name: "x"}), task("b", fresh, {"in": (f"a:{name}",)})]}
    answer = session.http.post(f"{API}/workflows", json=request)
    assert (answer.status_code, [one["key"] for one in answer.json().get("errors", [])]) == (
        400, ["tasks[0].outputs[0].name", "tasks[1].inputs[0].source"],
    )  # fmt: skip


@pytest.mark.parametrize("name", ["../../../alice/up", "/up", "a:b"])
def test_a_task_name_that_is_no_part_of_a_key_is_refused(session: Session, hello: str, name: str) -> None:
    request = {"name": "w", "tasks": [task(name, hello, {"data_in": "s3://b/k"})]}
    answer = session.http.post(f"{API}/workflows", json=request)
    expected = f"tasks[0].name: expected a name without ':' that is no path upwards, found {json.dumps(name)}"
    assert (answer.status_code, answer.json()["message"]) == (400, expected)


def test_no_name_of_a_port_or_task_means_another_one(session: Session, fresh: str, tmp_path: Path) -> None:
    text = (
        "strings['said'] = ' '.join(sum((os.listdir(work + 'input/' + name) for name in ('c', 'b.c')), []))\n"
        "strings['gate'] = json.load(open(work + 'input/ports.json')).get('gbdx_gate_0', 'none')"
    )
    inputs = [port("c"), port("b.c"), port("gbdx_gate_0", "string", required=False), port("a-tool", required=False)]
    session.register(definition(fresh, inputs, [port("said", "string"), port("gate", "string")], script(text)))
    places = {name: session.put(f"{fresh}/{name}/{name}.txt") for name in "1234"}
    found = session.run(
        task("a", fresh, {"c": places["1"], "b.c": places["2"], "a-tool": places["3"]}),
        task("a.b", fresh, {"c": places["3"], "b.c": places["4"], "gbdx_gate_0": ("a:said",)}),
    )
    said = [[output["value"] for output in one["outputs"]] for one in found["tasks"]]
    assert said == [["1.txt 2.txt", "none"], ["3.txt 4.txt", "1.txt 2.txt"]], found
    document = session.http.get(f"{API}/workflows/{found['id']}", params={"format": "cwl"}).json()
    assert sorted(document["inputs"]) == ["a.a-tool", "a.b_c", "a.c", "a_b.b_c", "a_b.c"]
    for name in places:
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.txt").touch()
    given = dict(zip(sorted(document["inputs"]), (tmp_path / name for name in "32143"), strict=True))
    run(document, "", given, tmp_path)
    written = [json.loads((tmp_path / "out" / f"{name}.ports.json").read_text()) for name in ("a", "a_b")]
    assert [[one["said"], one["gate"]] for one in written] == said


def staging(session: Session, data: Any, place: str, name: str = "StageDataToS3_1") -> dict[str, Any]:
    """A task as the savedata of early gbdxtools makes it."""
    destination = place if ":" in place else f"s3://{session.bucket}/{session.prefix}/{place}"
    return task(name, "StageDataToS3", {"data": data, "destination": destination}, timeout=7200)


def test_the_savedata_of_early_gbdxtools_persists_the_output(session: Session, hello: str, fresh: str) -> None:
    described = session.http.get(f"{API}/tasks/StageDataToS3").json()
    assert [one["name"] for one in described["inputPortDescriptors"]] == ["data", "destination"]
    data = session.put(f"{fresh}/in/a.txt")
    copied = task("parts", fresh, {"data1": ("one:data_out",)})
    text = "import shutil; shutil.copytree(work + 'input/data1', work + 'output/result_1')"
    ports = [port("data", multiplex=True)], [port("result_", multiplex=True)]
    session.register(definition(fresh, *ports, script(text)))
    found = session.run(
        staging(session, ("one:data_out",), f"{fresh}/one"),
        task("one", hello, {"data_in": data, "message": "kept"}),
        copied,
        staging(session, ("parts:result_1",), f"{fresh}/parts/", "StageDataToS3_2"),
    )
    assert states(found) == {"one": "complete/succeeded", "parts": "complete/succeeded"}
    assert session.text(f"{fresh}/one/out.txt") == session.text(f"{fresh}/parts/out.txt") == "a.txt\nkept"


def test_a_batch_of_savedata_persists_each_to_its_own_place(session: Session, hello: str, fresh: str) -> None:
    data = session.put(f"{fresh}/in/a.txt")
    places = [f"s3://{session.bucket}/{session.prefix}/{fresh}/{number}" for number in "12"]
    tasks = [task("one", hello, {"data_in": data}), staging(session, ("one:data_out",), "$batch_value:places")]
    request = {"name": "w", "tasks": tasks, "batch_values": [{"name": "places", "values": places}]}
    batch = session.http.post(f"{API}/batch_workflows", json=request).json()
    for entry in batch["workflows"]:
        assert session.wait(entry["workflow_id"])["state"]["event"] == "succeeded"
    assert [session.names(f"{fresh}/{number}") for number in "12"] == [["out.txt"], ["out.txt"]]


def test_savedata_elsewhere_of_nothing_or_twice_is_refused_with_sentences(session: Session, hello: str) -> None:
    own = f"s3://{session.bucket}/{session.prefix}/"
    tasks = [
        task("one", hello, {"data_in": f"{own}in"}),
        staging(session, ("one:data_out",), f"s3://{session.bucket}/alice/x", "elsewhere"),
        staging(session, ("one:data_out",), f"{own}../alice/x", "up"),
        staging(session, f"{own}in", "x", "value"),
        staging(session, ("one:data_out",), "x", "first"),
        staging(session, ("one:data_out",), "y", "second"),
    ]
    answer = session.http.post(f"{API}/workflows", json={"name": "w", "tasks": tasks})
    assert (answer.status_code, answer.json()["message"].split("; ")) == (
        400,
        [
            f'tasks[1].inputs: expected a destination below {own}, found "s3://{session.bucket}/alice/x"',
            f'tasks[2].inputs: expected a destination below {own}, found "{own}../alice/x"',
            f'tasks[3].inputs: expected a source for the port "data", found "{own}in"',
            'tasks[5].inputs: expected one place for one:data_out, found another beside "y"',
        ],
    )
