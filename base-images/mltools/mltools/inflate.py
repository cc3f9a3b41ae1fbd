"""Blocks of a deflated TIFF without GDAL: one inflate for a block, and the horizontal predictor undone.

libdeflate (which GDAL itself uses where it was built with it) inflates about twice as fast as zlib; it is used when the
system has it, and zlib otherwise. Both give the same bytes.
"""

import ctypes
import ctypes.util
import os
import threading
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .polygon_runs import SCAN
from .tiff_layout import TiffLayout


def _find_libdeflate() -> Any:
    """The system's libdeflate, or None."""
    for name in ("libdeflate.so.0", ctypes.util.find_library("deflate")):
        try:
            library = ctypes.CDLL(name) if name else None
        except OSError:
            continue
        if library is not None and hasattr(library, "libdeflate_zlib_decompress"):
            library.libdeflate_alloc_decompressor.restype = ctypes.c_void_p
            library.libdeflate_zlib_decompress.argtypes = [
                *(ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t),
                *(ctypes.c_void_p, ctypes.c_size_t, ctypes.POINTER(ctypes.c_size_t)),
            ]
            return library
    return None


LIBDEFLATE = _find_libdeflate()
_local = threading.local()


def inflate_into(packed: bytes, target: NDArray[np.uint8]) -> int:
    """Inflate a zlib stream into a buffer; returns how many bytes it gave. ValueError: it is damaged or too long."""
    if LIBDEFLATE is not None:
        if not hasattr(_local, "decompressor"):
            _local.decompressor = LIBDEFLATE.libdeflate_alloc_decompressor()
        actual = ctypes.c_size_t()
        fault = LIBDEFLATE.libdeflate_zlib_decompress(
            _local.decompressor, packed, len(packed), target.ctypes.data, len(target), ctypes.byref(actual)
        )
        if fault == 0:
            return int(actual.value)
    try:
        plain = zlib.decompressobj().decompress(packed, len(target))
    except zlib.error as error:
        raise ValueError(f"damaged deflate data: {error}") from None
    target[: len(plain)] = np.frombuffer(plain, dtype=np.uint8)
    return len(plain)


def inflate_blocks(
    layout: TiffLayout, file: int, blocks: NDArray[np.int64], rows: tuple[int, int] | None = None
) -> tuple[Any, NDArray[np.int64]]:
    """Some blocks of an open file, one after another in one buffer, and where each begins (-1: never written).

    rows: the rows of each block that are wanted (first, last); others may hold differences. The buffer belongs to the
    thread and is used again by its next call.
    """
    samples = layout.block_cols * (1 if layout.planes > 1 else layout.bands)
    room = layout.block_rows * samples * layout.dtype.itemsize
    present = layout.offsets[blocks] >= 0
    offsets = np.where(present, (np.cumsum(present) - 1) * room, -1)
    data = _thread_buffer(int(present.sum()) * room)
    for block, offset in zip(blocks[present].tolist(), offsets[present].tolist(), strict=True):
        packed = os.pread(file, int(layout.sizes[block]), int(layout.offsets[block]))
        got = inflate_into(packed, data[offset : offset + room])
        expected = block_bytes(layout, block)
        if got < expected:
            raise ValueError(
                f"block {block}: expected {expected} bytes, found {got}; the image is damaged or truncated"
            )
    if layout.predictor == 2:
        first, last = rows or (0, layout.block_rows)
        row_bytes = room // layout.block_rows
        for offset in offsets[present].tolist():
            undo_predictor(data[offset + first * row_bytes : offset + last * row_bytes], layout)
    return data, offsets


def _thread_buffer(size: int) -> NDArray[np.uint8]:
    """Bytes of this thread's buffer: fresh memory for every block would cost as much as a quarter of the inflating."""
    if getattr(_local, "buffer", None) is None or len(_local.buffer) < size:
        _local.buffer = np.empty(size, dtype=np.uint8)
    return _local.buffer[:size]


def block_bytes(layout: TiffLayout, block: int) -> int:
    """Bytes of a block once inflated: tiles are always whole, the last strip may be shorter."""
    rows = layout.block_rows
    if layout.block_cols == layout.width:
        row = block % (layout.grid[0] * layout.grid[1]) * layout.block_rows
        rows = min(rows, layout.height - row)
    return rows * layout.block_cols * (1 if layout.planes > 1 else layout.bands) * layout.dtype.itemsize


def undo_predictor(data: NDArray[np.uint8], layout: TiffLayout, compiled: bool = True) -> None:
    """Turn the differences between neighbours in a row back into values, in place (TIFF 6.0, section 14)."""
    bands = 1 if layout.planes > 1 else layout.bands
    if compiled and SCAN is not None:
        SCAN.undo_differences(data, layout.dtype.itemsize, layout.block_cols, bands)
        return
    unsigned = np.dtype(f"u{layout.dtype.itemsize}")
    values = data.view(unsigned).reshape(-1, layout.block_cols, bands)
    np.cumsum(values, axis=1, dtype=unsigned, out=values)
