"""The pixels under many runs, read from an image so that every block that is needed is decoded once.

An uncompressed GeoTIFF is mapped into memory and only the rows under the polygons are touched; a deflated one is
inflated block by block; all other images are read by GDAL (rasterio) block by block. Polygons are sorted by place
first, so that memory and time depend neither on their order nor on the size of the image.
"""

import mmap
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, NamedTuple

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.windows import Window

from .inflate import inflate_blocks
from .polygon_runs import Runs
from .run_statistics import Grid, Measure, array_grid, run_statistics
from .tiff_layout import NONE, TiffLayout, read_layout

TOUCHED_BYTES = 48_000_000  # of a mapped image that may stay in memory between two releases
UNIT_BYTES = 1_000_000  # strips are read together until they make up this much
LARGE_UNIT = 64_000_000  # blocks above this size are read one at a time
HANDLE_BYTES = 48_000_000  # a dataset is opened anew after this much, which empties GDAL's cache of its blocks
NARROW_ROW = 16_384  # rows of a block up to this size are fetched from disk together
PROBES = 16  # places of a piece that are looked at to learn whether it is in memory
FAULT_BYTES = 65_536  # what Linux maps around a page that is touched


class Image(NamedTuple):
    """What must be known of an image. layout: of a TIFF whose blocks are used without GDAL, else None."""

    path: str
    height: int
    width: int
    bands: int
    dtype: str
    nodata: float | None
    masked: bool
    crs: Any
    transform: Affine
    block_rows: int
    block_cols: int
    layout: TiffLayout | None


def describe_image(path: str) -> Image:
    """Open an image and say what it is; rasterio's errors pass through."""
    with rasterio.open(path) as source:
        dtypes, nodatas = set(source.dtypes), {repr(value) for value in source.nodatavals}
        flags = {flag for band in source.mask_flag_enums for flag in band}
        if any(dtype.startswith("complex") for dtype in dtypes):
            raise ValueError(f"{path}: expected real numbers, found {sorted(dtypes)}")
        # Bands of several types or several nodata values, and masks of their own, are read as float64 with nan.
        masked = len(dtypes) > 1 or len(nodatas) > 1 or bool(flags & {MaskFlags.per_dataset, MaskFlags.alpha})
        image = Image(
            path=os.fspath(path),
            height=source.height,
            width=source.width,
            bands=source.count,
            dtype=source.dtypes[0],
            nodata=None if masked else source.nodata,
            masked=masked,
            crs=source.crs,
            transform=source.transform,
            block_rows=source.block_shapes[0][0],
            block_cols=source.block_shapes[0][1],
            layout=None,
        )
        plain = source.driver == "GTiff" and not masked and os.path.isfile(path)
    layout = read_layout(os.fspath(path)) if plain else None
    return image._replace(layout=layout if layout is not None and _fits(layout, image) else None)


def _fits(layout: TiffLayout, image: Image) -> bool:
    """Whether a layout says of the image what GDAL says, so that its bytes mean the same."""
    return (
        (layout.height, layout.width, layout.bands) == (image.height, image.width, image.bands)
        and layout.dtype == np.dtype(image.dtype)
        and (layout.block_rows, layout.block_cols) == (image.block_rows, image.block_cols)
        and (layout.predictor == 1 or (layout.predictor == 2 and layout.dtype.kind in "ui"))
        and np.little_endian
    )


def thread_count(threads: int | None) -> int:
    """The threads to use: those asked for, or one for each core that this process may use."""
    if threads is None:
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, threads)


def measure_runs(
    image: Image, runs: Runs, measure: Measure, threads: int | None = None, compiled: bool = True
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Largest values (polygons, width; -inf without a pixel) and counts (polygons, 2: pixels seen, pixels used)."""
    best = np.full((len(runs.states), measure.width), -np.inf)
    counts = np.zeros((len(runs.states), 2), dtype=np.int64)
    boxes = run_boxes(runs)
    drawn = np.flatnonzero(np.diff(runs.starts) > 0)
    if len(drawn):
        mapped = image.layout is not None and image.layout.compression == NONE
        work: type[MappedPieces] | type[BlockPieces] = MappedPieces if mapped else BlockPieces
        with work(image, boxes, drawn) as pieces:
            _run_pieces(pieces, runs, measure, thread_count(threads), compiled, best, counts)
    return best, counts


class Piece(NamedTuple):
    """Some polygons (numbers) and what reads the pixels that they need; release lets go of the memory afterwards."""

    numbers: NDArray[np.int64]
    read: Callable[[], list[Grid]]
    release: Callable[[], None]


def _run_pieces(
    pieces: list[Piece], runs: Runs, measure: Measure, threads: int, compiled: bool, best: Any, counts: Any
) -> None:
    """Measure all pieces on some threads and fold what they find into best and counts."""
    lock = threading.Lock()

    def work(piece: Piece) -> None:
        for grid in piece.read():
            found, seen = run_statistics(grid, runs, piece.numbers, measure, compiled)
            with lock:
                best[piece.numbers] = np.maximum(best[piece.numbers], found)
                counts[piece.numbers] += seen
        piece.release()

    if threads == 1 or len(pieces) == 1:
        for piece in pieces:
            work(piece)
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, pieces):
            pass


def run_boxes(runs: Runs) -> NDArray[np.int64]:
    """First row, last row, first column and last column (n, 4; last ones excluded) of each polygon's runs."""
    boxes = np.zeros((len(runs.states), 4), dtype=np.int64)
    drawn = np.diff(runs.starts) > 0
    at = runs.starts[:-1][drawn]
    if len(at):
        boxes[drawn, 0] = runs.items["row"][at]
        boxes[drawn, 1] = runs.items["row"][runs.starts[1:][drawn] - 1] + 1
        boxes[drawn, 2] = np.minimum.reduceat(runs.items["first"], at)
        boxes[drawn, 3] = np.maximum.reduceat(runs.items["last"], at)
    return boxes


# --- an uncompressed TIFF, mapped ------------------------------------------------------------------------------------


class MappedPieces(AbstractContextManager[Any]):
    """Pieces of an uncompressed TIFF: polygons in the order of their place in the file, some MB at a time."""

    def __init__(self, image: Image, boxes: NDArray[np.int64], drawn: NDArray[np.int64]):
        assert image.layout is not None
        self.layout, self.boxes = image.layout, boxes
        self.file = open(image.path, "rb")  # noqa: SIM115 - closed by __exit__
        self.map = mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_READ)
        _advise(self.map, "MADV_RANDOM")
        block = boxes[drawn, 0] // image.block_rows * self.layout.grid[1] + boxes[drawn, 2] // image.block_cols
        self.drawn = drawn[np.lexsort((boxes[drawn, 0], block))]

    def __enter__(self) -> list[Piece]:
        grid = tiff_grid(self.layout, self.map, self.layout.offsets, 0, 0, *self.layout.grid)
        cuts = np.cumsum(self.touched_bytes(self.drawn)) // TOUCHED_BYTES
        at = np.flatnonzero(np.diff(cuts)) + 1
        return [self.piece(numbers, grid) for numbers in np.split(self.drawn, at)]

    def piece(self, numbers: NDArray[np.int64], grid: Grid) -> Piece:
        def read() -> list[Grid]:
            self.fetch(numbers)
            return [grid]

        return Piece(numbers, read, lambda: _advise(self.map, "MADV_DONTNEED"))

    def fetch(self, numbers: NDArray[np.int64]) -> None:
        """Ask the system for all rows of a piece at once where they are not in memory: faster than one by one."""
        if not hasattr(os, "posix_fadvise"):
            return
        starts, ends = self.row_ranges(numbers)
        if not any(self.absent(start) for start in starts[:: max(1, len(starts) // PROBES)].tolist()):
            return
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            os.posix_fadvise(self.file.fileno(), start, end - start, os.POSIX_FADV_WILLNEED)

    def absent(self, offset: int) -> bool:
        """Whether reading a byte of the file would wait for the disk."""
        try:
            os.preadv(self.file.fileno(), [bytearray(1)], offset, os.RWF_NOWAIT)
        except (AttributeError, BlockingIOError):
            return True
        except OSError:  # a file system that cannot tell
            return True
        return False

    def row_ranges(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First and last byte of the stretches of the file under some polygons' boxes (of the first band's plane)."""
        layout = self.layout
        block, owner = unit_pairs(self.boxes, numbers, layout.block_rows, layout.block_cols, layout.grid[1])
        corner = np.stack(
            [block // layout.grid[1] * layout.block_rows, block % layout.grid[1] * layout.block_cols], axis=1
        )
        top = np.maximum(self.boxes[owner, 0] - corner[:, 0], 0)
        bottom = np.minimum(self.boxes[owner, 1] - corner[:, 0], layout.block_rows)
        left = np.maximum(self.boxes[owner, 2] - corner[:, 1], 0)
        right = np.minimum(self.boxes[owner, 3] - corner[:, 1], layout.block_cols)
        pixel = layout.dtype.itemsize * (1 if layout.planes > 1 else layout.bands)
        row = pixel * layout.block_cols
        heights = bottom - top
        if row > NARROW_ROW:  # rows far apart: each by itself
            index = np.arange(int(heights.sum())) - np.repeat(np.cumsum(heights) - heights, heights)
            block, left, right, top = (np.repeat(values, heights) for values in (block, left, right, top))
            top, bottom = top + index, top + index + 1
        offset = layout.offsets[block]
        starts, ends = offset + top * row + left * pixel, offset + (bottom - 1) * row + right * pixel
        return starts[offset >= 0], ends[offset >= 0]

    def touched_bytes(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """About how much of the file each polygon brings into memory."""
        heights = self.boxes[numbers, 1] - self.boxes[numbers, 0]
        widths = self.boxes[numbers, 3] - self.boxes[numbers, 2]
        samples = self.layout.dtype.itemsize * (1 if self.layout.planes > 1 else self.layout.bands)
        row = samples * np.minimum(self.layout.block_cols, self.layout.width)
        per_row = np.minimum(row, FAULT_BYTES) + widths * samples
        return heights * per_row * self.layout.planes

    def __exit__(self, *_: Any) -> None:
        # an array of the numpy twin still looks into it; the last one to go closes it
        with suppress(BufferError):
            self.map.close()
        self.file.close()


def _advise(mapped: mmap.mmap, advice: str) -> None:
    """madvise, where the system has it."""
    if hasattr(mmap, advice):
        mapped.madvise(getattr(mmap, advice))


def tiff_grid(
    layout: TiffLayout, data: Any, offsets: NDArray[np.int64], row0: int, col0: int, rows: int, cols: int
) -> Grid:
    """Blocks of a TIFF in a buffer, as they lie in the file (uncompressed or inflated)."""
    size = layout.dtype.itemsize
    pixel = size if layout.planes > 1 else size * layout.bands
    return Grid(
        *(data, layout.dtype, layout.bands, pixel, size, pixel * layout.block_cols, offsets, layout.planes),
        *(layout.block_rows, layout.block_cols, row0, col0, rows, cols),
    )


# --- all other images, block by block --------------------------------------------------------------------------------


class BlockPieces(AbstractContextManager[Any]):
    """Pieces of any image: a block (or some strips), the polygons that lie on it, read once."""

    def __init__(self, image: Image, boxes: NDArray[np.int64], drawn: NDArray[np.int64]):
        self.image, self.boxes, self.drawn = image, boxes, drawn
        self.rows, self.cols = unit_shape(image)
        self.local = threading.local()
        self.handles: list[Any] = []
        self.lock = threading.Lock()
        large = self.rows * self.cols * image.bands * np.dtype(image.dtype).itemsize > LARGE_UNIT
        self.one_at_a_time = threading.Lock() if large else nullcontext()
        self.file = open(image.path, "rb") if image.layout is not None else None  # noqa: SIM115

    def __enter__(self) -> list[Piece]:
        unit, numbers = unit_pairs(self.boxes, self.drawn, self.rows, self.cols, -(-self.image.width // self.cols))
        at = np.flatnonzero(np.diff(unit)) + 1
        firsts = np.concatenate([[0], at])
        return [self.piece(int(unit[k]), found) for k, found in zip(firsts, np.split(numbers, at), strict=True)]

    def piece(self, unit: int, numbers: NDArray[np.int64]) -> Piece:
        unit_row, unit_col = divmod(unit, -(-self.image.width // self.cols))
        boxes = self.boxes[numbers]
        window = (
            max(unit_row * self.rows, int(boxes[:, 0].min())),
            min((unit_row + 1) * self.rows, self.image.height, int(boxes[:, 1].max())),
            max(unit_col * self.cols, int(boxes[:, 2].min())),
            min((unit_col + 1) * self.cols, self.image.width, int(boxes[:, 3].max())),
        )
        return Piece(numbers, lambda: self.read(window), lambda: None)

    def read(self, window: tuple[int, int, int, int]) -> list[Grid]:
        row0, row1, col0, col1 = window
        with self.one_at_a_time:
            if self.image.layout is not None and self.file is not None:
                return inflate_window(self.image.layout, self.file.fileno(), window)
            source = self.source((row1 - row0) * (col1 - col0))
            frame = Window(col0, row0, col1 - col0, row1 - row0)
            if self.image.masked:
                values = source.read(window=frame, masked=True, out_dtype="float64").filled(np.nan)
            else:
                values = source.read(window=frame)
            return [array_grid(np.ascontiguousarray(values), row0, col0)]

    def source(self, pixels: int) -> Any:
        """This thread's dataset, opened anew after some MB."""
        if not hasattr(self.local, "source") or self.local.bytes > HANDLE_BYTES:
            if hasattr(self.local, "source"):
                self.local.source.close()
            self.local.source, self.local.bytes = rasterio.open(self.image.path), 0
            with self.lock:
                self.handles.append(self.local.source)
        self.local.bytes += max(pixels, self.rows * self.cols) * self.image.bands * np.dtype(self.image.dtype).itemsize
        return self.local.source

    def __exit__(self, *_: Any) -> None:
        for handle in self.handles:
            handle.close()
        if self.file is not None:
            self.file.close()


def unit_shape(image: Image) -> tuple[int, int]:
    """Rows and columns of what is read at once: a tile, or as many whole strips as make up about 1 MB."""
    rows, cols = image.block_rows, image.block_cols
    block = rows * cols * image.bands * np.dtype(image.dtype).itemsize
    if cols >= image.width and block < UNIT_BYTES:
        rows *= UNIT_BYTES // block
    return min(rows, image.height), cols


def unit_pairs(
    boxes: NDArray[np.int64], drawn: NDArray[np.int64], rows: int, cols: int, across: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which polygons' boxes lie on which units: (unit, polygon) pairs in the order of the units."""
    top, left = boxes[drawn, 0] // rows, boxes[drawn, 2] // cols
    high, wide = (boxes[drawn, 1] - 1) // rows - top + 1, (boxes[drawn, 3] - 1) // cols - left + 1
    count = high * wide
    index = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
    top, left, wide = (np.repeat(values, count) for values in (top, left, wide))
    unit = (top + index // wide) * across + left + index % wide
    order = np.argsort(unit, kind="stable")
    return unit[order], np.repeat(drawn, count)[order]


def inflate_window(layout: TiffLayout, file: int, window: tuple[int, int, int, int]) -> list[Grid]:
    """The blocks of a deflated TIFF under a window (first row, last row, first column, last column), inflated."""
    row0, row1 = window[0] // layout.block_rows, (window[1] - 1) // layout.block_rows + 1
    col0, col1 = window[2] // layout.block_cols, (window[3] - 1) // layout.block_cols + 1
    across = layout.grid[1]
    blocks = (np.arange(row0, row1)[:, None] * across + np.arange(col0, col1)).ravel()
    planes = np.arange(layout.planes)[:, None] * (layout.grid[0] * across)
    top = row0 * layout.block_rows
    rows = (window[0] - top, window[1] - top) if row1 - row0 == 1 else None
    data, offsets = inflate_blocks(layout, file, (planes + blocks).ravel(), rows)
    return [tiff_grid(layout, data, offsets, top, col0 * layout.block_cols, row1 - row0, col1 - col0)]
