"""Names of ports, files and keys with what shells, URLs, globs and expressions read otherwise: they mean themselves."""

from __future__ import annotations

from live_service import Session, definition, port, script, states, task

ODD = (" ", "#", "%", "%41", "?", "*", '"', "'", "[", "]", "~", "$(", "${x}", "=", "+", "&", ",", ";", "|", "ü")
# Each directory is given on under its own name, and with it a file whose name ends with the first one.
COPY = (
    "import shutil\n"
    "for name in os.listdir(work + 'input'):\n"
    "    if name != 'ports.json': shutil.copytree(work + 'input/' + name, work + 'output/' + name)"
)


def test_any_name_of_a_port_or_a_file_comes_through_a_chain_and_object_storage(session: Session, fresh: str) -> None:
    names = [f"a{odd}b" for odd in ODD]
    members = [f"part_{odd}" for odd in ODD]
    ports = [port(name) for name in names] + [port("part_", multiplex=True)]
    session.register(definition(fresh, ports, ports, script(COPY)))
    places = {name: session.put(f"{fresh}/in {name}/{name}/{name}", name.encode()) for name in [*names, *members]}
    found = session.run(
        task("first", fresh, {name: place.removesuffix(f"/{name}") for name, place in places.items()}),
        task(
            "second",
            fresh,
            {name: (f"first:{name}",) for name in places},
            {name: f"{fresh}/out {name}" for name in places},
        ),
    )
    assert states(found) == {"first": "complete/succeeded", "second": "complete/succeeded"}, [
        one["note"] for one in found["tasks"]
    ]
    assert {name: session.names(f"{fresh}/out {name}") for name in places} == {
        name: [f"{name}/{name}"] for name in places
    }


def test_a_file_whose_name_is_no_utf8_is_given_on_but_not_kept_and_the_note_names_it(
    session: Session, fresh: str
) -> None:
    write = (
        "os.makedirs(work + 'output/out/deep')\nopen(os.fsencode(work) + b'output/out/deep/\\xe9t\\xe9', 'w').close()"
    )
    read = "reason = ascii(os.listdir(os.fsencode(work + 'input/in/deep')))"
    session.register(definition(f"{fresh}-writes", [port("a", "string", required=False)], [port("out")], script(write)))
    session.register(definition(f"{fresh}-reads", [port("in")], [], script(read)))
    found = session.run(
        task("gives", f"{fresh}-writes"),
        task("reads", f"{fresh}-reads", {"in": ("gives:out",)}),
        task("keeps", f"{fresh}-writes", persist={"out": f"{fresh}/out"}),
    )
    note = "output port 'out' could not be kept: expected names of files in UTF-8, found 'deep/\\udce9t\\udce9'"
    assert [(one["state"]["event"], one["note"]) for one in found["tasks"]] == [
        ("succeeded", ""),
        ("succeeded", "[b'\\xe9t\\xe9']"),
        ("failed", note),
    ]
