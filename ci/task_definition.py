"""Load and check GBDX task definitions of both generations.

`load_definition` reads a file, `generation` says which generation it is, `problems` lists everything that is wrong
with it at once, `with_defaults` fills in what the registry would. The JSON Schema beside this file says what a
definition looks like; the checks in `PORT_AND_CONTAINER_CHECKS` are what a schema cannot say.
"""

from __future__ import annotations

import copy
import difflib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jsonschema

Definition = dict[str, Any]

SCHEMA: dict[str, Any] = json.loads(Path(__file__).with_name("task_definition.schema.json").read_text("utf-8"))
DEFAULT_PROPERTIES = {"isPublic": False, "timeout": 7200}
# The task's own, and what a worker puts beside the outputs.
FILES_BESIDE_PORTS = ("ports.json", "status.json", "run.json")
PORT_LISTS = ("inputPortDescriptors", "outputPortDescriptors")
GPU_DOMAINS = ("gpu", "nvidiagpu", "nvidiag2")
KNOWN_DOMAINS = ("default", "raid", "t2medium", *GPU_DOMAINS)
TOP_LEVEL = "definition"
LONGEST_QUOTE = 80

_VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
_GENERATION_2 = jsonschema.Draft202012Validator(
    {"$ref": "#/$defs/hasGeneration2Key", "$defs": SCHEMA["$defs"], "$schema": SCHEMA["$schema"]}
)
_TYPE_NAMES = {
    "object": "an object",
    "array": "a list",
    "string": "a string",
    "integer": "an integer",
    "boolean": "true or false",
    "null": "null",
}


class DefinitionError(ValueError):
    """A file that holds no JSON object that could be checked; the message is a sentence without the file's name."""


@dataclass(frozen=True)
class Problem:
    """One finding: the key's path such as `inputPortDescriptors[1].type`, what was expected there, what was found."""

    key: str
    expected: str
    found: str
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        return f"{self.key}: expected {self.expected}, found {self.found}"


def load_definition(path: str | Path) -> Definition:
    """Read a definition (or any JSON object, such as ports.json).

    Raises DefinitionError for a file that cannot be read, is not UTF-8, is not JSON, names a key twice in one
    object, or holds something else than an object.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8")
    except OSError as error:
        raise DefinitionError(f"expected a readable file, found: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DefinitionError(
            f"expected UTF-8 text, found byte 0x{error.object[error.start]:02x} at position {error.start}"
        ) from error
    loaded = _parse(text)
    if not isinstance(loaded, dict):
        raise DefinitionError(f"expected a JSON object, found {quoted(loaded)}")
    return loaded


def _parse(text: str) -> object:
    repeated: list[str] = []

    def one_object(pairs: list[tuple[str, Any]]) -> Definition:
        keys = [key for key, _ in pairs]
        for key in sorted({key for key in keys if keys.count(key) > 1}):
            repeated.append(f"{quoted(key)} {keys.count(key)} times in {quoted(dict(pairs))}")
        return dict(pairs)

    def no_number(name: str) -> object:
        raise DefinitionError(f"expected JSON, found {name}, which JSON does not have")

    if text.startswith("\ufeff"):
        raise DefinitionError("expected JSON, found a byte order mark before it: save the file as UTF-8 without one")
    try:
        loaded: object = json.loads(text, object_pairs_hook=one_object, parse_constant=no_number)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise DefinitionError(f"expected JSON, found a fault in {where}: {error.msg}") from error
    except RecursionError as error:
        raise DefinitionError("expected a definition, found lists or objects nested too deep to read") from error
    except DefinitionError:
        raise
    except ValueError as error:  # an integer of thousands of digits
        raise DefinitionError(f"expected JSON with numbers that can be read, found: {error}") from error
    if repeated:
        raise DefinitionError("expected each key once in an object, found " + "; ".join(repeated))
    return loaded


def generation(definition: object) -> Literal[1, 2]:
    """Say which generation a definition is: 2 as soon as it has a key that only generation 2 knows, else 1."""
    return 2 if _GENERATION_2.is_valid(definition) else 1


def with_defaults(definition: Definition) -> Definition:
    """Return a copy in which `properties` has what the registry fills in: not public, a timeout of 7200 s."""
    filled = copy.deepcopy(definition)
    filled["properties"] = {**DEFAULT_PROPERTIES, **(filled.get("properties") or {})}
    return filled


def problems(definition: object) -> list[Problem]:
    """List all errors and warnings of a definition, in the order of its keys' paths as the checks meet them.

    Any JSON value may be given. A definition without errors fits the schema; warnings are what the old files got wrong.
    """
    found = [problem for error in _VALIDATOR.iter_errors(definition) for problem in _from_schema(error)]
    if isinstance(definition, dict):
        for check in PORT_AND_CONTAINER_CHECKS:
            found.extend(check(definition))
    return sorted(dict.fromkeys(found), key=lambda problem: (problem.severity, _natural(problem.key)))


def _natural(key: str) -> list[tuple[int, str]]:
    """Sort key that puts `ports[2]` before `ports[10]`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", key)]


# --- What the schema says ---------------------------------------------------------------------------------------


def _from_schema(error: jsonschema.ValidationError) -> Iterator[Problem]:
    """Translate one finding of jsonschema; its own message would print the whole definition."""
    key = key_path(error.absolute_path)
    schema: Definition = error.schema if isinstance(error.schema, dict) else {}
    value: Any = error.instance
    if error.validator == "required":
        for name in schema["required"]:
            if name not in value:
                owner = "" if key == TOP_LEVEL else f"{key}."
                yield Problem(f"{owner}{name}", _expected(_subschema(schema, name)), "nothing: the key is missing")
    elif error.validator == "additionalProperties":
        for name in value:
            if name not in schema["properties"]:
                yield _unknown_key(key, name, list(schema["properties"]))
    elif error.validator in ("minItems", "maxItems"):
        yield Problem(key, _expected(schema), f"a list of {len(value)}")
    else:
        yield Problem(key, _expected(schema), quoted(value))


def _unknown_key(key: str, name: str, known: list[str]) -> Problem:
    close = difflib.get_close_matches(name.lower(), [other.lower() for other in known], n=1, cutoff=0.7)
    meant = next((other for other in known if close and other.lower() == close[0]), None)
    hint = f" (did you mean {quoted(meant)}?)" if meant else ""
    return Problem(key, f"only the keys {', '.join(known)}", f"the unknown key {quoted(name)}{hint}")


def _subschema(schema: Definition, name: str) -> Definition:
    """Return the schema of a key, its reference followed."""
    below: Definition = schema.get("properties", {}).get(name, {})
    reference = below.get("$ref", "")
    return SCHEMA["$defs"][reference.rsplit("/", 1)[1]] if reference else below


def _expected(schema: Definition) -> str:
    """Say in words what a schema expects: `an integer from 0 to 36000`, `one of "string", "directory"`."""
    if "anyOf" in schema:
        schema = next(branch for branch in schema["anyOf"] if not branch.get("deprecated"))
    if "enum" in schema:
        return "one of " + ", ".join(quoted(value) for value in schema["enum"])
    if "pattern" in schema:
        return _with_article(schema["title"])
    types = schema.get("type", "object")
    words = " or ".join(_TYPE_NAMES[name] for name in ([types] if isinstance(types, str) else types))
    if "maximum" in schema:
        words += f" from {schema['minimum']} to {schema['maximum']}"
    if "maxItems" in schema:
        words += f" of exactly {schema['maxItems']}"
    elif "minItems" in schema:
        words += f" of at least {schema['minItems']}"
    return words


def _with_article(title: str) -> str:
    return f"an {title}" if title[0] in "aeiou" else f"a {title}"


def key_path(path: Any) -> str:
    """Write a path of keys and indices as `inputPortDescriptors[1].type`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.lstrip(".") or TOP_LEVEL


def quoted(value: object) -> str:
    """Write a value as JSON, cut when long, printable whatever is in it."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace").decode("utf-8")
    except RecursionError:
        return "lists or objects nested too deep to show"
    return text if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]}... ({len(text)} characters)"


# --- What a schema cannot say -----------------------------------------------------------------------------------


def ports(definition: Definition, port_list: str) -> list[tuple[str, Definition]]:
    """Return (key path, port) for each port of a list that is an object with a name; anything else is the schema's."""
    listed = definition.get(port_list)
    entries = listed if isinstance(listed, list) else []
    return [
        (f"{port_list}[{index}]", port)
        for index, port in enumerate(entries)
        if isinstance(port, dict) and isinstance(port.get("name"), str)
    ]


def container(definition: Definition) -> Definition:
    """Return the container descriptor, empty when it is missing or no object."""
    listed = definition.get("containerDescriptors")
    first = listed[0] if isinstance(listed, list) and listed else {}
    return first if isinstance(first, dict) else {}


def container_properties(definition: Definition) -> Definition:
    """Return the properties of the container descriptor, empty when they are missing or no object."""
    properties = container(definition).get("properties")
    return properties if isinstance(properties, dict) else {}


def split_image(image: str) -> tuple[str, str, str]:
    """Split an image reference into repository path, tag and digest; what is absent is the empty string."""
    rest, _, digest = image.partition("@")
    folder, slash, last = rest.rpartition("/")
    last, _, tag = last.partition(":")
    return f"{folder}{slash}{last}", tag, digest


def _check_port_names(definition: Definition) -> Iterator[Problem]:
    for port_list in PORT_LISTS:
        first: dict[str, str] = {}
        for key, port in ports(definition, port_list):
            name = port["name"]
            if name in first:
                yield Problem(f"{key}.name", f"a name that {first[name]} does not have already", quoted(name))
            first.setdefault(name, key)
            if name in FILES_BESIDE_PORTS:
                yield Problem(f"{key}.name", f'another name than that of the file "{name}"', quoted(name))


def _check_multiplex_prefixes(definition: Definition) -> Iterator[Problem]:
    for port_list in PORT_LISTS:
        named = ports(definition, port_list)
        prefixes = [port["name"] for _, port in named if port.get("multiplex") is True]
        for key, port in named:
            for prefix in prefixes:
                if prefix and port["name"] != prefix and port["name"].startswith(prefix):
                    expected = f"a name that does not begin with the multiplex port {quoted(prefix)}"
                    yield Problem(f"{key}.name", expected, quoted(port["name"]), "warning")


def _check_old_habits(definition: Definition) -> Iterator[Problem]:
    for port_list in PORT_LISTS:
        for key, port in ports(definition, port_list):
            if port.get("type") == "image":
                yield Problem(f"{key}.type", '"directory"', '"image", which only old tasks have', "warning")
            if "required" not in port and port_list == "inputPortDescriptors":
                yield Problem(f"{key}.required", "true or false", "nothing: read as false", "warning")
    if "isPublic" in container(definition):
        expected = "isPublic in the task's own properties, where it has a meaning"
        yield Problem("containerDescriptors[0].isPublic", expected, "it in the container descriptor", "warning")
    image = container_properties(definition).get("image")
    if isinstance(image, str) and image and split_image(image)[1:] == ("", ""):
        expected = "an image with a tag or digest"
        yield Problem("containerDescriptors[0].properties.image", expected, quoted(image), "warning")
    if generation(definition) != 1 and "version" not in definition:
        yield Problem("version", 'a version such as "0.1.0", which registering again needs', "nothing", "warning")


def _check_gpu(definition: Definition) -> Iterator[Problem]:
    kind, domain = container(definition).get("type"), container_properties(definition).get("domain")
    type_key, domain_key = "containerDescriptors[0].type", "containerDescriptors[0].properties.domain"
    gpu_domains = "one of " + ", ".join(quoted(name) for name in GPU_DOMAINS)
    wanted = "GPUDOCKER" if generation(definition) == 1 else "DOCKER"
    if kind == "GPUDOCKER" and domain not in GPU_DOMAINS:
        found = "nothing" if domain is None else quoted(domain)
        yield Problem(domain_key, f"{gpu_domains} for the type GPUDOCKER", found)
    if domain in GPU_DOMAINS and isinstance(kind, str) and kind not in (wanted, "GPUDOCKER"):
        yield Problem(type_key, f"{quoted(wanted)} for the GPU domain {quoted(domain)}", quoted(kind))
    if kind == "GPUDOCKER" and wanted == "DOCKER":
        expected = '"DOCKER": in generation 2 the domain marks a GPU task'
        yield Problem(type_key, expected, quoted(kind), "warning")
    if isinstance(domain, str) and domain not in KNOWN_DOMAINS and kind != "GPUDOCKER":
        expected = "a domain seen on the platform (" + ", ".join(KNOWN_DOMAINS) + ")"
        yield Problem(domain_key, expected, quoted(domain), "warning")


PORT_AND_CONTAINER_CHECKS = (_check_port_names, _check_multiplex_prefixes, _check_old_habits, _check_gpu)
