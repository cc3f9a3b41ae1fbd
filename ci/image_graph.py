#!/usr/bin/env python3
"""The graph of images: which image is built FROM which, read from the Dockerfiles themselves.

An image is a folder with a Dockerfile: each of `base-images/*` and each task (a top-level folder that also holds a
`*_definition.json`). The folder's name is the image's name.

    python3 ci/image_graph.py list                 every image, parents before children
    python3 ci/image_graph.py tasks                the tasks alone
    python3 ci/image_graph.py deps NAME            what NAME is built from, outermost base first, NAME last
    python3 ci/image_graph.py hash NAME            a hash of NAME's sources and of its parents'
    python3 ci/image_graph.py affected REVISION    the images that changes since a git revision touch
    python3 ci/image_graph.py matrix [REVISION]    the same, or all, as JSON for a CI matrix
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# What never gets into an image, so that a change to it asks for no build.
NOT_IN_IMAGES = ("test_inputs", "tests", "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis")

FROM_WORDS = re.compile(r"(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?", re.IGNORECASE)
COPY_FROM = re.compile(r"^(?:--\S+\s+)*?--from=(\S+)", re.IGNORECASE)
MOUNT_FROM = re.compile(r"--mount=\S*?\bfrom=([^,\s]+)", re.IGNORECASE)
VARIABLE = re.compile(r"\$(?:\{(\w+)(?::-([^}]*))?\}|(\w+))")


class GraphError(ValueError):
    """A Dockerfile, or the graph that the Dockerfiles make, is not as expected; the message says where."""


@dataclass(frozen=True)
class Image:
    """One image: its name, its folder, the images of this repository it is built from, and the foreign ones."""

    name: str
    folder: Path
    parents: tuple[str, ...]
    external: tuple[str, ...]

    @property
    def is_task(self) -> bool:
        """Whether the folder holds a task definition."""
        return any(self.folder.glob("*_definition.json"))


def task_folders(root: Path = ROOT) -> list[Path]:
    """Every top-level folder that holds a task definition, sorted by name."""
    return sorted({path.parent for path in root.glob("*/*_definition.json") if not path.parent.name.startswith(".")})


def image_folders(root: Path = ROOT) -> list[Path]:
    """Every folder that is built into an image, sorted by name: the bases, then the tasks."""
    bases = sorted(path.parent for path in root.glob("base-images/*/Dockerfile"))
    return bases + [folder for folder in task_folders(root) if (folder / "Dockerfile").is_file()]


def substitute(text: str, variables: dict[str, str]) -> str:
    """`text` with $NAME, ${NAME} and ${NAME:-default} replaced, as the builder does in a FROM line."""
    return VARIABLE.sub(lambda m: variables.get(m[1] or m[3]) or m[2] or "", text)


def declared_arguments(dockerfile: Path) -> set[str]:
    """The names of a Dockerfile's ARG lines; none when there is no such file."""
    lines = instructions(dockerfile) if dockerfile.is_file() else ()
    return {word.partition("=")[0] for keyword, rest in lines if keyword == "ARG" for word in shlex.split(rest)}


def instructions(dockerfile: Path) -> Iterator[tuple[str, str]]:
    """A Dockerfile's instructions, as (`FROM`, the rest): continued lines joined, comments left out."""
    lines = dockerfile.read_text(encoding="utf-8").splitlines()
    text = "\n".join(line.strip() for line in lines if not line.lstrip().startswith("#"))
    for line in re.sub(r"\\\s*\n", " ", text).splitlines():
        keyword, _, rest = line.partition(" ")
        yield keyword.upper(), rest.strip()


def from_references(dockerfile: Path, arguments: dict[str, str]) -> list[str]:
    """The images that a Dockerfile takes files from (FROM, COPY --from, RUN --mount), in order, without its own stages.

    `arguments` are build arguments; they go before the defaults that ARG lines give.
    """
    variables: dict[str, str] = {}
    stages: set[str] = set()
    references: list[str] = []
    for keyword, rest in instructions(dockerfile):
        if keyword == "ARG":
            for name, _, default in (word.partition("=") for word in shlex.split(rest)):
                # A bare ARG in a stage only brings a value in that was given before.
                variables[name] = arguments.get(name, default or variables.get(name, ""))
        elif keyword == "FROM" and (stage := FROM_WORDS.match(rest)):
            references.append(substitute(stage[1], variables))
            stages.add((stage[2] or "").lower())
        elif keyword in ("COPY", "ADD", "RUN"):
            pattern = MOUNT_FROM if keyword == "RUN" else COPY_FROM
            references += [substitute(found, variables) for found in pattern.findall(rest)]
    foreign = [name for name in references if name.lower() not in stages and not name.isdigit() and name != "scratch"]
    return list(dict.fromkeys(foreign))


def image_name(reference: str) -> str:
    """`localhost/gdal:dev` -> `gdal`: the last part of the path, without tag or digest."""
    return reference.partition("@")[0].rpartition("/")[2].partition(":")[0]


def read_image(folder: Path, names: set[str], arguments: dict[str, str]) -> Image:
    """The image that `folder` makes, with its references sorted into ours (`names`) and foreign ones."""
    ours: list[str] = []
    foreign: list[str] = []
    for reference in from_references(folder / "Dockerfile", arguments):
        # Only a reference with a registry in it is ours: `debian:trixie-slim` stays Debian's whatever we call a folder.
        (ours if "/" in reference and image_name(reference) in names else foreign).append(reference)
    return Image(folder.name, folder, tuple(dict.fromkeys(map(image_name, ours))), tuple(foreign))


def read_graph(root: Path = ROOT, arguments: dict[str, str] | None = None) -> dict[str, Image]:
    """All images by name, parents before children.

    Raises:
        GraphError: two folders of one name, or images that are built from each other.
    """
    folders = image_folders(root)
    names = {folder.name for folder in folders}
    if len(names) < len(folders):
        twice = sorted({folder.name for folder in folders if [f.name for f in folders].count(folder.name) > 1})
        raise GraphError(f"expected one folder for each image name, found several for: {', '.join(twice)}")
    images = {folder.name: read_image(folder, names, arguments or {}) for folder in folders}
    return {name: images[name] for name in parents_first(images)}


def parents_first(images: dict[str, Image]) -> list[str]:
    """The names in an order in which each image can be built: depth first, each once."""
    done: list[str] = []

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise GraphError(f"images are built from each other: {' <- '.join((*path[path.index(name) :], name))}")
        if name not in done:
            for parent in images[name].parents:
                visit(parent, (*path, name))
            done.append(name)

    for name in images:
        visit(name, ())
    return done


def lineage(name: str, images: dict[str, Image]) -> list[Image]:
    """What has to be built for `name`, in order, `name` itself last."""
    if name not in images:
        raise GraphError(f"no image is called {name!r}; there are: {', '.join(images)}")
    needed = {name}
    for candidate in reversed(list(images)):
        if candidate in needed:
            needed.update(images[candidate].parents)
    return [image for image in images.values() if image.name in needed]


def ignored_by_git(folder: Path) -> set[Path]:
    """Files and folders that git would not take, such as what a compiler left: a clone doesn't have them either."""
    command = ["git", "-C", str(folder), "ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return {folder / name for name in listed.split("\0") if name}


def source_files(folder: Path) -> list[Path]:
    """The files of an image folder that can get into the image, sorted; documents and tests can't."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() or path.is_symlink())
    ignored = ignored_by_git(folder)
    return [
        path
        for path in files
        if ignored.isdisjoint((path, *path.parents))
        and not any(part in NOT_IN_IMAGES for part in path.relative_to(folder).parts[:-1])
        and path.name not in ("README.md", ".DS_Store")
        and not (path.name.startswith("test_") and path.suffix == ".py")
    ]


def source_hash(name: str, images: dict[str, Image], arguments: dict[str, str] | None = None) -> str:
    """Twelve hex digits that change when the image would: sources, build arguments, parents, how it is labelled."""
    digest = hashlib.sha256((ROOT / "ci" / "build_images.py").read_bytes())
    needed = lineage(name, images)
    # DEVICE and BASE make another image only of those that ask for them.
    declared = {"REGISTRY", "TAG"}.union(*(declared_arguments(image.folder / "Dockerfile") for image in needed))
    used = {key: value for key, value in (arguments or {}).items() if key in declared}
    digest.update(json.dumps(sorted(used.items())).encode())
    for image in needed:
        for path in source_files(image.folder):
            executable = "x" if os.access(path, os.X_OK) else "-"
            content = os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
            label = f"{image.name}/{path.relative_to(image.folder).as_posix()} {executable} {len(content)}\n"
            digest.update(label.encode() + content)
    return digest.hexdigest()[:12]


def changed_files(revision: str, root: Path = ROOT) -> list[str]:
    """Paths that differ between a git revision and the working tree, untracked files included."""
    commands = (["diff", "--name-only", revision, "--"], ["ls-files", "--others", "--exclude-standard"])
    return [path for c in commands for path in git(root, *c).splitlines()]


def git(root: Path, *arguments: str) -> str:
    """What `git` prints; a sentence when it fails."""
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise GraphError(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def affected(paths: list[str], images: dict[str, Image], root: Path = ROOT) -> list[str]:
    """The images that changes to `paths` (relative to the root) touch: by their folder, or through a parent.

    A change under ci/, to the Makefile or to the CI's own files touches all of them.
    """
    if any(path.startswith(("ci/", ".ci/", ".github/")) or path == "Makefile" for path in paths):
        return list(images)
    touched: set[str] = set()
    for image in images.values():
        folder = image.folder.relative_to(root).as_posix() + "/"
        if any(path.startswith(folder) for path in paths) or touched.intersection(image.parents):
            touched.add(image.name)
    return [name for name in images if name in touched]


def matrix(names: list[str], images: dict[str, Image]) -> dict[str, list[dict[str, str]]]:
    """GitHub Actions' form of a matrix: one entry for each task, with what it needs built before."""
    tasks = [name for name in names if images[name].is_task]
    return {"include": [{"task": n, "needs": " ".join(i.name for i in lineage(n, images)[:-1])} for n in tasks]}


def main(arguments: list[str]) -> int:
    """Answers one question about the graph; 2 when the question is not one of those above."""
    images = read_graph()
    verb, *rest = arguments or [""]
    if verb == "list":
        print("\n".join(images))
    elif verb == "tasks":
        print("\n".join(folder.name for folder in task_folders()))
    elif verb == "deps" and len(rest) == 1:
        print("\n".join(image.name for image in lineage(rest[0], images)))
    elif verb == "hash" and len(rest) == 1:
        print(source_hash(rest[0], images))
    elif verb == "affected" and len(rest) == 1:
        print("\n".join(affected(changed_files(rest[0]), images)))
    elif verb == "matrix" and len(rest) <= 1:
        # GitHub gives a revision of zeros for a branch that is new.
        names = affected(changed_files(rest[0]), images) if rest and rest[0].strip("0") else list(images)
        print(json.dumps(matrix(names, images)))
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except GraphError as error:
        sys.exit(f"image graph: {error}")
