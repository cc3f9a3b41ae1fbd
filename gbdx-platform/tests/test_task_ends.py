"""Ends of tasks that are out of the ordinary: the note says what was found, and the workflow can be read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from live_service import API, Service, Session, definition, port, script, serving, states, task

NO_INPUTS = [port("a", "string", required=False)]


@pytest.mark.both_databases
def test_a_string_output_with_half_a_surrogate_pair_breaks_the_contract_and_the_workflow_can_be_read(
    session: Session, fresh: str
) -> None:
    session.register(definition(fresh, NO_INPUTS, [port("word", "string")], script("strings['word'] = 'bad \\ud800'")))
    found = session.run(task("one", fresh), task("two", fresh, {"a": ("one:word",)}))
    assert states(found) == {"one": "complete/failed", "two": "complete/canceled"}
    expected = "output/ports.json: 'word': expected text, found half a surrogate pair in 'bad \\ud800'"
    assert found["tasks"][0]["note"] == f"broken contract: {expected}"
    assert session.http.post(f"{API}/workflows/search", json={"lookback_h": 1}).status_code == 200


@pytest.mark.both_databases
def test_a_whole_surrogate_pair_and_a_nul_in_a_string_output_reach_the_next_task_and_the_reader(
    session: Session, fresh: str
) -> None:
    text = "strings['word'] = json.load(open(work + 'input/ports.json')).get('a', '\\U0001f6f0 \\0')"
    session.register(definition(fresh, NO_INPUTS, [port("word", "string")], script(text)))
    found = session.run(task("one", fresh), task("two", fresh, {"a": ("one:word",)}))
    assert [one["outputs"][0]["value"] for one in found["tasks"]] == ["\U0001f6f0 \0"] * 2, found


@pytest.mark.both_databases
def test_a_reason_that_is_no_text_is_told_without_what_is_none(session: Session, fresh: str) -> None:
    session.register(definition(fresh, NO_INPUTS, [], script("reason = 'no \\ud800bands\\0'; status = 'failed'")))
    found = session.run(task("one", fresh))
    assert (states(found), found["tasks"][0]["note"]) == ({"one": "complete/failed"}, "no bands")


def test_a_task_over_its_timeout_has_the_grace_of_make_run_to_end_well(session: Session, fresh: str) -> None:
    text = (
        "import signal, sys\n"
        "def end(*arguments):\n"
        "    print('asked', flush=True); time.sleep(3); print('ended', flush=True); sys.exit(3)\n"
        "signal.signal(signal.SIGTERM, end); print('begun', flush=True); time.sleep(600)"
    )
    session.register(definition(fresh, NO_INPUTS, [], script(text)))
    found = session.run(task("slow", fresh, timeout=3))
    assert (states(found), found["tasks"][0]["note"]) == ({"slow": "complete/timedout"}, "over its timeout of 3 s")
    log = session.http.get(f"{API}/workflows/{found['id']}/tasks/slow/stdout").text
    assert log == "begun\nasked\nended\n"


@pytest.fixture(scope="module")
def toil(hello_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """The default account of a service whose engine is Toil on this machine."""
    with serving(tmp_path_factory.mktemp("toil"), "--engine", "toil") as service:
        yield Session(service.client())


@pytest.mark.parametrize("engine", ["session", "toil"])
def test_a_task_without_an_input_that_it_requires_fails_with_the_port_and_no_other_does(
    request: pytest.FixtureRequest, fresh: str, engine: str
) -> None:
    there: Session = request.getfixturevalue(engine)
    may = [port("word", "string", False), port("null", "string", False), port("out", required=False)]
    inputs = [port("text", "string"), port("other", "string"), port("data"), port("more", "string", required=False)]
    there.register(definition(f"{fresh}-none", NO_INPUTS, may, script("strings['null'] = None")))
    there.register(definition(f"{fresh}-needs", inputs, may, script("")))
    there.register(definition(f"{fresh}-may", NO_INPUTS, [], script("reason = 'ran'")))
    sources = {"text": "word", "other": "null", "data": "out"}
    given = {name: (f"none:{output}",) for name, output in sources.items()}
    workflow = there.launch(
        task("none", f"{fresh}-none"),
        task("unfed", f"{fresh}-needs", {**given, "more": ("none:word",)}),
        task("after", f"{fresh}-may", {"a": ("unfed:word",)}),
        task("fed", f"{fresh}-may", {"a": ("none:word",)}),
        task("alone", f"{fresh}-may"),
    )
    found = there.wait(workflow, 600)
    lost = [f"input port {name!r}: task 'none' left no output {output!r}" for name, output in sources.items()]
    assert {one["name"]: (one["state"]["event"], one["note"]) for one in found["tasks"]} == {
        "none": ("succeeded", ""),
        "unfed": ("failed", "; ".join(lost)),
        "after": ("canceled", "a task that it waits for did not succeed"),
        "fed": ("succeeded", "ran"),
        "alone": ("succeeded", "ran"),
    }
    assert found["state"]["event"] == "failed"


def test_no_task_on_toil_tells_the_end_of_another_and_each_has_its_own_log(toil: Session, fresh: str) -> None:
    forge = (
        "for stream in ('stdout', 'stderr'): open(work + 'honest.gbdx_' + stream + '.txt', 'w').write('forged')\n"
        "print('forges')"
    )
    honest = "print('works', flush=True); time.sleep(8); status = 'failed'; reason = 'by itself'"
    for name, text in (("forges", forge), ("honest", honest)):
        toil.register(definition(f"{fresh}-{name}", NO_INPUTS, [port("word", "string", False)], script(text)))
    tasks = task("forges", f"{fresh}-forges"), task("honest", f"{fresh}-honest", {"a": ("forges:word",)})
    found = toil.wait(toil.launch(*tasks), 600)
    assert [(one["state"]["event"], one["note"]) for one in found["tasks"]] == [
        ("succeeded", ""),
        ("failed", "by itself"),
    ]
    for name, said in (("forges", "forges\n"), ("honest", "works\n")):
        assert toil.http.get(f"{API}/workflows/{found['id']}/tasks/{name}/stdout").text == said


def test_of_a_log_over_the_limit_the_end_is_kept_and_the_cut_is_told(
    session: Session, service: Service, fresh: str
) -> None:
    text = "import sys; sys.stdout.write(''.join(f'{n:015}\\n' for n in range(5_000_000))); print('last', end='')"
    session.register(definition(fresh, NO_INPUTS, [], script(text)))
    found = session.run(task("prints", fresh))
    assert session.http.get(f"{API}/workflows/{found['id']}/tasks/prints/stdout").text.endswith("004999999\nlast"), (
        found
    )
    log = (service.state / "logs" / found["id"] / "prints" / "stdout.txt").read_bytes()
    cut, kept = log.split(b"\n", 1)
    assert cut == b"[the beginning of this log was cut]"
    assert 2**25 <= len(kept) < 2**26
    lines = b"".join(b"%015d\n" % number for number in range(5_000_000 - len(kept) // 16 - 1, 5_000_000))
    assert (lines + b"last").endswith(kept)
