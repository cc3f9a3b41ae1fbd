"""Reads X.npz and y.npz without a copy in memory, and says everything that is wrong with them at once.

An array in an npz file is a member of a zip archive. One that is stored as it is (np.savez) is mapped where it lies;
a compressed one (np.savez_compressed) is unpacked once, to a file that has no name and ends with the process.
"""

import os
import shutil
import struct
import tempfile
import zipfile
import zlib

import numpy as np

SMALLEST_SIDE = 6  # two 3 x 3 convolutions take 4 pixels, and the pooling needs 2
CHUNK = 2**24  # bytes that are looked at in one go


class ArrayProblem(ValueError):
    """An array can't be used; the message says what was expected and what was found."""


class Problems(list):
    """What is wrong with a run's inputs, a sentence each; found all at once, raised together."""

    def check(self, function, *arguments, about=""):
        """What the function returns; None when it raises, and the problem is kept."""
        try:
            return function(*arguments)
        except (ValueError, FileNotFoundError, RuntimeError) as error:
            self.append(f"{about}{error}")
        return None

    def stop(self):
        """ValueError with all problems, when there are any."""
        if len(self) == 1:
            raise ValueError(self[0])
        if self:
            raise ValueError(f"{len(self)} problems with the inputs:\n- " + "\n- ".join(self))


def open_array(folder, name, spool):
    """The one array in the file `name` of a folder, as a read-only map of the file.

    spool: a folder on a disk, for what has to be unpacked. ArrayProblem when there is no such file, or no such array.
    """
    path = os.path.join(folder, name)
    if not os.path.isfile(path):
        found = ", ".join(sorted(os.listdir(folder))) or "nothing"
        raise ArrayProblem(f"expected this file, found: {found}")
    try:
        with zipfile.ZipFile(path) as archive:
            return open_member(archive, choose_member(archive), path, spool)
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error) as error:
        raise ArrayProblem(f"expected an npz file (a zip archive), found a damaged or other file: {error}") from None
    except (NotImplementedError, RuntimeError) as error:  # a compression or an encryption that zipfile does not know
        raise ArrayProblem(f"expected an npz file as NumPy writes it, found: {error}") from None


def choose_member(archive):
    """The zip entry called arr_0, or the only one there is."""
    entries = {entry.filename: entry for entry in archive.infolist()}
    if "arr_0.npy" not in entries and len(entries) != 1:
        found = ", ".join(name[:-4] if name.endswith(".npy") else name for name in sorted(entries)) or "none"
        raise ArrayProblem(f"expected one array, or one called arr_0, found: {found}")
    return entries.get("arr_0.npy") or next(iter(entries.values()))


def open_member(archive, entry, path, spool):
    """A zip entry that holds an array, mapped."""
    with archive.open(entry) as member:
        shape, fortran, dtype, header = read_header(member)
        size = header + int(np.prod(shape, dtype=object)) * dtype.itemsize
        if size != entry.file_size:
            expected = f"{size:,} bytes for an array of shape {shape} and type {dtype}"
            raise ArrayProblem(f"expected {expected}, found {entry.file_size:,}")
        if size == header:
            return np.empty(shape, dtype)
        order = "F" if fortran else "C"
        if entry.compress_type == zipfile.ZIP_STORED:
            return map_stored(archive, entry, path, dtype, header, shape, order)
        return unpack(member, dtype, size - header, shape, order, spool)


def read_header(member):
    """(shape, whether in Fortran order, dtype, bytes of the header) of an array file. Objects are never unpickled."""
    try:
        version = np.lib.format.read_magic(member)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = reader(member)
    except ValueError as error:
        raise ArrayProblem(f"expected an array as NumPy writes it, found something else: {error}") from None
    if dtype.hasobject:
        raise ArrayProblem("expected numbers, found Python objects (dtype=object), which are never unpickled")
    if dtype.kind not in "buif":
        raise ArrayProblem(f"expected whole or floating-point numbers, found {dtype}")
    return shape, fortran, dtype, member.tell()


def map_stored(archive, entry, path, dtype, header, shape, order):
    """The map of an entry that is stored as it is; its bytes are checked against the archive's sum first."""
    check_sum(archive, entry)
    with open(path, "rb") as file:
        file.seek(entry.header_offset + 26)
        names, extra = struct.unpack("<HH", file.read(4))
    offset = entry.header_offset + 30 + names + extra + header
    return np.memmap(path, dtype, "r", offset, shape, order)


def check_sum(archive, entry):
    """Reads an entry to its end: zipfile compares its CRC there. zipfile.BadZipFile when it differs."""
    with archive.open(entry) as member:
        while member.read(CHUNK):
            pass


def unpack(member, dtype, size, shape, order, spool):
    """The map of a nameless file that gets the rest of a compressed entry, `size` bytes."""
    free = shutil.disk_usage(spool).free
    if size > free:
        raise ArrayProblem(f"expected at most {free:,} bytes, which is what the disk has free, found {size:,} packed")
    with tempfile.TemporaryFile(dir=spool) as file:
        shutil.copyfileobj(member, file, CHUNK)
        file.flush()
        return np.memmap(file, dtype, "r", 0, shape, order)


def as_images(array):
    """The array as (images, bands, rows, cols); (images, rows, cols) has one band. ArrayProblem for other shapes."""
    if array.ndim == 3:
        array = array[:, np.newaxis]
    if array.ndim != 4:
        raise ArrayProblem(f"expected shape (images, bands, rows, cols) or (images, rows, cols), found {array.shape}")
    images, bands, rows, cols = array.shape
    if not images:
        raise ArrayProblem(f"expected at least one image, found shape {array.shape}")
    if min(rows, cols) < SMALLEST_SIDE or not bands:
        hint = "; are the bands last? np.moveaxis(X, 3, 1) puts them first" if cols < SMALLEST_SIDE <= rows else ""
        smallest = f"{SMALLEST_SIDE} x {SMALLEST_SIDE}"
        raise ArrayProblem(
            f"expected images of at least {smallest} pixels, found (bands, rows, cols) = {array.shape[1:]}{hint}"
        )
    return array


def value_range(images):
    """(smallest, largest) of the finite values, and how many values are NaN and infinite, in one pass over the data."""
    low, high, nans, infinite = np.inf, -np.inf, 0, 0
    step = max(1, CHUNK // max(1, images[0].nbytes))
    for first in range(0, len(images), step):
        chunk = images[first : first + step]
        if chunk.dtype.kind == "f":
            nans += int(np.isnan(chunk).sum())
            infinite += int(np.isinf(chunk).sum())
            chunk = chunk[np.isfinite(chunk)]
        if chunk.size:
            low, high = min(low, float(chunk.min())), max(high, float(chunk.max()))
    return low, high, nans, infinite


def check_values(images, bit_depth):
    """The problems of the pixel values, sentences; none when the values fit the bit depth."""
    low, high, nans, infinite = value_range(images)
    if nans or infinite:
        return [f"expected finite values, found {nans} NaN and {infinite} infinite of {images.size:,}"]
    if low == high:
        return [f"expected images that differ, found the value {low:g} everywhere"]
    return range_problems(images.dtype, low, high, bit_depth) if bit_depth else []


def range_problems(dtype, low, high, bit_depth):
    """The problems of a range of values at a bit depth."""
    top = 2**bit_depth - 1
    if low < 0:
        return [f"expected values from 0 to {top} (bit_depth {bit_depth}), found {low:g}"]
    if high > top:
        fitting = max(1, int(np.ceil(np.log2(high + 1))))
        return [
            f"expected values from 0 to {top} (bit_depth {bit_depth}), found {high:g}; {fitting} bits would hold it"
        ]
    if bit_depth > 8 and 1 < high <= 255:
        return [f"expected values above 255 somewhere at bit_depth {bit_depth}, found {high:g} at most: 8-bit data?"]
    if dtype.kind == "f" and high <= 1 and bit_depth > 1:
        return [
            f"expected values up to {top} (bit_depth {bit_depth}), found {high:g} at most; "
            "scaled already? bit_depth 1 takes them as they are"
        ]
    return []


def as_labels(array, images):
    """The labels as a vector of int64, one for each image. ArrayProblem when they aren't whole numbers, one each.

    images: (how many images there are,); None when that isn't known.
    """
    if array.ndim == 2 and array.shape[1] > 1:
        one_hot = (
            "; np.argmax(y, axis=1) makes numbers of a one-hot array" if not (set(np.unique(array)) - {0, 1}) else ""
        )
        raise ArrayProblem(f"expected one number for each image, found shape {array.shape}{one_hot}")
    if array.ndim not in (1, 2):
        raise ArrayProblem(f"expected shape (images,) or (images, 1), found {array.shape}")
    if images and len(array) != images[0]:
        raise ArrayProblem(f"expected as many labels as there are images in X.npz ({images[0]}), found {len(array)}")
    values = np.asarray(array).reshape(-1)
    if not np.isfinite(values).all() or (values != np.floor(values)).any():
        wrong = values[~np.isfinite(values) | (values != np.floor(values))][0]
        raise ArrayProblem(f"expected whole numbers as labels, found {wrong}")
    classes = np.unique(values)
    if len(classes) < 2:
        raise ArrayProblem(
            f"expected at least two classes, found {', '.join(f'only {c:g}' for c in classes) or 'no label'}"
        )
    return values.astype("int64")
