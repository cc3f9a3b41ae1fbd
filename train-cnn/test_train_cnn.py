"""Tests of this task alone, in its image: the script runs as the worker would run it, on folders made here.

One container waits, and each run is a process in it. The image is the one built for the processor (DEVICE=cpu).
"""

import csv
import io
import json
import os
import re
import shutil
import struct
import subprocess
import zipfile
from pathlib import Path

import build_images
import pytest

pytestmark = pytest.mark.container

FOLDER = Path(__file__).resolve().parent
HARDENED = ["--read-only", "--network", "none", "--cap-drop", "ALL", "--tmpfs", "/tmp:exec", "--init"]
HARDENED += ["--user", f"{os.getuid()}:{os.getgid()}", "--env", "HOME=/tmp"]
SCRIPT = "/" + Path(__file__).name[len("test_") :]
MODEL_FILES = {"model_architecture.json", "model_weights.h5", "model.keras", "classes.json"}
LAYERS = ["InputLayer", "Conv2D", "Activation", "Conv2D", "Activation", "MaxPooling2D", "Dropout", "Flatten"]
LAYERS += ["Dense", "Activation", "Dropout", "Dense", "Activation"]
REPORT_FILES = {"history.csv", "training.png", "metrics.json"}
IN_X = "input port 'train_data', file X.npz: "
IN_Y = "input port 'train_data', file y.npz: "


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder that the container sees as /runs."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def container(folder):
    """(engine, name) of a container of the task's image that waits: no network, read-only root, the caller's uid."""
    os.environ.setdefault("DEVICE", "cpu")
    assert build_images.main([FOLDER.name]) == 0
    engine = build_images.find_engine()
    image = build_images.reference(FOLDER.name)
    command = [engine, "run", "--detach", "--rm", *HARDENED, "--volume", f"{folder}:/runs", image, "sleep", "3600"]
    name = subprocess.check_output(command, text=True).strip()
    yield engine, name
    subprocess.run([engine, "rm", "--force", name], capture_output=True, check=True)


@pytest.fixture
def run(container):
    """A function that runs the script on a work folder; keywords are environment variables."""
    engine, name = container

    def run_script(work, **environment):
        settings = [word for pair in environment.items() for word in ("--env", "=".join(pair))]
        settings += ["--env", f"GBDX_WORK_DIR=/runs/{work.name}"]
        command = [engine, "exec", *settings, name, "python", SCRIPT]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)

    return run_script


@pytest.fixture
def python(container):
    """A function that runs lines of Python in the container and returns what they print."""
    engine, name = container

    def run_lines(lines):
        command = [engine, "exec", "--env", "CUDA_VISIBLE_DEVICES=-1", name, "python", "-c", lines]
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=300).stdout

    return run_lines


@pytest.fixture
def work(folder):
    """A work folder without inputs, as the worker makes it."""
    return new_work(folder, f"run-{len(list(folder.iterdir()))}")


def new_work(folder, name):
    (folder / name / "input" / "train_data").mkdir(parents=True)
    (folder / name / "output").mkdir()
    return folder / name


def npy(shape, dtype, data):
    """The bytes of an .npy file; written by hand so that it may lie."""
    header = str({"descr": dtype, "fortran_order": False, "shape": shape})
    header += " " * (-(len(header) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data


def put(work, name, shape, dtype, data, key="arr_0", compression=zipfile.ZIP_STORED):
    """Writes an array into train_data; data: bytes, or numbers that are packed as dtype says."""
    codes = {"|u1": "B", "<u2": "H", "<i8": "q", "<f4": "f", "<f8": "d"}
    packed = data if isinstance(data, bytes) else struct.pack(f"<{len(data)}{codes[dtype]}", *data)
    with zipfile.ZipFile(work / "input" / "train_data" / name, "w", compression) as archive:
        archive.writestr(f"{key}.npy", npy(shape, dtype, packed))


def put_images(work, shape=(8, 1, 6, 6), dtype="|u1", data=None, **options):
    """Images whose values are 0, 1, 2 ... 255, 0, 1 ..., or as given."""
    count = 1
    for side in shape:
        count *= side
    put(work, "X.npz", shape, dtype, [value % 256 for value in range(count)] if data is None else data, **options)


def put_labels(work, labels=(0, 1) * 4, dtype="<i8", shape=None, **options):
    put(work, "y.npz", (len(labels),) if shape is None else shape, dtype, list(labels), **options)


def put_ports(work, **ports):
    (work / "input" / "ports.json").write_text(json.dumps(ports))


def reason(work):
    return json.loads((work / "status.json").read_text())["reason"]


def trained(work):
    return work / "output" / "trained_model"


def history(work):
    return list(csv.DictReader(io.StringIO((trained(work) / "history.csv").read_text())))


def put_samples(work, **ports):
    shutil.copytree(FOLDER / "test_inputs", work / "input", dirs_exist_ok=True)
    put_ports(work, **{**json.loads((FOLDER / "test_inputs" / "ports.json").read_text()), **ports})


# --- a training on the sample inputs ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sample_run(container, folder):
    """(finished process, work folder) of a run on test_inputs/."""
    engine, name = container
    work = new_work(folder, "sample")
    put_samples(work)
    command = [engine, "exec", "--env", "GBDX_WORK_DIR=/runs/sample", name, "python", SCRIPT]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300), work


def test_the_sample_inputs_give_a_model_and_a_report(sample_run):
    done, work = sample_run
    assert done.returncode == 0, done.stderr
    assert {path.name for path in trained(work).iterdir()} == MODEL_FILES | REPORT_FILES
    assert (trained(work) / "training.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert [line["epoch"] for line in history(work)] == [str(epoch) for epoch in range(1, 21)]


def test_the_first_line_says_what_it_runs_on(sample_run):
    done, work = sample_run
    device = json.loads((trained(work) / "metrics.json").read_text())["device"]
    assert done.stdout.splitlines()[0].startswith(f"train-cnn: runs on the processor: {device['name']}, ")
    assert "CPU" in device["weights_on"]


def test_the_metrics_describe_the_data_and_the_run(sample_run):
    _, work = sample_run
    metrics = json.loads((trained(work) / "metrics.json").read_text())
    assert metrics["class_counts"] == {"2": 140, "5": 140, "9": 140}
    assert (metrics["images"]["trained_on"], metrics["images"]["held_back"]) == (336, 84)
    assert sum(map(sum, metrics["confusion_matrix"])) == 84
    diagonal = sum(row[place] for place, row in enumerate(metrics["confusion_matrix"]))
    assert diagonal / 84 == pytest.approx(metrics["final"]["validation_accuracy"])
    assert metrics["settings"] | {"seed": 0, "optimizer": "adadelta", "learning_rate": 1.0} == metrics["settings"]
    assert metrics["peak_memory_bytes"] > 10**7


def test_the_classes_keep_their_labels(sample_run):
    _, work = sample_run
    classes = json.loads((trained(work) / "classes.json").read_text())
    assert classes == {"classes": [2, 5, 9], "counts": [140, 140, 140], "bit_depth": 8}


def test_the_architecture_is_a_json_string_inside_json_as_the_walkthrough_wrote_it(sample_run):
    _, work = sample_run
    text = json.loads((trained(work) / "model_architecture.json").read_text())
    layers = json.loads(text)["config"]["layers"]
    assert [layer["class_name"] for layer in layers] == LAYERS
    assert layers[0]["config"]["batch_input_shape"] == [None, 4, 16, 16]


def test_the_two_files_and_the_keras_file_are_one_model(sample_run, python):
    found = python("""
import json, keras, numpy as np
folder = "/runs/sample/output/trained_model/"
images = np.load("/runs/sample/input/train_data/X.npz")["arr_0"].astype("float32") / 255
labels = np.load("/runs/sample/input/train_data/y.npz")["arr_0"]
model = keras.models.model_from_json(json.load(open(folder + "model_architecture.json")))
model.load_weights(folder + "model_weights.h5")
answers, other = (m.predict(images, verbose=0) for m in (model, keras.models.load_model(folder + "model.keras")))
right = np.array([2, 5, 9])[answers.argmax(1)] == labels
print(json.dumps([float(abs(answers - other).max()), float(right.mean())]))
""")
    difference, accuracy = json.loads(found.splitlines()[-1])
    assert difference < 1e-6
    assert accuracy > 0.9


def test_a_model_that_theano_wrote_answers_the_same_in_keras_3(python, folder):
    shutil.copytree(FOLDER / "tests" / "model_from_theano", folder / "model_from_theano")
    found = python("""
import json, keras, numpy as np
folder = "/runs/model_from_theano/"
model = keras.models.model_from_json(json.load(open(folder + "model_architecture.json")))
model.load_weights(folder + "model_weights.h5")
known = json.load(open(folder + "answers.json"))
answers = model.predict(np.array(known["images"], "float32") / np.float32(255), verbose=0)
print(float(abs(answers - np.array(known["answers"])).max()))
""")
    assert float(found.splitlines()[-1]) < 1e-5


@pytest.mark.parametrize("seed", ["1", "2"])
def test_other_seeds_learn_as_well(work, run, seed):
    put_samples(work, seed=seed)
    assert run(work).returncode == 0
    assert float(history(work)[-1]["validation_accuracy"]) > 0.8


def test_the_sample_inputs_are_learned_with_the_default_seed(sample_run):
    assert float(history(sample_run[1])[-1]["validation_accuracy"]) > 0.8


# --- what is allowed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"shape": (8, 6, 6)},
        {"key": "images"},
        {"compression": zipfile.ZIP_DEFLATED},
        {"dtype": "<f4"},
    ],
    ids=["as documented", "three dimensions", "another name", "compressed", "floats"],
)
def test_the_same_images_can_be_written_in_several_ways(work, python, change):
    put_images(work, **change)
    found = python(f"""
import sys; sys.path.insert(0, "/")
import json, numpy, chip_arrays
work = "/runs/{work.name}"
images = chip_arrays.as_images(chip_arrays.open_array(work + "/input/train_data", "X.npz", work))
print(json.dumps([isinstance(images, numpy.memmap), images.shape, images.astype(int).ravel().tolist()]))
""")
    assert json.loads(found) == [True, [8, 1, 6, 6], [value % 256 for value in range(288)]]


def test_early_stopping_ends_the_training_and_keeps_the_best_epoch(work, run):
    put_samples(work, early_stopping="3", nb_epoch="100")
    assert run(work).returncode == 0
    losses = [float(line["validation_loss"]) for line in history(work)]
    best = json.loads((trained(work) / "metrics.json").read_text())["best_epoch"]
    assert losses[best - 1] == min(losses)
    assert len(losses) == best + 3


def put_large_images(work, count, compression):
    """`count` images of 128 KiB, two kinds that take turns; nothing of the file stays in the machine's cache."""
    shape = (count, 2048, 8, 8)
    kinds = [b"".join(bytes([(7 * band + 50 * kind) % 256]) * 64 for band in range(2048)) for kind in (0, 1)]
    path = work / "input" / "train_data" / "X.npz"
    with zipfile.ZipFile(path, "w", compression) as archive, archive.open("arr_0.npy", "w", force_zip64=True) as member:
        member.write(npy(shape, "|u1", b""))
        for number in range(count):
            member.write(kinds[number % 2])
    with path.open("rb+") as file:
        os.fsync(file)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "compressed"])
def test_images_of_more_bytes_than_the_container_has_memory_are_trained_on(work, container, compression):
    count, limit = 5400, 560 * 2**20  # TensorFlow alone takes 300 MB
    assert count * 2**17 > 1.2 * limit
    put_large_images(work, count, compression)
    put_labels(work, labels=(0, 1) * (count // 2))
    put_ports(work, nb_epoch="1", batch_size="32")
    options = ["--memory", str(limit), "--memory-swap", str(limit), "--volume", f"{work}:/mnt/work"]
    image = build_images.reference(FOLDER.name)
    command = [container[0], "run", "--rm", *HARDENED, *options, image, "python", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = json.loads((trained(work) / "metrics.json").read_text())
    assert metrics["images"]["trained_on"] == count
    assert metrics["own_memory_bytes"] < limit


KILL_AFTER_EPOCH_5 = """
python {script} >/runs/{run}/log & pid=$!
until grep -q "epoch 5/" /runs/{run}/log; do sleep 0.02; done
kill -9 $pid
"""


def test_a_killed_training_goes_on_as_if_nothing_had_been_and_ends_byte_for_byte_the_same(
    work, run, container, sample_run
):
    engine, name = container
    put_samples(work)
    command = KILL_AFTER_EPOCH_5.format(script=SCRIPT, run=work.name)
    subprocess.run(
        [engine, "exec", "--env", f"GBDX_WORK_DIR=/runs/{work.name}", name, "sh", "-c", command],
        check=True,
        capture_output=True,
    )
    left = {path.name for path in trained(work).iterdir()}
    assert left - {"checkpoint.npz.part"} == {"checkpoint.npz"}

    put_samples(work, resume="yes")
    done = run(work)
    assert done.returncode == 0, done.stderr
    assert re.search(r"goes on after epoch ([4-9]|1\d) of 20", done.stdout)  # 4: killed before the 5th was kept
    uninterrupted = sample_run[1]
    columns = ("epoch", "loss", "accuracy", "validation_loss", "validation_accuracy")
    for mine, other in zip(history(work), history(uninterrupted)):
        assert [mine[column] for column in columns] == [other[column] for column in columns]
    weights = "model_weights.h5"
    assert (trained(work) / weights).read_bytes() == (trained(uninterrupted) / weights).read_bytes()
    assert "checkpoint.npz" not in {path.name for path in trained(work).iterdir()}


# --- what is refused -------------------------------------------------------------------------------------------------

BAD_PORTS = {
    ("nb_epoch", "-1"): "expected a whole number from 1 to 1,000,000, found '-1'",
    ("nb_epoch", "1e2"): "expected a whole number from 1 to 1,000,000, found '1e2'",
    ("nb_epoch", "ten"): "expected a whole number from 1 to 1,000,000, found 'ten'",
    ("nb_epoch", "0"): "expected a whole number from 1 to 1,000,000, found 0",
    ("nb_epoch", True): "expected a whole number from 1 to 1,000,000, found True",
    ("bit_depth", "0"): "expected a whole number from 1 to 32, found 0",
    ("bit_depth", ""): "expected a whole number from 1 to 32, found ''",
    ("batch_size", "0"): "expected a whole number from 1 to 65,536, found 0",
    ("seed", "1.5"): "expected a whole number from 0 to 4,294,967,295, found '1.5'",
    ("validation_split", "1"): "expected a number from 0 to less than 1, found '1'",
    ("validation_split", "0.1"): "expected at least one image to hold back, found 0.1 of 8 images",
    ("optimizer", "Adam"): "expected one of adadelta, adam, rmsprop, sgd, found 'Adam'",
    ("learning_rate", "nan"): "expected a number from 1e-12 to less than 1e+06, found 'nan'",
    ("early_stopping", "2"): "expected a validation_split above 0 to watch, found 0",
    ("resume", "true"): "expected one of no, yes, found 'true'",
}


@pytest.mark.parametrize(("port", "value"), BAD_PORTS, ids=str)
def test_a_bad_port_is_refused_with_what_was_expected_and_found(work, run, port, value):
    put_images(work)
    put_labels(work)
    put_ports(work, **{port: value})
    assert run(work).returncode == 1
    assert reason(work) == f"ValueError: input port '{port}': {BAD_PORTS[port, value]}"


NOT_A_NUMBER, INFINITE = float("nan"), float("inf")
FLOATS = [float(value) for value in range(288)]
BAD_IMAGES = {
    "NaN": ({"dtype": "<f4", "data": [*FLOATS[:200], NOT_A_NUMBER, *FLOATS[:87]]}, "found 1 NaN and 0 infinite of 288"),
    "infinite": ({"dtype": "<f8", "data": [INFINITE, *FLOATS[:287]]}, "found 0 NaN and 1 infinite of 288"),
    "over the bit depth": (
        {"dtype": "<u2", "data": [*range(287), 2000]},
        "expected values from 0 to 255 (bit_depth 8), found 2000; 11 bits would hold it",
    ),
    "negative": (
        {"dtype": "<f4", "data": [-1.0, *FLOATS[:200], *FLOATS[:87]]},
        "expected values from 0 to 255 (bit_depth 8), found -1",
    ),
    "scaled already": ({"dtype": "<f4", "data": [value / 288 for value in range(288)]}, "scaled already?"),
    "all equal": ({"data": [7] * 288}, "expected images that differ, found the value 7 everywhere"),
    "two dimensions": ({"shape": (8, 36)}, "expected shape (images, bands, rows, cols) or (images, rows, cols)"),
    "five dimensions": ({"shape": (8, 1, 1, 6, 6)}, "found (8, 1, 1, 6, 6)"),
    "too small": ({"shape": (8, 1, 5, 6)}, "expected images of at least 6 x 6 pixels, found (bands, rows, cols)"),
    "bands last": ({"shape": (8, 6, 6, 1)}, "are the bands last? np.moveaxis(X, 3, 1) puts them first"),
    "no images": ({"shape": (0, 1, 6, 6)}, "expected at least one image, found shape (0, 1, 6, 6)"),
    "a scalar": ({"shape": ()}, "expected shape (images, bands, rows, cols)"),
    "objects": ({"dtype": "|O", "data": b"cos\nsystem\n(S'true'\ntR."}, "found Python objects (dtype=object)"),
    "text": ({"dtype": "<U9", "data": bytes(288 * 36)}, "expected whole or floating-point numbers, found <U9"),
    "a header that lies": (
        {"shape": (10**9, 1, 6, 6), "data": b"1234"},
        "expected 36,000,000,128 bytes for an array of",
    ),
    "not an array": ({"dtype": "no type", "data": b""}, "expected an array as NumPy writes it"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_bad_images_are_refused_with_what_was_expected_and_found(work, run, case):
    change, sentence = BAD_IMAGES[case]
    put_images(work, **change)
    put_labels(work)
    assert run(work).returncode == 1
    assert IN_X in reason(work)
    assert sentence in reason(work)


BAD_LABELS = {
    "another length": ({"labels": (0, 1, 0)}, "expected as many labels as there are images in X.npz (8), found 3"),
    "one class": ({"labels": (4,) * 8}, "expected at least two classes, found only 4"),
    "fractions": ({"labels": (0, 1, 0.5, 1) * 2, "dtype": "<f4"}, "expected whole numbers as labels, found 0.5"),
    "NaN": ({"labels": (0, 1, NOT_A_NUMBER, 1) * 2, "dtype": "<f4"}, "expected whole numbers as labels, found nan"),
    "one-hot": (
        {"labels": (0, 1) * 8, "shape": (8, 2)},
        "found shape (8, 2); np.argmax(y, axis=1) makes numbers of a one-hot array",
    ),
    "text": ({}, "expected whole or floating-point numbers, found <U4"),
}


@pytest.mark.parametrize("case", BAD_LABELS)
def test_bad_labels_are_refused_with_what_was_expected_and_found(work, run, case):
    change, sentence = BAD_LABELS[case]
    put_images(work)
    if case == "text":
        put(work, "y.npz", (8,), "<U4", bytes(128))
    else:
        put_labels(work, **change)
    assert run(work).returncode == 1
    assert IN_Y in reason(work)
    assert sentence in reason(work)


def test_negative_labels_and_gaps_between_them_keep_their_meaning(work, run):
    put_images(work)
    put_labels(work, labels=(-1, 7, 300, 7) * 2)
    put_ports(work, nb_epoch="1")
    assert run(work).returncode == 0, reason(work)
    assert json.loads((trained(work) / "classes.json").read_text())["classes"] == [-1, 7, 300]


def test_eight_bit_data_declared_as_eleven_bits_are_refused(work, run):
    put_images(work)
    put_labels(work)
    put_ports(work, bit_depth="11")
    assert run(work).returncode == 1
    assert "expected values above 255 somewhere at bit_depth 11, found 255 at most: 8-bit data?" in reason(work)


def test_a_file_that_is_no_npz_is_refused(work, run):
    (work / "input" / "train_data" / "X.npz").write_bytes(npy((8, 1, 6, 6), "|u1", bytes(288)))
    put_labels(work)
    assert run(work).returncode == 1
    assert f"{IN_X}expected an npz file (a zip archive), found a damaged or other file" in reason(work)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "compressed"])
@pytest.mark.parametrize("damage", ["truncated", "altered"])
def test_a_damaged_file_is_refused(work, run, compression, damage):
    put_images(work, compression=compression)
    put_labels(work)
    path = work / "input" / "train_data" / "X.npz"
    whole = path.read_bytes()
    middle = whole.index(b"arr_0.npy") + 220
    altered = whole[:middle] + bytes(byte ^ 0x55 for byte in whole[middle : middle + 4]) + whole[middle + 4 :]
    path.write_bytes(whole[: len(whole) // 2] if damage == "truncated" else altered)
    assert run(work).returncode == 1
    assert f"{IN_X}expected an npz file" in reason(work)


def test_a_compressed_array_that_does_not_fit_the_disk_is_refused_before_it_is_unpacked(work, run):
    put_images(work, compression=zipfile.ZIP_DEFLATED)
    put_labels(work)
    path = work / "input" / "train_data" / "X.npz"
    shape = (10**13, 1, 6, 6)
    claimed = len(npy(shape, "|u1", b"")) + 36 * 10**13
    info = zipfile.ZipInfo("arr_0.npy")
    info.compress_type = zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open(info, "w", force_zip64=True) as member:
            member.write(npy(shape, "|u1", bytes(1000)))
        archive.getinfo("arr_0.npy").file_size = claimed  # what the archive's directory will say
    assert run(work).returncode == 1
    assert f"free, found {36 * 10**13:,} packed" in reason(work)


def test_several_arrays_without_arr_0_are_refused_by_their_names(work, run):
    with zipfile.ZipFile(work / "input" / "train_data" / "X.npz", "w") as archive:
        for key in ("train", "test"):
            archive.writestr(f"{key}.npy", npy((8, 1, 6, 6), "|u1", bytes(range(36)) * 8))
    put_labels(work)
    assert run(work).returncode == 1
    assert reason(work) == f"ValueError: {IN_X}expected one array, or one called arr_0, found: test, train"


def test_missing_files_are_named_with_what_is_there(work, run):
    (work / "input" / "train_data" / "x.npz").touch()
    assert run(work).returncode == 1
    assert f"{IN_X}expected this file, found: x.npz" in reason(work)
    assert f"{IN_Y}expected this file, found: x.npz" in reason(work)


def test_a_missing_port_is_named(work, run):
    (work / "input" / "train_data").rmdir()
    assert run(work).returncode == 1
    assert "input port 'train_data': expected a directory at " in reason(work)


def test_all_problems_are_told_at_once_and_before_any_training(work, run):
    put_images(work, shape=(8, 1, 5, 5))
    put_labels(work, labels=(1,) * 7)
    put_ports(work, nb_epoch="ten", bit_depth="99", optimizer="lion")
    done = run(work)
    lines = reason(work).splitlines()
    assert lines[0] == "ValueError: 5 problems with the inputs:"
    assert len(lines) == 6
    for words in (
        "'nb_epoch'",
        "'bit_depth'",
        "'optimizer'",
        "6 x 6 pixels",
        "as there are images in X.npz (8), found 7",
    ):
        assert words in reason(work)
    assert "Keras" not in done.stdout


def test_images_too_large_for_the_memory_are_refused(work, run):
    side = 60_000
    with zipfile.ZipFile(work / "input" / "train_data" / "X.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("arr_0.npy", npy((2, 1, 6, side), "|u1", bytes(range(240)) * (12 * side // 240)))
    put_labels(work, labels=(0, 1))
    put_ports(work, batch_size="65536")
    assert run(work).returncode == 1
    assert "expected images that train within" in reason(work)
    assert "found 1 x 6 x 60000 pixels, which need" in reason(work)


def test_a_gpu_is_wanted_unless_the_processor_is_asked_for(work, run):
    put_images(work)
    put_labels(work)
    done = run(work, DEVICE="gpu")
    assert done.returncode == 1
    expected = "DEVICE=gpu: expected an NVIDIA card, found no NVIDIA driver (libcuda.so.1); give the container one"
    assert reason(work).startswith(f"ValueError: {expected}")
    assert reason(work).endswith("or ask for the processor with DEVICE=cpu")
    assert "Keras" not in done.stdout


def test_another_device_is_refused(work, run):
    assert run(work, DEVICE="tpu").returncode == 1
    assert reason(work) == "ValueError: DEVICE: expected 'gpu' or 'cpu', found 'tpu'"


def test_a_training_that_diverges_stops_without_a_model(work, run):
    put_samples(work, optimizer="sgd", learning_rate="100000")
    assert run(work).returncode == 1
    assert "FloatingPointError: expected a finite loss, found nan" in reason(work)
    assert MODEL_FILES.isdisjoint(path.name for path in trained(work).iterdir())


def test_a_checkpoint_port_without_a_checkpoint_is_refused(work, run):
    put_images(work)
    put_labels(work)
    (work / "input" / "checkpoint").mkdir()
    put_ports(work, resume="yes")
    assert run(work).returncode == 1
    assert reason(work) == "ValueError: input port 'checkpoint': expected checkpoint.npz, found: nothing"


def test_a_checkpoint_without_resume_is_refused(work, run):
    put_images(work)
    put_labels(work)
    (work / "input" / "checkpoint").mkdir()
    assert run(work).returncode == 1
    assert "input port 'checkpoint': expected it with resume 'yes', found resume 'no'" in reason(work)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"no archive", "checkpoint.npz: expected a checkpoint that train-cnn wrote, found: "),
        (None, "checkpoint.npz: expected a checkpoint of this training, found other X.npz"),
    ],
    ids=["damaged", "of other images"],
)
def test_a_checkpoint_that_does_not_fit_is_refused(work, run, content, sentence, other_checkpoint):
    put_images(work)
    put_labels(work)
    put_ports(work, resume="yes")
    (work / "input" / "checkpoint").mkdir()
    (work / "input" / "checkpoint" / "checkpoint.npz").write_bytes(content or other_checkpoint)
    assert run(work).returncode == 1
    assert sentence in reason(work)


@pytest.fixture(scope="module")
def other_checkpoint(container, folder):
    """A checkpoint of a training on the sample images, cut after its fifth epoch."""
    engine, name = container
    work = new_work(folder, "cut")
    put_samples(work, validation_split="0")
    command = KILL_AFTER_EPOCH_5.format(script=SCRIPT, run="cut")
    subprocess.run([engine, "exec", "--env", "GBDX_WORK_DIR=/runs/cut", name, "sh", "-c", command], check=True)
    return (trained(work) / "checkpoint.npz").read_bytes()
