"""The code blocks of the documents, and what the comment before a block says about it.

A block of `bash`, `console` or `python` is run by ci/tests/test_documents.py, in the order of the page, in one shell. A
comment on the line before it changes that; readers don't see it:

    <!-- not run: needs a graphics card -->     the reason why nothing runs it
    <!-- in: hello-gbdx -->                     it is run in this folder of the repository
    <!-- file: hello-gbdx/hello_gbdx.py -->     it is a part of this file, which is held against it
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from image_graph import ROOT

RUNNABLE = ("bash", "console", "python")
KINDS = ("not run", "in", "file")
BLOCK = re.compile(
    r"^(?:<!-- (?P<kind>[a-z ]+): (?P<text>[^\n]+) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One fenced block: its language and text, its line in the document, what the comment before it says."""

    language: str
    code: str
    line: int
    kind: str
    text: str

    @property
    def is_run(self) -> bool:
        """Whether the tests run it."""
        return self.language in RUNNABLE and self.kind not in ("not run", "file")


def blocks(document: Path) -> list[Block]:
    """All fenced blocks of a document, in order."""
    text = document.read_text(encoding="utf-8")
    return [
        Block(
            found["language"],
            found["code"],
            text.count("\n", 0, found.start()) + 1,
            found["kind"] or "",
            found["text"] or "",
        )
        for found in BLOCK.finditer(text)
    ]


def tracked(pattern: str) -> list[Path]:
    """Files of the repository that match, new ones included."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "--", pattern]
    return [ROOT / line for line in subprocess.check_output(command, text=True).splitlines() if (ROOT / line).exists()]
