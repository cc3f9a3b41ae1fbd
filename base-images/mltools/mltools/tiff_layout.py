"""Where the pixels of a plain TIFF lie in its file.

GDAL reads every TIFF; this module recognises those whose blocks can be used without GDAL, either as they stand
(uncompressed) or after one inflate (deflate). All others give None. Tags: TIFF 6.0 and BigTIFF.
"""

import mmap
import struct
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, BITS, COMPRESSION, SAMPLES, ROWS_PER_STRIP, PLANAR, PREDICTOR = 256, 257, 258, 259, 277, 278, 284, 317
STRIP_OFFSETS, STRIP_SIZES, TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_SIZES, SAMPLE_FORMAT = (
    *(273, 279),
    *(322, 323, 324, 325),
    339,
)
WANTED = {WIDTH, HEIGHT, BITS, COMPRESSION, SAMPLES, ROWS_PER_STRIP, PLANAR, PREDICTOR, SAMPLE_FORMAT}
WANTED |= {STRIP_OFFSETS, STRIP_SIZES, TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_SIZES}
FIELD_TYPES = {1: "u1", 3: "u2", 4: "u4", 16: "u8"}  # BYTE, SHORT, LONG, LONG8
FORMATS = {1: "u", 2: "i", 3: "f"}
NONE, ADOBE_DEFLATE, OLD_DEFLATE = 1, 8, 32946


class TiffLayout(NamedTuple):
    """The first image of a little-endian TIFF.

    offsets and sizes (bytes) are int64, one for each block in row-major order, or (bands, blocks) flattened when
    `planes` is the number of bands. An offset of -1 is a block that was never written.
    """

    width: int
    height: int
    bands: int
    dtype: np.dtype[Any]
    block_rows: int
    block_cols: int
    planes: int
    compression: int
    predictor: int
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of blocks."""
        return -(-self.height // self.block_rows), -(-self.width // self.block_cols)


def read_layout(path: str) -> TiffLayout | None:
    """The layout of the file's first image, or None where only GDAL should read it."""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            tags = read_tags(data)
    except (OSError, ValueError, struct.error):
        return None
    return None if tags is None else layout_of(tags)


def read_tags(data: mmap.mmap) -> dict[int, NDArray[Any]] | None:
    """Values of the wanted tags of the first directory of a little-endian TIFF or BigTIFF."""
    magic = bytes(data[:4])
    if magic == b"II*\0":
        count_form, entry, value_at, start = "<H", 12, 8, struct.unpack_from("<I", data, 4)[0]
    elif magic == b"II+\0":
        count_form, entry, value_at, start = "<Q", 20, 12, struct.unpack_from("<Q", data, 8)[0]
    else:
        return None
    count = struct.unpack_from(count_form, data, start)[0]
    first = start + struct.calcsize(count_form)
    tags = {}
    for number in range(min(count, 4096)):
        at = first + number * entry
        tag, kind = struct.unpack_from("<HH", data, at)
        if tag in WANTED and kind in FIELD_TYPES:
            length = struct.unpack_from("<I" if entry == 12 else "<Q", data, at + 4)[0]
            form = np.dtype("<" + FIELD_TYPES[kind])
            room = 4 if entry == 12 else 8
            place = at + value_at
            if length * form.itemsize > room:
                place = struct.unpack_from("<I" if entry == 12 else "<Q", data, place)[0]
            tags[tag] = np.frombuffer(data[place : place + length * form.itemsize], dtype=form).astype(np.int64)
            if len(tags[tag]) != length:
                return None  # the file ends inside its own directory
    return tags


def layout_of(tags: dict[int, NDArray[Any]]) -> TiffLayout | None:
    """The layout that the tags describe, or None for what this module leaves to GDAL."""

    def one(tag: int, default: int) -> int:
        return int(tags[tag][0]) if tag in tags and len(tags[tag]) else default

    bits, formats = tags.get(BITS, np.array([1])), tags.get(SAMPLE_FORMAT, np.array([1]))
    width, height, bands = one(WIDTH, 0), one(HEIGHT, 0), one(SAMPLES, 1)
    tiled = TILE_OFFSETS in tags
    offsets, sizes = tags.get(TILE_OFFSETS if tiled else STRIP_OFFSETS), tags.get(TILE_SIZES if tiled else STRIP_SIZES)
    alike = len(set(bits.tolist())) == 1 and len(set(formats.tolist())) == 1 and int(formats[0]) in FORMATS
    if not alike or int(bits[0]) not in (8, 16, 32, 64) or min(width, height, bands) < 1:
        return None
    if offsets is None or sizes is None or (one(COMPRESSION, NONE) not in (NONE, ADOBE_DEFLATE, OLD_DEFLATE)):
        return None
    try:
        dtype = np.dtype(f"<{FORMATS[int(formats[0])]}{int(bits[0]) // 8}")
    except TypeError:
        return None
    layout = TiffLayout(
        width=width,
        height=height,
        bands=bands,
        dtype=dtype,
        block_rows=one(TILE_LENGTH, 0) if tiled else min(one(ROWS_PER_STRIP, height), height),
        block_cols=one(TILE_WIDTH, 0) if tiled else width,
        planes=bands if one(PLANAR, 1) == 2 else 1,
        compression=one(COMPRESSION, NONE),
        predictor=one(PREDICTOR, 1),
        offsets=np.where((offsets == 0) | (sizes == 0), -1, offsets),
        sizes=sizes,
    )
    if min(layout.block_rows, layout.block_cols) < 1:
        return None
    blocks = layout.grid[0] * layout.grid[1] * layout.planes
    return layout if len(offsets) == blocks and len(sizes) == blocks else None
