"""Lets Theano 1.0.5 and Keras 2.3.1 run on Python 3.11 and NumPy 1.24; old_keras_shim.pth loads it at each start.

Nothing happens until a program imports theano, keras or h5py: then the names that Python and NumPy have dropped since
are put back, and the kernels that were compiled with the image are copied to a folder that can be written.
"""

import os
import sys

COMPILED = "/opt/theano/compiled"


def restore_python():
    """The collections ABCs (moved in 3.3, gone in 3.10) and inspect.getargspec (gone in 3.11)."""
    import collections
    import collections.abc
    import inspect

    for name in collections.abc.__all__:
        if not hasattr(collections, name):
            setattr(collections, name, getattr(collections.abc, name))
    if not hasattr(inspect, "getargspec"):
        fields = collections.namedtuple("ArgSpec", "args varargs keywords defaults")
        inspect.getargspec = lambda function: fields(*inspect.getfullargspec(function)[:4])


def restore_numpy():
    """np.bool and its like, other names of Python's own types until NumPy 1.24."""
    import numpy

    for kind in (bool, int, float, complex, object, str):
        if kind.__name__ not in vars(numpy):
            setattr(numpy, kind.__name__, kind)


def restore_h5py():
    """Attributes that hold text come as bytes, as they did before h5py 3."""
    from h5py._hl.attrs import AttributeManager

    original = AttributeManager.__getitem__

    def text_as_bytes(self, name):
        value = original(self, name)
        return value.encode() if isinstance(value, str) else value

    AttributeManager.__getitem__ = text_as_bytes


def prepare_theano():
    """A compile folder of one's own, filled with the image's kernels, and the device that DEVICE asks for."""
    import shutil
    import tempfile

    folder = os.path.join(tempfile.gettempdir(), f"theano-{os.getuid()}")
    if os.path.isdir(COMPILED) and not os.path.isdir(folder):
        unfinished = tempfile.mkdtemp(prefix=f"{folder}-")
        shutil.copytree(COMPILED, unfinished, dirs_exist_ok=True)
        try:
            os.rename(unfinished, folder)
        except OSError:  # another process was first
            shutil.rmtree(unfinished)
    device = {"gpu": "cuda", "cpu": "cpu"}.get(os.environ.get("DEVICE", ""))
    flags = [f"base_compiledir={folder}", f"device={device}" if device else "", os.environ.get("THEANO_FLAGS", "")]
    os.environ["THEANO_FLAGS"] = ",".join(filter(None, flags))


STEPS = {"theano": (restore_python, restore_numpy, prepare_theano), "keras": (restore_python, restore_numpy)}


class FirstImport:
    """A finder that finds nothing: it only sees the names that are imported, and prepares what they need, once."""

    def find_spec(self, name, path=None, target=None):
        """Runs the steps of a name at its first import; returns None, so that the search goes on."""
        for step in STEPS.pop(name, ()):
            step()
        if name == "keras":
            restore_h5py()


sys.meta_path.insert(0, FirstImport())
