"""Warn of the habits that broke the published tasks and that can be seen in a script without running it."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from task_folder import Finding, TaskFolder

LISTINGS = ("listdir", "glob", "iglob", "iterdir", "scandir")


def check_habits(task: TaskFolder) -> Iterator[Finding]:
    """Yield a warning for each old habit in the task's scripts."""
    for file, tree in task.scripts.items():
        for node in ast.walk(tree):
            message = _habit(node)
            if message:
                yield Finding(file, message, "warning", getattr(node, "lineno", None))


def _habit(node: ast.AST) -> str | None:
    if isinstance(node, ast.Subscript):
        return _first_of_a_listing(node)
    if isinstance(node, ast.Call):
        return _call_habit(node, _dotted(node.func))
    return None


def _first_of_a_listing(node: ast.Subscript) -> str | None:
    is_first = isinstance(node.slice, ast.Constant) and node.slice.value == 0
    if is_first and isinstance(node.value, ast.Call) and _dotted(node.value.func).rsplit(".", 1)[-1] in LISTINGS:
        return "expected one file chosen by its name, found the first of a listing, which may be .DS_Store"
    return None


def _call_habit(call: ast.Call, name: str) -> str | None:
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    if name == "os.makedirs" and "exist_ok" not in keywords and len(call.args) < 3:
        return "expected os.makedirs(..., exist_ok=True), found it without: a second run fails"
    if name in ("os.chdir", "shutil.move"):
        return f"expected inputs that stay as they are, found {name}: inputs are mounted read-only"
    shell = keywords.get("shell")
    if name == "os.system" or (isinstance(shell, ast.Constant) and shell.value is True):
        return "expected a list of arguments, found a shell command: a file name may hold spaces and quotes"
    return _strip_of_an_extension(call)


def _strip_of_an_extension(call: ast.Call) -> str | None:
    method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    if method not in ("strip", "rstrip", "lstrip") or len(call.args) != 1:
        return None
    letters = call.args[0].value if isinstance(call.args[0], ast.Constant) else ""
    if isinstance(letters, str) and letters.startswith(".") and letters[1:].isalnum():
        return f"expected os.path.splitext, found {method}({letters!r}), which takes off letters, not the ending"
    return None


def _dotted(node: ast.expr) -> str:
    """Return `os.path.join` for such an attribute, else what of it is made of names."""
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""
