#!/usr/bin/env python3
"""What `make run` costs over the engine's own `docker run` of the same image, side by side: make bench TASK=hello-gbdx

Both run the same task on the same inputs, in turn, so that a machine that slows down slows down both. Prints the
medians, their difference, and what a run costs when the container is hardened by hand as `make run` does it.
"""

from __future__ import annotations

import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import build_images
from image_graph import ROOT
from task_inputs import read_definition

ROUNDS = int(os.environ.get("ROUNDS") or 10)

HARDENED = "--init --read-only --tmpfs /tmp --network none --cap-drop ALL --security-opt no-new-privileges"


def seconds(command: list[str]) -> float:
    """Wall time of a command that has to succeed."""
    start = time.perf_counter()
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def commands(engine: str, task: str, workspace: Path) -> dict[str, list[str]]:
    """The ways to run the task that are compared, by the name under which they are printed."""
    inputs = ["--volume", f"{ROOT / task / 'test_inputs'}:/mnt/work/input:ro", "--env", "DEVICE=cpu"]
    words = shlex.split(read_definition(ROOT / task)["containerDescriptors"][0]["command"])
    image = build_images.reference(task)
    # With a folder of its own for the outputs, as a person would run it by hand.
    hand = ["--volume", f"{workspace}:/mnt/work", *inputs, image, *words]
    return {
        "docker run": [engine, "run", "--rm", "--user", "0", *hand],
        "docker run, hardened": [engine, "run", "--rm", "--user", "0", *shlex.split(HARDENED), *hand],
        "make run": ["make", "--no-print-directory", "run", f"TASK={task}"],
    }


def main() -> None:
    """Runs every command ROUNDS times in turn and prints the table."""
    task = os.environ.get("TASK") or "hello-gbdx"
    build_images.main([task])
    engine = build_images.find_engine()
    with tempfile.TemporaryDirectory() as workspace:
        ways = commands(engine, task, Path(workspace))
        for command in ways.values():
            seconds(command)
        times: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(ROUNDS):
            print(f"\rround {number + 1} of {ROUNDS}", end="", file=sys.stderr, flush=True)
            for way, command in ways.items():
                times[way].append(seconds(command))
    print(file=sys.stderr)
    bare = statistics.median(times["docker run"])
    print(f"{task}, {ROUNDS} rounds in turn; seconds\n")
    print("| way | median | fastest | over docker run | ratio |\n| --- | --- | --- | --- | --- |")
    for way, measured in times.items():
        median = statistics.median(measured)
        print(f"| {way} | {median:.2f} | {min(measured):.2f} | {median - bare:+.2f} | {median / bare:.2f} |")


if __name__ == "__main__":
    main()
