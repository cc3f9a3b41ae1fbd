#!/usr/bin/env python3
"""Writes the documents' tables from what they describe: images, the keys of a definition, the platform's interface.

    python3 ci/document_tables.py            writes them into docs/*.md
    python3 ci/document_tables.py --check    1 when one of them is not what this script writes

A table stands between `<!-- table: NAME -->` and `<!-- end of table -->`. The interface is asked of the platform's own
code, so that one needs gbdx-platform/.venv (gbdx-platform/install.sh).
"""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from document_blocks import tracked
from image_graph import ROOT, read_graph

TABLE = re.compile(r"(?<=<!-- table: )([a-z ]+)( -->\n)(.*?)(?=<!-- end of table -->)", re.DOTALL)
SCHEMA = ROOT / "ci" / "task_definition.schema.json"
PLATFORM_PYTHON = ROOT / "gbdx-platform" / ".venv" / "bin" / "python"
ASK_INTERFACE = "import json; from gbdx_platform.api import app; print(json.dumps(app.openapi()))"


def rows_of_images() -> Iterator[tuple[str, ...]]:
    """Each image: what it is (the first line of its Dockerfile), what it is built from, and its size budget."""
    yield "image", "what it is", "built from", "at most, MB"
    for image in read_graph().values():
        text = (image.folder / "Dockerfile").read_text(encoding="utf-8")
        budgets = re.findall(r'gbdx\.image\.budget-megabytes="(\d+)"', text)
        parents = ", ".join((*image.parents, *image.external))
        what = text.splitlines()[0].lstrip("# ").removeprefix(f"{image.name}: ")
        yield f"`{image.name}`", what, parents, budgets[-1] if budgets else "-"


def rows_of_keys() -> Iterator[tuple[str, ...]]:
    """Each key of a definition, from the schema that the linter and the platform use."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    first, second = (keys(schema["$defs"][name], schema["$defs"]) for name in ("generation1", "generation2"))
    yield "key", "generation 1", "generation 2", "what it is"
    for key, (need, what) in second.items():
        if key.startswith("outputPortDescriptors[]"):
            continue  # a port is a port
        yield f"`{key}`", first[key][0] if key in first else "not allowed", need, what


def keys(schema: dict[str, Any], definitions: dict[str, Any], path: str = "") -> dict[str, tuple[str, str]]:
    """{path of a key: (required or optional, what it is)}, the keys below included."""
    found: dict[str, tuple[str, str]] = {}
    for name, given in schema.get("properties", {}).items():
        below = resolved(given, definitions)
        need = "required" if name in schema.get("required", ()) else "optional"
        found[path + name] = need, described(below)
        found |= keys(below, definitions, f"{path}{name}.")
        found |= keys(resolved(below.get("items", {}), definitions), definitions, f"{path}{name}[].")
    return found


def resolved(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """A schema with its reference followed."""
    target: dict[str, Any] = definitions[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    return target


def described(schema: dict[str, Any]) -> str:
    """What a schema says of a key, in a table's cell."""
    parts = [schema.get("title", ""), schema.get("description", "").rstrip(".")]
    words: list[str] = next((one["enum"] for one in (schema, *schema.get("anyOf", ())) if "enum" in one), [])
    parts += ["one of " + ", ".join(words)] if words else []
    parts += [f"{schema['minimum']} to {schema['maximum']}"] if "maximum" in schema else []
    said = [part[0].upper() + part[1:] for part in parts if part] or ["A " + schema.get("type", "")]
    return html.escape(". ".join(said), quote=False) + "."


def rows_of_interface() -> Iterator[tuple[str, ...]]:
    """Each address of the platform and what it does, from its own OpenAPI document."""
    asked = subprocess.run([PLATFORM_PYTHON, "-c", ASK_INTERFACE], check=True, capture_output=True, text=True)
    yield "method and path", "what it does", "token"
    for path, methods in json.loads(asked.stdout)["paths"].items():
        for method, operation in methods.items():
            said = " ".join(operation.get("description", operation.get("summary", "")).split())
            short = path.replace("/workflows/v1", "...")
            yield f"{method.upper()} `{short}`", said, "yes" if operation.get("security") else "no"


TABLES = {"images": rows_of_images, "keys": rows_of_keys, "interface": rows_of_interface}


def table(name: str) -> str:
    """A table as Markdown."""
    head, *rows = TABLES[name]()
    lines = [head, ("---",) * len(head), *rows]
    return (
        "\n"
        + "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
        + "\n"
    )


def main(arguments: list[str]) -> int:
    """Writes or checks the tables of all documents."""
    different = 0
    for document in tracked("docs/*.md"):
        text = document.read_text(encoding="utf-8")
        made = TABLE.sub(lambda found: found[1] + found[2] + table(found[1]), text)
        if made != text and arguments == ["--check"]:
            print(
                f"{document.relative_to(ROOT)}: expected the tables of ci/document_tables.py, found others",
                file=sys.stderr,
            )
            different = 1
        elif made != text:
            document.write_text(made, encoding="utf-8")
    return different


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
