"""Task definitions of both generations: what is accepted, and the sentence for each thing that is wrong."""

import copy
import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_definition import (
    SCHEMA,
    DefinitionError,
    generation,
    load_definition,
    problems,
    quoted,
    split_image,
    with_defaults,
)

DEFINITIONS = Path(__file__).with_name("definitions")


def first_generation():
    """The walkthrough's hello-gbdx, without what its file got wrong."""
    return {
        "name": "hello-gbdx",
        "description": "Writes the names of the input files and a message to out.txt.",
        "properties": {"isPublic": True, "timeout": 7200},
        "inputPortDescriptors": [
            {"name": "message", "type": "string", "description": "A line of text.", "required": True},
            {"name": "data_in", "type": "directory", "description": "The files to list.", "required": True},
        ],
        "outputPortDescriptors": [{"name": "data_out", "type": "directory"}],
        "containerDescriptors": [
            {"type": "DOCKER", "properties": {"image": "hello-gbdx:0.1.0"}, "command": "python /hello_gbdx.py"}
        ],
    }


def second_generation():
    return {**first_generation(), "version": "0.1.0", "taskOwnerEmail": "owner@example.com"}


BOTH = pytest.mark.parametrize("make", [first_generation, second_generation])


def changed(definition, path, value):
    """Return a copy with the value at a path of keys and indices; None for a key takes it away."""
    definition = copy.deepcopy(definition)
    place = definition
    for step in path[:-1]:
        place = place[step]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return definition


def sentences(definition, severity="error"):
    return [str(problem) for problem in problems(definition) if problem.severity == severity]


def test_the_schema_is_a_valid_schema_of_draft_2020_12():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@BOTH
def test_a_correct_definition_has_neither_errors_nor_warnings(make):
    assert problems(make()) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["version"], "0.1.0"),
        (["taskOwnerEmail"], "owner@example.com"),
        (["properties", "canPersist"], True),
        (["properties", "authorizationRequired"], False),
    ],
)
def test_one_key_of_generation_2_makes_a_definition_generation_2(path, value):
    assert generation(first_generation()) == 1
    assert generation(changed(first_generation(), path, value)) == 2


@pytest.mark.parametrize("value", [None, [], 3, "version", {}])
def test_what_is_no_definition_at_all_counts_as_generation_1(value):
    assert generation(value) == 1


@pytest.mark.parametrize("file", sorted((DEFINITIONS / "generation-1").glob("*.json")), ids=lambda file: file.stem)
def test_definitions_as_the_walkthrough_writes_them_have_no_errors_and_the_known_warnings(file):
    definition = load_definition(file)
    assert generation(definition) == 1
    assert sentences(definition) == []
    keys = [problem.key for problem in problems(definition)]
    expected = ["containerDescriptors[0].isPublic", "containerDescriptors[0].properties.image"]
    assert keys == expected + (["inputPortDescriptors[2].required"] if file.stem == "train-cnn" else [])


def test_definitions_of_all_three_tasks_of_the_walkthrough_are_in_the_corpus():
    assert sorted(file.stem for file in (DEFINITIONS / "generation-1").glob("*.json")) == [
        "hello-gbdx",
        "rf-pool-classifier",
        "train-cnn",
    ]


INPUT = "inputPortDescriptors"
CONTAINER = ["containerDescriptors", 0]
NAME = 'name: expected a task name without spaces, slashes, colons and control characters, other than "." and ".."'
WRONG_IN_BOTH = [
    (["name"], None, f"{NAME}, found nothing: the key is missing"),
    (["name"], 3, f"{NAME}, found 3"),
    (["name"], "", f'{NAME}, found ""'),
    (["name"], "a b", f'{NAME}, found "a b"'),
    (["name"], "a/b", f'{NAME}, found "a/b"'),
    (["name"], "hello\n", rf'{NAME}, found "hello\n"'),
    (["name"], "a\x1bb", rf'{NAME}, found "a\u001bb"'),
    (["name"], "a\x7f", f'{NAME}, found "a\x7f"'),
    (["name"], ".", f'{NAME}, found "."'),
    (["name"], "..", f'{NAME}, found ".."'),
    (["description"], ["x"], 'description: expected a string, found ["x"]'),
    ([INPUT], None, f"{INPUT}: expected a list of at least 1, found nothing: the key is missing"),
    ([INPUT], [], f"{INPUT}: expected a list of at least 1, found a list of 0"),
    ([INPUT], {}, f"{INPUT}: expected a list of at least 1, found {{}}"),
    ([INPUT, 1], "data_in", f'{INPUT}[1]: expected an object, found "data_in"'),
    ([INPUT, 0, "type"], "strnig", f'{INPUT}[0].type: expected one of "string", "directory", found "strnig"'),
    (
        [INPUT, 0, "type"],
        None,
        f'{INPUT}[0].type: expected one of "string", "directory", found nothing: the key is missing',
    ),
    ([INPUT, 0, "required"], "true", f'{INPUT}[0].required: expected true or false, found "true"'),
    (
        [INPUT, 0, "name"],
        "",
        f'{INPUT}[0].name: expected a port name without slashes and without a leading dot, found ""',
    ),
    (
        [INPUT, 0, "name"],
        "a/b",
        f'{INPUT}[0].name: expected a port name without slashes and without a leading dot, found "a/b"',
    ),
    (
        [INPUT, 0, "name"],
        "..",
        f'{INPUT}[0].name: expected a port name without slashes and without a leading dot, found ".."',
    ),
    (
        [INPUT, 0, "name"],
        "data_in",
        f'{INPUT}[1].name: expected a name that {INPUT}[0] does not have already, found "data_in"',
    ),
    (
        [INPUT, 0, "name"],
        "ports.json",
        f'{INPUT}[0].name: expected another name than that of the file "ports.json", found "ports.json"',
    ),
    (
        [INPUT, 0, "requried"],
        True,
        f"{INPUT}[0]: expected only the keys name, type, required, description, multiplex, "
        'found the unknown key "requried" (did you mean "required"?)',
    ),
    (["properties", "timeout"], "7200", 'properties.timeout: expected an integer from 0 to {limit}, found "7200"'),
    (["properties", "timeout"], True, "properties.timeout: expected an integer from 0 to {limit}, found true"),
    (["properties", "timeout"], 0.5, "properties.timeout: expected an integer from 0 to {limit}, found 0.5"),
    (["properties", "timeout"], -1, "properties.timeout: expected an integer from 0 to {limit}, found -1"),
    (["properties", "timeout"], 172801, "properties.timeout: expected an integer from 0 to {limit}, found 172801"),
    (["properties"], [], "properties: expected an object or null, found []"),
    (["containerDescriptors"], [], "containerDescriptors: expected a list of exactly 1, found a list of 0"),
    (
        ["containerDescriptors"],
        None,
        "containerDescriptors: expected a list of exactly 1, found nothing: the key is missing",
    ),
    (
        [*CONTAINER, "type"],
        "docker",
        'containerDescriptors[0].type: expected one of "DOCKER", "GPUDOCKER", "AMI", "TASK_DRIVER", found "docker"',
    ),
    (
        [*CONTAINER, "properties", "image"],
        None,
        "containerDescriptors[0].properties.image: expected an image reference without spaces, "
        'such as "hello-gbdx:0.1.0", found nothing: the key is missing',
    ),
    (
        [*CONTAINER, "properties"],
        None,
        "containerDescriptors[0].properties: expected an object, found nothing: the key is missing",
    ),
    ([*CONTAINER, "command"], ["python"], 'containerDescriptors[0].command: expected a string, found ["python"]'),
]


@BOTH
@pytest.mark.parametrize(("path", "value", "sentence"), WRONG_IN_BOTH)
def test_one_wrong_key_gives_one_sentence_in_either_generation(make, path, value, sentence):
    limit = 36000 if make is first_generation else 172800
    wanted = sentence.replace("{limit}", str(limit))
    assert sentences(changed(make(), path, value)) == [wanted]


def test_a_version_has_three_numbers():
    for wrong in ("1", "1.0", "v1.0.0", "1.0.0-rc1", "1.0.0\n", 1.0):
        expected = 'version: expected a version of three numbers such as "0.1.0"'
        assert sentences(changed(second_generation(), ["version"], wrong)) == [f"{expected}, found {quoted(wrong)}"]


def test_a_task_owner_has_a_mail_address():
    expected = 'taskOwnerEmail: expected a mail address such as "owner@example.com"'
    assert sentences(changed(second_generation(), ["taskOwnerEmail"], "me")) == [f'{expected}, found "me"']
    missing = changed(second_generation(), ["taskOwnerEmail"], None)
    assert sentences(missing) == [f"{expected}, found nothing: the key is missing"]


@pytest.mark.parametrize(("make", "limit"), [(first_generation, 36000), (second_generation, 172800)])
def test_the_timeout_limit_itself_is_allowed_and_one_second_more_is_not(make, limit):
    assert sentences(changed(make(), ["properties", "timeout"], limit)) == []
    assert len(sentences(changed(make(), ["properties", "timeout"], limit + 1))) == 1


def test_properties_may_be_null_or_absent():
    for make in (first_generation, second_generation):
        assert problems({**make(), "properties": None}) == []
        assert problems(changed(make(), ["properties"], None)) == []


def test_a_timeout_is_required_in_the_properties_of_generation_1_only():
    missing = "properties.timeout: expected an integer from 0 to 36000, found nothing: the key is missing"
    assert sentences(changed(first_generation(), ["properties", "timeout"], None)) == [missing]
    assert sentences(changed(second_generation(), ["properties", "timeout"], None)) == []


def test_outputs_may_be_empty_or_absent():
    assert problems({**first_generation(), "outputPortDescriptors": []}) == []
    assert problems(changed(first_generation(), ["outputPortDescriptors"], None)) == []


def test_all_problems_come_at_once_each_with_its_key():
    definition = {
        "name": "two words",
        "version": "1",
        "properties": {"timeout": -5},
        "inputPortDescriptor": [],
        "inputPortDescriptors": [{"name": "a", "type": "file"}, {"type": "string", "required": 1}],
        "containerDescriptors": [{"type": "DOCKER", "properties": {}}, {}],
    }
    assert [problem.key for problem in problems(definition) if problem.severity == "error"] == [
        "containerDescriptors",
        "containerDescriptors[0].properties.image",
        "containerDescriptors[1].properties",
        "containerDescriptors[1].type",
        "definition",
        "inputPortDescriptors[0].type",
        "inputPortDescriptors[1].name",
        "inputPortDescriptors[1].required",
        "name",
        "properties.timeout",
        "taskOwnerEmail",
        "version",
    ]


def test_a_long_value_is_cut_and_its_length_said():
    (sentence,) = sentences(changed(first_generation(), ["properties", "timeout"], "9" * 500))
    assert (
        sentence
        == "properties.timeout: expected an integer from 0 to 36000, found " + '"' + "9" * 79 + "... (502 characters)"
    )


@pytest.mark.parametrize("value", [None, [], "text", 3, True])
def test_a_definition_that_is_no_object_is_one_sentence(value):
    assert sentences(value) == [f"definition: expected an object, found {json.dumps(value)}"]


def test_a_name_that_begins_with_a_multiplex_ports_name_is_ambiguous():
    definition = first_generation()
    definition["inputPortDescriptors"] = [
        {"name": "data", "type": "directory", "required": True, "multiplex": True},
        {"name": "data_mask", "type": "directory", "required": True},
        {"name": "database", "type": "string", "required": True, "multiplex": True},
        {"name": "other", "type": "string", "required": True},
    ]
    expected = 'expected a name that does not begin with the multiplex port "data"'
    assert sentences(definition) == []
    assert sentences(definition, "warning") == [
        f'inputPortDescriptors[1].name: {expected}, found "data_mask"',
        f'inputPortDescriptors[2].name: {expected}, found "database"',
    ]


def test_an_input_and_an_output_may_have_the_same_name():
    assert problems(changed(first_generation(), ["outputPortDescriptors", 0, "name"], "data_in")) == []


def test_the_old_port_type_image_is_a_warning():
    definition = changed(first_generation(), ["inputPortDescriptors", 1, "type"], "image")
    warning = 'inputPortDescriptors[1].type: expected "directory", found "image", which only old tasks have'
    assert sentences(definition) == []
    assert sentences(definition, "warning") == [warning]


def test_is_public_in_the_container_is_a_warning_that_says_where_it_belongs():
    definition = changed(first_generation(), [*CONTAINER, "isPublic"], True)
    assert sentences(definition) == []
    assert sentences(definition, "warning") == [
        "containerDescriptors[0].isPublic: expected isPublic in the task's own properties, "
        "where it has a meaning, found it in the container descriptor"
    ]


def test_an_input_that_does_not_say_whether_it_is_required_is_a_warning():
    definition = changed(first_generation(), ["inputPortDescriptors", 0, "required"], None)
    warning = "inputPortDescriptors[0].required: expected true or false, found nothing: read as false"
    assert sentences(definition, "warning") == [warning]


def test_a_generation_2_definition_without_a_version_is_a_warning():
    definition = changed(second_generation(), ["version"], None)
    assert sentences(definition) == []
    assert [problem.key for problem in problems(definition)] == ["version"]


DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("image", "parts"),
    [
        ("hello-gbdx", ("hello-gbdx", "", "")),
        ("localhost:5000/team/hello-gbdx", ("localhost:5000/team/hello-gbdx", "", "")),
        ("localhost:5000/hello-gbdx:0.1.0", ("localhost:5000/hello-gbdx", "0.1.0", "")),
        (f"hello-gbdx@{DIGEST}", ("hello-gbdx", "", DIGEST)),
        (f"team/hello-gbdx:0.1.0@{DIGEST}", ("team/hello-gbdx", "0.1.0", DIGEST)),
    ],
)
def test_an_image_without_tag_and_digest_is_a_warning(image, parts):
    assert split_image(image) == parts
    definition = changed(first_generation(), [*CONTAINER, "properties", "image"], image)
    assert len(sentences(definition, "warning")) == (1 if parts[1:] == ("", "") else 0)


GPU = '"gpu", "nvidiagpu", "nvidiag2"'
DOMAIN, TYPE = "containerDescriptors[0].properties.domain", "containerDescriptors[0].type"


@pytest.mark.parametrize(
    ("make", "kind", "domain", "errors", "warned"),
    [
        (first_generation, "GPUDOCKER", "gpu", [], []),
        (first_generation, "DOCKER", "raid", [], []),
        (
            first_generation,
            "DOCKER",
            "nvidiag2",
            [f'{TYPE}: expected "GPUDOCKER" for the GPU domain "nvidiag2", found "DOCKER"'],
            [],
        ),
        (
            first_generation,
            "GPUDOCKER",
            None,
            [f"{DOMAIN}: expected one of {GPU} for the type GPUDOCKER, found nothing"],
            [],
        ),
        (
            first_generation,
            "GPUDOCKER",
            "raid",
            [f'{DOMAIN}: expected one of {GPU} for the type GPUDOCKER, found "raid"'],
            [],
        ),
        (first_generation, "DOCKER", "gpuu", [], [DOMAIN]),
        (second_generation, "DOCKER", "nvidiagpu", [], []),
        (second_generation, "DOCKER", "default", [], []),
        (second_generation, "GPUDOCKER", "gpu", [], [TYPE]),
        (
            second_generation,
            "GPUDOCKER",
            None,
            [f"{DOMAIN}: expected one of {GPU} for the type GPUDOCKER, found nothing"],
            [TYPE],
        ),
        (second_generation, "AMI", "gpu", [f'{TYPE}: expected "DOCKER" for the GPU domain "gpu", found "AMI"'], []),
    ],
)
def test_type_and_domain_of_a_gpu_task_fit_together(make, kind, domain, errors, warned):
    definition = make()
    definition["containerDescriptors"][0]["type"] = kind
    if domain:
        definition["containerDescriptors"][0]["properties"]["domain"] = domain
    assert sentences(definition) == errors
    assert [problem.key for problem in problems(definition) if problem.severity == "warning"] == warned


def test_defaults_are_filled_in_and_what_is_given_stays():
    without = changed(second_generation(), ["properties"], None)
    assert with_defaults(without)["properties"] == {"isPublic": False, "timeout": 7200}
    assert "properties" not in without
    assert with_defaults({**without, "properties": None})["properties"] == {"isPublic": False, "timeout": 7200}
    given_timeout = {**without, "properties": {"timeout": 60, "canPersist": True}}
    assert with_defaults(given_timeout)["properties"] == {"isPublic": False, "timeout": 60, "canPersist": True}


# --- Reading a file ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b'{"name": "caf\xe9"}', "expected UTF-8 text, found byte 0xe9 at position 13"),
        (b'{"name": "a",\n  }', "expected JSON, found a fault in line 2, column 3"),
        (b"", "expected JSON, found a fault in line 1, column 1: Expecting value"),
        (b"\xef\xbb\xbf{}", "found a byte order mark before it"),
        (b"[1, 2]", r"expected a JSON object, found \[1, 2\]"),
        (b'{"a": NaN}', "expected JSON, found NaN, which JSON does not have"),
        (b'{"a": ' + b"9" * 5000 + b"}", "expected JSON with numbers that can be read"),
        (b"[" * 100_000, "nested too deep to read"),
        (b'{"type": "string", "type": "directory"}', 'expected each key once in an object, found "type" 2 times in'),
        (b'{"p": {"a": 1, "a": 2}, "q": {"b": 1, "b": 2, "b": 3}}', '"a" 2 times in .*; "b" 3 times in'),
    ],
)
def test_a_file_that_cannot_be_read_as_a_definition_is_a_sentence(tmp_path, content, sentence):
    file = tmp_path / "definition.json"
    file.write_bytes(content)
    with pytest.raises(DefinitionError, match=sentence):
        load_definition(file)


def test_a_missing_file_and_a_folder_are_sentences(tmp_path):
    with pytest.raises(DefinitionError, match="expected a readable file, found: No such file or directory"):
        load_definition(tmp_path / "none.json")
    with pytest.raises(DefinitionError, match="expected a readable file, found: Is a directory"):
        load_definition(tmp_path)


def test_quoted_values_can_always_be_printed():
    assert quoted("\ud800") == '"\\ud800"'
    assert quoted("\x1b[31m") == '"\\u001b[31m"'
    assert quoted("Καλημέρα") == '"Καλημέρα"'


# --- Any definition made of valid parts is valid ----------------------------------------------------------------


port_names = st.from_regex(r"[a-z][a-z0-9_]{2,8}", fullmatch=True)
port = st.fixed_dictionaries(
    {"type": st.sampled_from(["string", "directory"]), "required": st.booleans()},
    optional={"description": st.text(), "multiplex": st.just(False)},
)
named_ports = st.dictionaries(port_names, port, min_size=1, max_size=5).map(
    lambda ports: [{"name": name, **port} for name, port in ports.items()]
)
version = st.tuples(*[st.integers(0, 99)] * 3).map(lambda numbers: ".".join(map(str, numbers)))
container = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["DOCKER", "AMI", "TASK_DRIVER"]),
        "properties": st.fixed_dictionaries(
            {"image": st.just("team/image:1.0")}, optional={"domain": st.sampled_from(["default", "raid", "t2medium"])}
        ),
    },
    optional={"command": st.text()},
)


def of_generation(longest_timeout, extra):
    properties = st.fixed_dictionaries(
        {"timeout": st.integers(0, longest_timeout)}, optional={"isPublic": st.booleans()}
    )
    return st.fixed_dictionaries(
        {
            "name": st.from_regex(r"[A-Za-z][A-Za-z0-9_.-]*", fullmatch=True),
            "inputPortDescriptors": named_ports,
            "containerDescriptors": st.tuples(container).map(list),
            **extra,
        },
        optional={
            "description": st.text(),
            "outputPortDescriptors": st.one_of(st.just([]), named_ports),
            "properties": st.one_of(st.none(), properties),
        },
    )


of_generation_1 = of_generation(36000, {})
of_generation_2 = of_generation(172800, {"version": version, "taskOwnerEmail": st.just("owner@example.com")})


@settings(deadline=None, max_examples=60)
@given(st.one_of(of_generation_1, of_generation_2))
def test_any_definition_made_of_valid_parts_has_no_problems_also_with_defaults(definition):
    assert problems(definition) == []
    assert problems(with_defaults(definition)) == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "type", "image"]), inner),
    max_leaves=6,
)


@settings(deadline=None, max_examples=60)
@given(of_generation_2, st.data())
def test_any_value_in_any_place_is_reported_or_fine_but_never_raises(definition, data):
    key = data.draw(st.sampled_from([*definition, "isPublic"]))
    place = data.draw(
        st.sampled_from([definition, definition["inputPortDescriptors"][0], definition["containerDescriptors"][0]])
    )
    place[key] = data.draw(json_values)
    is_valid = jsonschema.Draft202012Validator(SCHEMA).is_valid(definition)
    assert is_valid or [problem for problem in problems(definition) if problem.severity == "error"]
