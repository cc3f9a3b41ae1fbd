"""Which device a run is on: found out before Keras is loaded, said in one line, and proved afterwards.

DEVICE=gpu (the default) wants an NVIDIA card and fails without one; DEVICE=cpu wants the processor.
"""

import ctypes
import os
import re

OLDEST_CUDA = 12000  # CUDA 12.0, what the libraries in the image need of the driver, as cuDriverGetVersion writes it


def asked_for():
    """What the environment variable DEVICE asks for: "gpu" or "cpu". ValueError when it says something else."""
    asked = os.environ.get("DEVICE") or "gpu"
    if asked not in ("gpu", "cpu"):
        raise ValueError(f"DEVICE: expected 'gpu' or 'cpu', found {asked!r}")
    return asked


def cards():
    """(CUDA version of the driver, such as 12040, [names of the cards]); RuntimeError says what is missing."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        raise RuntimeError("no NVIDIA driver (libcuda.so.1)") from None
    version, count = ctypes.c_int(), ctypes.c_int()
    code = driver.cuInit(0)
    if code or driver.cuDriverGetVersion(ctypes.byref(version)) or driver.cuDeviceGetCount(ctypes.byref(count)):
        raise RuntimeError(f"an NVIDIA driver that answers cuInit with error {code}")
    names = []
    for number in range(count.value):
        name = ctypes.create_string_buffer(256)
        driver.cuDeviceGetName(name, len(name), number)
        names.append(name.value.decode(errors="replace"))
    return version.value, names


def choose():
    """{"kind": "gpu" or "cpu", "name": ..., ...} of the device that the run is to use. Takes milliseconds.

    RuntimeError when a GPU is wanted and none can be used. Nothing is hidden: the caller proves it with `check_used`.
    """
    if asked_for() == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # before TensorFlow is loaded
        return {"kind": "cpu", "name": processor_name(), "cores": cores()}
    try:
        cuda, names = cards()
    except RuntimeError as problem:
        raise RuntimeError(no_card(str(problem))) from None
    if not names:
        raise RuntimeError(no_card("an NVIDIA driver without a card"))
    if cuda < OLDEST_CUDA:
        found = f"a driver for CUDA {cuda // 1000}.{cuda % 1000 // 10}"
        raise RuntimeError(f"DEVICE=gpu: expected a driver for CUDA 12.0 or newer, found {found}; update the driver")
    return {
        "kind": "gpu",
        "name": names[0],
        "driver": driver_version(),
        "driver_cuda": f"{cuda // 1000}.{cuda % 1000 // 10}",
    }


def no_card(found):
    """The sentence for a machine, or a container, without a card."""
    return (
        f"DEVICE=gpu: expected an NVIDIA card, found {found}; give the container one "
        "(--gpus all with the NVIDIA Container Toolkit, or --device nvidia.com/gpu=all), "
        "or ask for the processor with DEVICE=cpu"
    )


def driver_version():
    """The version of NVIDIA's kernel driver, such as "550.54.15"; None when it can't be told."""
    text = text_of("/proc/driver/nvidia/version")
    found = re.search(r"\b(\d{3,}\.\d+(?:\.\d+)?)\b", text)
    return found[1] if found else None


def processor_name():
    """The processor's name as the kernel has it."""
    found = re.search(r"^model name\s*:\s*(.+)$", text_of("/proc/cpuinfo"), re.MULTILINE)
    return found[1] if found else "unknown processor"


def cores():
    """The cores that this process may use: those it is bound to, or fewer when its control group has a quota."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = text_of("/sys/fs/cgroup/cpu.max").partition(" ")
    if quota.isdigit():
        usable = min(usable, max(1, int(quota) // int(period)))
    return usable


def memory():
    """Bytes of memory that may still be taken: what the machine has available, or less when a limit is set."""
    available = re.search(r"^MemAvailable:\s*(\d+) kB", text_of("/proc/meminfo"), re.MULTILINE)
    limits = [int(available[1]) * 1024] if available else []
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = text_of(path).strip()
        limits += [int(text)] if text.isdigit() else []
    return min(limits, default=2**63)


def text_of(path):
    """What a small file of the kernel holds; empty where it isn't there."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def line(device, framework):
    """The sentence that is printed before the first epoch."""
    if device["kind"] == "cpu":
        return f"runs on the processor: {device['name']}, {device['cores']} cores; {framework}"
    return f"runs on the GPU: {device['name']}, driver {device['driver']} (CUDA {device['driver_cuda']}); {framework}"


def check_used(device, arrays_on, peak):
    """RuntimeError when a GPU was wanted and the weights lie elsewhere, or its memory was never used.

    arrays_on: where the framework says the weights are, such as "/job:localhost/.../device:GPU:0".
    peak: bytes of the card's memory that were used at most, None where the framework can't tell.
    """
    if device["kind"] == "gpu" and ("gpu" not in arrays_on.lower() or peak == 0):
        found = f"weights on {arrays_on or 'the processor'}, {peak} bytes of the card's memory used"
        raise RuntimeError(f"DEVICE=gpu: expected training on {device['name']}, found {found}")


def load_framework(device):
    """Loads Keras and its back end.

    Returns {"framework": a sentence, "framework_name", "versions", "bands_last": whether it trains faster so, "where":
    a function (model) -> (device of the weights, peak bytes of its memory)}. RuntimeError when no wanted card is seen.
    """
    if device["kind"] == "gpu":
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    import keras
    import numpy as np

    name = keras.backend.backend()
    versions = {"keras": keras.__version__, "numpy": np.__version__}
    if name == "tensorflow":
        import tensorflow as tf

        sees_card = set_up_tensorflow(device)
        versions["tensorflow"] = tf.__version__
        versions["cuda"] = tf.sysconfig.get_build_info().get("cuda_version")
        where = tensorflow_whereabouts
    else:
        import theano

        sees_card = theano.config.device.startswith("cuda")
        versions["theano"] = theano.__version__
        where = theano_whereabouts
    if device["kind"] == "gpu" and not sees_card:
        raise RuntimeError(f"DEVICE=gpu: expected {name} to use {device['name']}, found that it sees no card")
    framework = f"Keras {keras.__version__} on {name} {versions[name]}"
    return {
        "framework": framework,
        "framework_name": name,
        "versions": versions,
        "bands_last": name == "tensorflow",
        "where": where,
    }


def set_up_tensorflow(device):
    """As many threads as there are cores; only as much of a card's memory as is needed. Returns whether it sees one."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if device["kind"] == "cpu":
        tf.config.threading.set_intra_op_parallelism_threads(device["cores"])
    return bool(gpus)


def tensorflow_whereabouts(model):
    """(the device that the weights lie on, the most bytes of it that were used; None on the processor)."""
    import tensorflow as tf

    device = model.trainable_variables[0].value.device
    peak = tf.config.experimental.get_memory_info("GPU:0")["peak"] if "GPU" in device else None
    return device, peak


def theano_whereabouts(model):
    """The same for Theano, which can't tell the memory."""
    kind = type(model.trainable_weights[0]).__name__
    return "GPU" if kind.startswith("GpuArray") else "CPU", None
