"""GBDX's Python clients against the live service, in a shell that knows no more than `gbdx-platform client-env` prints.

gbdx-auth and gbdx-cloud-harness are the published packages. gbdxtools is not: the package index has had only an empty
placeholder of that name ("a placeholder for a deleted package") since 2024. The walkthrough's blocks therefore import
the platform's own gbdxtools.py; GBDXTOOLS=folder names a checkout of the original, to run the same blocks with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from live_service import IMAGE, PLATFORM, ROOT, Service, Session, definition, port, script

HERE = Path(__file__).resolve().parent
COMMAND = json.loads((ROOT / "hello-gbdx" / "hello-gbdx_definition.json").read_text("utf-8"))["containerDescriptors"][0]


@pytest.fixture(scope="session")
def published_clients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the published packages of GBDX's clients."""
    folder = tmp_path_factory.mktemp("clients")
    lock = PLATFORM / "requirements-original-client.txt"
    install = ["pip", "install", "--quiet", "--no-deps", "--require-hashes", "--target", folder, "--requirement", lock]
    done = subprocess.run([sys.executable, "-m", *install], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def run_script(service: Service, script: str, folder: Path, packages: str, *arguments: str) -> dict[str, Any]:
    """Runs a script in the environment of client-env, in a folder; returns what it has seen."""
    (folder / "environment.sh").write_text(service.command("client-env").stdout)
    line = ["bash", "-c", '. ./environment.sh && exec "$@"', "bash", sys.executable, HERE / script, *arguments]
    environment = {**service.environment, "PYTHONPATH": packages, "HOME": str(folder), "GBDX_STATE": str(folder)}
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture
def gbdxtools(published_clients: Path) -> str:
    """PYTHONPATH with the platform's gbdxtools, or with the original and what it needs."""
    original = os.environ.get("GBDXTOOLS")
    return f"{original}:{published_clients}" if original else str(PLATFORM)


@pytest.fixture
def hello_definition(fresh: str, tmp_path: Path) -> None:
    """hello-gbdx's definition under a name that no other test uses, in a file of that name."""
    hello = json.loads((ROOT / "hello-gbdx" / "hello-gbdx_definition.json").read_text("utf-8"))
    hello["name"], hello["containerDescriptors"][0]["properties"]["image"] = fresh, IMAGE
    (tmp_path / f"{fresh}_definition.json").write_text(json.dumps(hello))


# The inputs that the walkthrough finds in S3.
STORIES = "platform_stories/create_task"
STORY_INPUTS = [
    "hello_gbdx/data_in/data_file.txt",
    "rf_pool_classifier/image/1040010014800C00.tif",
    "rf_pool_classifier/geojson/train.geojson",
    "train_cnn/train_data/X.npz",
    "train_cnn/train_data/y.npz",
]
# Stand-ins for the two tasks whose images are too large for this test: they write what they were given into files of
# the names that the real ones write.
FOREST = (
    "os.makedirs(work + 'output/trained_classifier')\n"
    "given = json.load(open(work + 'input/ports.json'))\n"
    "given |= {name: os.listdir(work + 'input/' + name) for name in ('image', 'geojson')}\n"
    "json.dump(given, open(work + 'output/trained_classifier/classifier.pkl', 'w'), sort_keys=True)"
)
NETWORK = (
    "os.makedirs(work + 'output/trained_model'); given = json.load(open(work + 'input/ports.json'))\n"
    "json.dump(given, open(work + 'output/trained_model/model_architecture.json', 'w'), sort_keys=True)\n"
    "names = ' '.join(sorted(os.listdir(work + 'input/train_data')))\n"
    "open(work + 'output/trained_model/model_weights.h5', 'w').write(names)"
)


def story_definitions() -> list[dict[str, Any]]:
    """The walkthrough's three definitions: its names and ports, and no version. hello-gbdx is the real one; the others
    are stand-ins on its image, and train-cnn asks for no GPU, which it does in the walkthrough."""
    text, optional = "string", False
    story = [
        ("hello-gbdx", [port("data_in"), port("message", text, optional)], "data_out", COMMAND["command"]),
        ("rf-pool-classifier", [port("image"), port("geojson"), port("n_estimators", text, optional)],
         "trained_classifier", script(FOREST)),
        ("train-cnn", [port("train_data"), port("nb_epoch", text, optional), port("bit_depth", text, optional)],
         "trained_model", script(NETWORK)),
    ]  # fmt: skip
    found = [definition(name, inputs, [port(output)], command) for name, inputs, output, command in story]
    return [{key: one[key] for key in one if key not in ("version", "taskOwnerEmail")} for one in found]


def test_each_block_of_the_walkthrough_runs_in_its_own_calls(
    own_service: Service, gbdxtools: str, tmp_path: Path
) -> None:
    own_service.start()
    session = Session(own_service.client())
    for name in STORY_INPUTS:
        session.put(f"{STORIES}/{name}")
    folder = tmp_path / "ipython"
    folder.mkdir()
    for one in story_definitions():
        (folder / f"{one['name']}_definition.json").write_text(json.dumps(one))
    assert run_script(own_service, "walkthrough.py", folder, gbdxtools) == {
        "hello registered": "hello-gbdx successfully registered.",
        "hello": "data_file.txt\nThis is my message!",
        "hello deleted": "hello-gbdx successfully deleted.",
        "single files": ["geojson/train.geojson", "image/1040010014800C00.tif"],
        "forest registered": "rf-pool-classifier successfully registered.",
        "forest begun": "pending",
        "forest": '{"geojson": ["train.geojson"], "image": ["1040010014800C00.tif"], "n_estimators": "1000"}',
        "network registered": "train-cnn successfully registered.",
        "network begun": "pending",
        "network": ['{"bit_depth": "8", "nb_epoch": "15"}', "X.npz y.npz"],
    }


@pytest.mark.usefixtures("hello_definition")
def test_what_gbdxtools_can_beyond_the_walkthrough(
    service: Service, gbdxtools: str, fresh: str, tmp_path: Path
) -> None:
    assert run_script(service, "chains_and_batches.py", tmp_path, gbdxtools, fresh) == {
        "registered": f"{fresh} successfully registered.",
        "listed": True,
        "described": COMMAND["command"],
        "begun": "pending",
        "status": {"state": "complete", "event": "succeeded"},
        "events": ["submitted", "scheduled", "started", "succeeded"],
        "printed": ["<empty>", "<empty>"],
        "out.txt": "some.json\nThis is my message!",
        "chain": "out.txt\nsecond",
        "batch": 2,
        "canceled": "canceled",
        "deleted": f"{fresh} successfully deleted.",
    }


@pytest.mark.usefixtures("hello_definition")
def test_the_published_clients_register_run_fetch_and_delete(
    service: Service, published_clients: Path, fresh: str, tmp_path: Path
) -> None:
    assert run_script(service, "original_clients.py", tmp_path, str(published_clients), fresh) == {
        "heartbeat": "ok",
        "registered": [200, f"Task {fresh} registered"],
        "twice": 409,
        "succeeded": True,
        "kept": ["out/out.txt"],
        "out.txt": "some.json\nThis is my message!",
        "searched": True,
        "deleted": [200, f"Task {fresh} deleted"],
        "deleted again": 400,
    }
