#!/usr/bin/env python3
"""Draws the documents' pictures from what they show, as SVG: how a task runs, the image graph, a workflow.

    python3 ci/draw_pictures.py            writes docs/pictures/*.svg
    python3 ci/draw_pictures.py --check    1 when one of them is not what this script draws

The first comes from hello-gbdx's definition and from the very command line that `make run` gives the engine, the second
from the Dockerfiles' FROM lines, the third from gbdx-platform/examples/hello_chain.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from image_graph import ROOT, Image, read_graph
from task_container import Run, container_command

PICTURES = ROOT / "docs" / "pictures"
CHARACTER = 7.3  # width in pixels of one character of the 12 px monospace font
LINE = 18
MARGIN = 24
TOP = 126  # below the container's four lines
WORK = "/mnt/work"
# kind of box -> fill, stroke
COLORS = {
    "task": ("#e3f1f3", "#0b5c6b"),
    "data": ("#fdf4dc", "#a67c00"),
    "outside": ("#f1f1f1", "#777777"),
    "frame": ("#ffffff", "#0b5c6b"),
}
STYLE = (
    "text{font:12px 'DejaVu Sans Mono',Menlo,Consolas,monospace;fill:#222}.b{font-weight:bold}.s{fill:#666}"
    ".e{fill:none;stroke:#555;stroke-width:1.4}"
)
ARROW = (
    '<marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0L8 4L0 8z" fill="#555"/></marker>'
)


@dataclass(frozen=True)
class Box:
    """A box of text. The first line is bold; a line that starts with a space is grey."""

    x: float
    y: float
    lines: tuple[str, ...]
    kind: str
    width: float = 0
    height: float = 0

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in pixels: as given, else as the text needs."""
        needed = max(len(line.strip()) for line in self.lines) * CHARACTER + 24
        return self.width or needed, self.height or len(self.lines) * LINE + 14

    @property
    def left(self) -> tuple[float, float]:
        """Where an arrow ends."""
        return self.x, self.y + self.size[1] / 2

    @property
    def right(self) -> tuple[float, float]:
        """Where an arrow begins."""
        return self.x + self.size[0], self.y + self.size[1] / 2

    def svg(self) -> str:
        """The box and its lines."""
        fill, stroke = COLORS[self.kind]
        (width, height), parts = self.size, []
        parts.append(
            f'<rect x="{self.x:g}" y="{self.y:g}" width="{width:g}" height="{height:g}" rx="6" '
            f'fill="{fill}" stroke="{stroke}" stroke-width="1.4"/>'
        )
        for number, line in enumerate(self.lines):
            style = ' class="s"' if line.startswith(" ") else ' class="b"' if number == 0 else ""
            y = self.y + 20 + number * LINE
            parts.append(f'<text x="{self.x + 12:g}" y="{y:g}"{style}>{escape(line.strip())}</text>')
        return "\n".join(parts)


def arrow(start: tuple[float, float], end: tuple[float, float], label: str = "", dashed: bool = False) -> str:
    """A curve from one point to another that leaves and arrives level; the label stands above its start."""
    (x1, y1), (x2, y2) = start, end
    bend = (x2 - x1) / 2
    dashes = ' stroke-dasharray="5 4"' if dashed else ""
    curve = f"M{x1:g} {y1:g}C{x1 + bend:g} {y1:g} {x2 - bend:g} {y2:g} {x2 - 1:g} {y2:g}"
    text = f'\n<text x="{x1 + 6:g}" y="{y1 - 6:g}" class="s">{escape(label)}</text>' if label else ""
    return f'<path class="e" d="{curve}" marker-end="url(#a)"{dashes}/>{text}'


def picture(title: str, boxes: Iterable[Box], arrows: Iterable[str]) -> str:
    """A whole SVG file, as large as its boxes need; the title is what a screen reader says."""
    placed = list(boxes)
    width = max(box.x + box.size[0] for box in placed) + MARGIN
    height = max(box.y + box.size[1] for box in placed) + MARGIN
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img">'
    panel = f'<rect width="{width:.0f}" height="{height:.0f}" rx="8" fill="#ffffff"/>'
    body = [box.svg() for box in placed] + list(arrows)
    return "\n".join(
        [head, f"<title>{escape(title)}</title>", f"<style>{STYLE}</style>", ARROW, panel, *body, "</svg>\n"]
    )


def column(
    x: float, top: float, gap: float, kind: str, texts: Iterable[tuple[str, ...]], width: float = 0
) -> list[Box]:
    """Boxes one below the other."""
    boxes: list[Box] = []
    for lines in texts:
        y = boxes[-1].y + boxes[-1].size[1] + gap if boxes else top
        boxes.append(Box(x, y, lines, kind, width))
    return boxes


# --- how a task runs


def engine_command(definition: dict[str, Any]) -> list[str]:
    """What `make run` gives the engine for a task on its defaults, with made-up folders."""
    inputs = definition["inputPortDescriptors"]
    folders = {port["name"]: Path(port["name"]) for port in inputs if port["type"] == "directory"}
    options = argparse.Namespace(memory="1g", network="none", processes=1, temporary="1g")
    image = definition["containerDescriptors"][0]["properties"]["image"]
    run = Run(definition["name"], definition, image, {}, folders, Path("output"), options)
    return container_command("docker", run, Path("work"), "name")


def walls(command: list[str]) -> list[str]:
    """What keeps a task in, in words, as far as the engine's options say so."""
    meanings = {
        "--read-only": "read-only root",
        "--network none": "no network",
        "--cap-drop": "no capabilities",
        "--user": "not root",
        "--memory": "memory limit",
        "--pids-limit": "process limit",
    }
    line = " ".join(command)
    return [words for option, words in meanings.items() if option in line]


def targets(command: list[str]) -> list[tuple[str, bool]]:
    """Where things are mounted in the container, and whether read-only."""
    fields = [word.split(",") for word in command if word.startswith("type=bind")]
    return [(field[2].partition("=")[2], "readonly" in field) for field in fields]


def task_run() -> str:
    """Ports on the left become mounts, what the task writes becomes ports on the right."""
    definition = json.loads((ROOT / "hello-gbdx" / "hello-gbdx_definition.json").read_text("utf-8"))
    descriptor = definition["containerDescriptors"][0]
    command = engine_command(definition)
    read_only = {target for target, closed in targets(command) if closed}
    inputs, outputs = definition["inputPortDescriptors"], definition["outputPortDescriptors"]
    places = [f"input/{port['name'] if port['type'] == 'directory' else 'ports.json'}" for port in inputs]
    assert {f"{WORK}/{place}" for place in places} - {f"{WORK}/input/ports.json"} <= read_only
    written = [f"output/{port['name']}" for port in outputs] + ["status.json"]
    told = [(port["name"], f" {port['type']} output port") for port in outputs]

    given = column(MARGIN, TOP, 22, "data", [(port["name"], f" {port['type']} input port") for port in inputs], 176)
    read = column(264, TOP, 22, "data", [(place, " mounted read-only") for place in places], 172)
    wrote = column(460, TOP, 22, "data", [(place, " written by the task") for place in written], 172)
    result = column(696, TOP, 22, "data", [*told, ("success or failed", " and the reason")], 216)

    bottom = max(box.y + box.size[1] for box in read + wrote) + 24
    script = Box(264, bottom, (descriptor["command"], " the definition's command"), "task", 368)
    wall = walls(command)
    notes = (" · ".join(wall[:3]), " · ".join(wall[3:]), f"paths below are in {WORK}")
    head = f"container of the image {descriptor['properties']['image']}"
    frame = Box(240, MARGIN, (head, *(f" {note}" for note in notes)), "frame", 416, bottom + script.size[1])
    verdict = Box(696, bottom, ("verdict", " exit code, status.json and", " declared outputs together"), "task", 216)
    arrows = [arrow(a.right, b.left) for a, b in zip(given, read)] + [
        arrow(a.right, b.left) for a, b in zip(wrote, result)
    ]
    arrows.append(arrow(script.right, (verdict.x, script.right[1])))
    return picture("How a task runs", [frame, *given, *read, *wrote, *result, script, verdict], arrows)


# --- the image graph


def ranks(images: dict[str, Image]) -> dict[str, int]:
    """How many images of ours lie below each: 1 for what is built on a foreign one alone."""
    found: dict[str, int] = {}
    for name, image in images.items():
        found[name] = 1 + max((found[parent] for parent in image.parents), default=0)
    return found


def image_graph() -> str:
    """Foreign images on the left, then bases, then tasks; dashed: another base, for BASE=theano."""
    images, other = read_graph(), read_graph(arguments={"BASE": "theano"})
    rank = ranks(images)
    columns = {0: sorted({reference for image in images.values() for reference in image.external})}
    for name in images:
        columns.setdefault(rank[name], []).append(name)
    boxes: dict[str, Box] = {}
    x = float(MARGIN)
    for number in sorted(columns):
        for box in graph_column(x, columns[number], images, boxes):
            boxes[box.lines[0]] = box
        x = max(box.right[0] for box in boxes.values()) + 90
    solid = {(parent, name) for name, image in images.items() for parent in (*image.parents, *image.external)}
    dashed = {(parent, name) for name, image in other.items() for parent in image.parents} - solid
    arrows = [arrow(boxes[a].right, boxes[b].left) for a, b in sorted(solid)]
    arrows += [arrow(boxes[a].right, boxes[b].left, dashed=True) for a, b in sorted(dashed)]
    return picture("The image graph", boxes.values(), arrows)


def graph_column(x: float, names: list[str], images: dict[str, Image], placed: dict[str, Box]) -> list[Box]:
    """One rank of the graph, each box as high as its parents where there is room, so that arrows cross little."""
    width = max(len(name) for name in [*names, "base-images/"]) * CHARACTER + 24
    boxes: list[Box] = []
    for name in sorted(names, key=lambda name: (mean_height(name, images, placed), name)):
        free = boxes[-1].y + boxes[-1].size[1] + 20 if boxes else MARGIN
        what = "from outside" if name not in images else "task" if images[name].is_task else "base-images/"
        kind = {"from outside": "outside", "task": "task", "base-images/": "data"}[what]
        boxes.append(Box(x, max(free, mean_height(name, images, placed)), (name, f" {what}"), kind, width))
    return boxes


def mean_height(name: str, images: dict[str, Image], boxes: dict[str, Box]) -> float:
    """How high an image's parents stand; 0 for an image from outside."""
    parents = [*images[name].parents, *images[name].external] if name in images else []
    heights = [boxes[parent].y for parent in parents if parent in boxes]
    return sum(heights) / len(heights) if heights else 0


# --- a workflow


def depth(name: str, tasks: dict[str, dict[str, Any]]) -> int:
    """How many tasks have to end before this one starts."""
    sources = [port["source"].partition(":")[0] for port in tasks[name]["inputs"] if "source" in port]
    return max((1 + depth(source, tasks) for source in sources), default=0)


def workflow() -> str:
    """Tasks from left to right as they wait for each other; values come from above, what is kept goes below."""
    path = ROOT / "gbdx-platform" / "examples" / "hello_chain.json"
    tasks = {task["name"]: task for task in json.loads(path.read_text("utf-8"))["tasks"]}
    boxes: dict[str, Box] = {}
    others: list[Box] = []
    arrows = []
    for name, task in tasks.items():
        x = MARGIN + depth(name, tasks) * 520
        values = [f" {port['name']} = {port['value']}" for port in task["inputs"] if "value" in port]
        kept = [f" {port['name']} -> {port['persistLocation']}" for port in task["outputs"] if port.get("persist")]
        given = Box(x, MARGIN, ("values", *values), "data", 380, 3 * LINE + 14)
        boxes[name] = Box(x, 132, (name, f" taskType {task['taskType']}"), "task", 380)
        below = Box(x, 222, ("persisted, below the account's prefix", *kept), "data", 380)
        others += [given, below]
        arrows += [down(given, boxes[name]), down(boxes[name], below)]
        for source in (port["source"] for port in task["inputs"] if "source" in port):
            arrows.append(arrow(boxes[source.partition(":")[0]].right, boxes[name].left, source))
    return picture("The workflow of hello_chain.json", [*boxes.values(), *others], arrows)


def down(upper: Box, lower: Box) -> str:
    """An arrow from a box to the one below it."""
    x = upper.x + upper.size[0] / 2
    start, end = upper.y + upper.size[1], lower.y - 1
    return f'<path class="e" d="M{x:g} {start:g}V{end:g}" marker-end="url(#a)"/>'


DRAWINGS = {"task-run.svg": task_run, "image-graph.svg": image_graph, "workflow.svg": workflow}


def main(arguments: list[str]) -> int:
    """Writes or checks all pictures."""
    different = []
    for name, draw in DRAWINGS.items():
        drawn, path = draw(), PICTURES / name
        if arguments == ["--check"]:
            different += [name] if not path.is_file() or path.read_text("utf-8") != drawn else []
        else:
            path.write_text(drawn, encoding="utf-8")
    for name in different:
        print(f"docs/pictures/{name}: expected what ci/draw_pictures.py draws, found another", file=sys.stderr)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
