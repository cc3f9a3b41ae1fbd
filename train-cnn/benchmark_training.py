"""Images per second of train-cnn's training against other ways to train the same network, as ratios in one run.

    make bench TASK=train-cnn                                      every way, 3 rounds
    train-cnn/bench.sh --ways task-tensorflow --images 6000 60000  whether the cost of an image stays the same

benchmark_ways.py says what the ways are. Each runs in a container of its own, and all wait for their turn: rounds are
interleaved, so that a machine that grows slow is slow for all. A round is one epoch.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
WAYS = "task-tensorflow fit-tensorflow fit-jax fit-torch fit-theano task-theano hand-tensorflow hand-jax hand-torch"


def image_of(backend):
    """The image that a back end runs in."""
    registry, tag = (os.environ.get(name) or default for name, default in (("REGISTRY", "localhost"), ("TAG", "dev")))
    return f"{registry}/train-cnn:{tag}-theano" if backend == "theano" else "localhost/train-cnn:bench"


def child_command(engine, backend, data, *arguments):
    """The command that runs benchmark_ways.py in a container."""
    settings = {"HOME": "/tmp", "DEVICE": os.environ.get("DEVICE") or "cpu", "KERAS_BACKEND": backend}
    card = ["--gpus", "all"] if settings["DEVICE"] == "gpu" else []
    return [
        *(engine, "run", "--rm", "--interactive", "--init", "--network", "none", "--tmpfs", "/tmp:exec", *card),
        *(word for pair in settings.items() for word in ("--env", "=".join(pair))),
        *("--volume", f"{FOLDER}:/train-cnn:ro", "--volume", f"{data}:/data:ro", image_of(backend)),
        *("python", "/train-cnn/benchmark_ways.py", *map(str, arguments)),
    ]


def ask(process):
    """The next line of JSON from a child; a framework's own words are passed over. None when it has ended."""
    return next((json.loads(line) for line in process.stdout if line.startswith("{")), None)


def start(engine, way, images, data):
    """(process, its first answer) of a way that has trained its first batch; None when it can't be had."""
    kind, _, backend = way.partition("-")
    if subprocess.run([engine, "image", "inspect", image_of(backend)], capture_output=True, check=False).returncode:
        print(f"{way}: left out, there is no {image_of(backend)}: make build TASK=train-cnn DEVICE=cpu BASE={backend}")
        return None
    command = child_command(engine, backend, data, kind, backend, images)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, **pipes)
    begun = ask(process)
    if begun is None:
        print(f"{way}: left out, it ended with: {process.stderr.read().strip().splitlines()[-1]}")
        return None
    return process, begun


def run_round(process):
    """What a way answers after one more epoch."""
    process.stdin.write("\n")
    process.stdin.flush()
    return ask(process)


def report(options, started, found):
    """Prints medians: images per second, the ratio to the first way, CPU seconds, first step, peak memory."""
    medians = {key: {n: statistics.median(r[n] for r in rounds) for n in rounds[0]} for key, rounds in found.items()}
    first = next(iter(medians.values()))
    print(f"\nMedians of {options.rounds} interleaved rounds, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    print("| way | versions | images | images/s | ratio | CPU s / 1000 images | first step s | peak MB |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for (way, images), values in medians.items():
        begun = started[way, images][1]
        rate, cpu, peak = values["rate"], values["cpu"] / 1000, values["peak"] / 1e6
        speed = f"{rate:.0f} | {rate / first['rate']:.2f} | {cpu:.2f}"
        print(f"| {way} | {begun['versions']} | {images} | {speed} | {begun['first_step']:.1f} | {peak:.0f} |")


def main():
    """Runs the rounds and prints a table, in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default="docker")
    parser.add_argument("--images", type=int, nargs="+", default=[4096])
    parser.add_argument("--rounds", type=int, default=int(os.environ.get("ROUNDS") or 3))
    parser.add_argument("--ways", nargs="+", default=WAYS.split(), choices=WAYS.split(), metavar="WAY", help=WAYS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as data:
        Path(data).chmod(0o755)
        with open(Path(data, "digits.npz"), "wb") as file:
            subprocess.run(child_command(options.engine, "tensorflow", data, "digits"), stdout=file, check=True)
        tried = {(way, n): start(options.engine, way, n, data) for n in options.images for way in options.ways}
        started = {key: pair for key, pair in tried.items() if pair}
        found = {key: [] for key in started}
        for _ in range(options.rounds):
            for key, (process, _) in started.items():
                found[key].append(run_round(process))
        for process, _ in started.values():
            process.communicate()
    report(options, started, found)


if __name__ == "__main__":
    main()
