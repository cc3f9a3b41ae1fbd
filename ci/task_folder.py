"""What the linter's parts share: a task folder with its names, and one finding in it."""

from __future__ import annotations

import ast
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

INTERFACE = "gbdx_task_interface.py"
DEFINITION_SUFFIX = "_definition.json"


@dataclass(frozen=True)
class Finding:
    """One line of the linter: a file of the task folder, its line when known, and a sentence."""

    file: str
    message: str
    severity: Literal["error", "warning"] = "error"
    line: int | None = None


@dataclass
class TaskFolder:
    """A task folder, the definition in it (empty when there is none that can be read) and its parsed scripts."""

    path: Path
    definition: dict[str, Any] = field(default_factory=dict)
    definition_file: str = ""
    scripts: dict[str, ast.Module] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The folder's name, which is the task's and the image's too."""
        return self.path.resolve().name

    @property
    def snake(self) -> str:
        """The name as scripts carry it: my_task."""
        return self.name.replace("-", "_")

    @property
    def camel(self) -> str:
        """The name as classes carry it: MyTask."""
        return "".join(part.capitalize() for part in self.name.split("-"))

    @property
    def script(self) -> str:
        """The file name of the task's script."""
        return f"{self.snake}.py"

    def text(self, name: str) -> str:
        """Return the text of a file in the folder, empty when it isn't there."""
        path = self.path / name
        return path.read_text("utf-8", errors="replace") if path.is_file() else ""


def is_visible(path: Path) -> bool:
    """Say whether a file or folder is neither hidden nor a cache of Python's."""
    return not path.name.startswith(".") and path.name != "__pycache__"


def parse_scripts(task: TaskFolder) -> list[Finding]:
    """Parse the folder's Python files, tests and the interface left out, into `task.scripts`; report what fails."""
    findings = []
    for path in sorted(task.path.glob("*.py")):
        if path.name == INTERFACE or path.name.startswith(("test_", "conftest")):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                task.scripts[path.name] = ast.parse(path.read_bytes(), path.name)
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", None)
            findings.append(Finding(path.name, f"expected Python 3, found: {getattr(error, 'msg', error)}", line=line))
    return findings
