"""Runs of pixels to the largest band ratios and cosines of each polygon.

The largest value over a polygon is the largest over its pieces: a polygon that lies on several blocks of the image is
measured block by block, in any order. The arc cosine is taken once, of the largest cosine.
"""

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .features import POOL_RATIOS, POOL_SIGNATURES, RATIO_EPSILON
from .polygon_runs import SCAN, Runs

KINDS = "BbHhIifd"  # numpy's characters of the types that are measured as they are; others as float64
STRETCH = 2_000_000  # pixels that the numpy twin measures at once


class Measure(NamedTuple):
    """What is measured: ratio_bands int32 (ratios, 2) from 0; signatures float64 (signatures, bands)."""

    ratio_bands: NDArray[np.int32]
    signatures: NDArray[np.float64]
    nodata: float | None = None

    @property
    def width(self) -> int:
        """How many values a polygon has."""
        return len(self.ratio_bands) + len(self.signatures)


class Grid(NamedTuple):
    """Blocks of pixels in one buffer.

    offsets int64 (planes * grid rows * grid columns, in bytes; -1: a block without data), planes 1 or the number of
    bands; strides in bytes; row0 and col0: the image's pixel at the grid's top left.
    """

    data: Any
    dtype: np.dtype[Any]
    bands: int
    pixel_stride: int
    band_stride: int
    row_stride: int
    offsets: NDArray[np.int64]
    planes: int
    block_rows: int
    block_cols: int
    row0: int
    col0: int
    grid_rows: int
    grid_cols: int


def pool_measure(nodata: float | None) -> Measure:
    """The measure behind features.pool_basic."""
    return Measure(np.array(POOL_RATIOS, dtype=np.int32) - 1, np.ascontiguousarray(POOL_SIGNATURES), nodata)


def array_grid(values: NDArray[Any], row0: int, col0: int) -> Grid:
    """An array (bands, rows, cols) in memory, in C order, as a grid of one block."""
    bands, rows, cols = values.shape
    size = values.itemsize
    offsets = np.arange(bands, dtype=np.int64) * rows * cols * size
    return Grid(values, values.dtype, bands, size, 0, cols * size, offsets, bands, rows, cols, row0, col0, 1, 1)


def run_statistics(
    grid: Grid, runs: Runs, wanted: NDArray[np.int64], measure: Measure, compiled: bool = True
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Largest values (wanted, width; -inf without a pixel) and counts (wanted, 2: pixels seen, pixels used)."""
    if measure.signatures.shape[1] != grid.bands:
        raise ValueError(f"signatures of {measure.signatures.shape[1]} bands, an image of {grid.bands}")
    best = np.full((len(wanted), measure.width), -np.inf)
    counts = np.zeros((len(wanted), 2), dtype=np.int64)
    if compiled and SCAN is not None and grid.dtype.char in KINDS:
        _compiled(grid, runs, wanted, measure, best, counts)
    else:
        _by_numpy(grid, runs, wanted, measure, best, counts)
    return best, counts


def norms(signatures: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lengths of the signatures."""
    return np.sqrt((signatures**2).sum(axis=1))


def _compiled(grid: Grid, runs: Runs, wanted: NDArray[Any], measure: Measure, best: Any, counts: Any) -> None:
    has_nodata = measure.nodata is not None
    nodata = float(measure.nodata) if measure.nodata is not None else 0.0
    assert SCAN is not None
    SCAN.run_statistics(
        *(grid.data, grid.dtype.char, grid.bands, grid.pixel_stride, grid.band_stride, grid.row_stride),
        *(grid.offsets, grid.planes, grid.block_rows, grid.block_cols, grid.row0, grid.col0),
        *(grid.grid_rows, grid.grid_cols, runs.items, runs.starts, np.ascontiguousarray(wanted, dtype=np.int64)),
        *(measure.ratio_bands, RATIO_EPSILON, measure.signatures, norms(measure.signatures)),
        *(has_nodata, nodata, best, counts),
    )


def _by_numpy(grid: Grid, runs: Runs, wanted: NDArray[Any], measure: Measure, best: Any, counts: Any) -> None:
    """The compiled run_statistics' twin."""
    lengths = (runs.starts[wanted + 1] - runs.starts[wanted]).astype(np.int64)
    owner = np.repeat(np.arange(len(wanted)), lengths)
    at = np.arange(len(owner)) + np.repeat(runs.starts[wanted] - (np.cumsum(lengths) - lengths), lengths)
    items = runs.items[at]
    row, first, last = (items[name].astype(np.int64) for name in ("row", "first", "last"))
    first = np.maximum(first, grid.col0)
    last = np.minimum(last, grid.col0 + grid.grid_cols * grid.block_cols)
    inside = (row >= grid.row0) & (row < grid.row0 + grid.grid_rows * grid.block_rows) & (first < last)
    owner, row, first, last = owner[inside], row[inside], first[inside], last[inside]
    # Long runs are cut so that a piece of work stays small.
    pixels = np.cumsum(last - first)
    cuts = np.searchsorted(pixels, np.arange(0, pixels[-1] if len(pixels) else 0, STRETCH))
    for begin, end in pairwise([*cuts.tolist(), len(pixels)]):
        piece = slice(begin, end)
        _fold(grid, owner[piece], row[piece], first[piece], last[piece], measure, best, counts)


def _fold(grid: Grid, owner: Any, row: Any, first: Any, last: Any, measure: Measure, best: Any, counts: Any) -> None:
    if not len(owner):
        return
    lengths = last - first
    pixel_owner = np.repeat(owner, lengths)
    col = np.arange(len(pixel_owner)) - np.repeat(np.cumsum(lengths) - lengths - first, lengths)
    values, present = _gather(grid, np.repeat(row, lengths), col)
    numbers, starts = np.unique(pixel_owner, return_index=True)
    bests, usable = _pixel_values(values, measure)
    usable &= present
    bests[:, ~usable] = -np.inf
    best[numbers] = np.maximum(best[numbers], np.maximum.reduceat(bests, starts, axis=1).T)
    counts[numbers, 0] += np.diff(np.append(starts, len(pixel_owner)))
    counts[numbers, 1] += np.add.reduceat(usable.astype(np.int64), starts)


def _gather(grid: Grid, row: Any, col: Any) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Values (bands, pixels) as float64, and which pixels lie in a block that has data."""
    row, col = row - grid.row0, col - grid.col0
    block = row // grid.block_rows * grid.grid_cols + col // grid.block_cols
    inner = row % grid.block_rows * grid.row_stride + col % grid.block_cols * grid.pixel_stride
    raw = np.frombuffer(grid.data, dtype=np.uint8)
    values = np.empty((grid.bands, len(row)))
    present = np.ones(len(row), dtype=bool)
    for band in range(grid.bands):
        plane = band * grid.grid_rows * grid.grid_cols if grid.planes > 1 else 0
        offset = grid.offsets[plane + block]
        present &= offset >= 0
        place = np.where(offset >= 0, offset + inner + (0 if grid.planes > 1 else band * grid.band_stride), 0)
        size = grid.dtype.itemsize
        if len(place) and place.max() + size > len(raw):
            raise ValueError("the image's data end before a block does")
        values[band] = raw[place[:, None] + np.arange(size)].view(grid.dtype)[:, 0]
    return values, present


def _pixel_values(values: NDArray[np.float64], measure: Measure) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Ratios and cosines (width, pixels), and which pixels can be used. Bands are added in order, as in _scan.c."""
    out = np.empty((measure.width, values.shape[1]))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        square = sum((band * band for band in values), np.zeros(values.shape[1]))
        usable = (square > 0) & (square <= np.finfo(np.float64).max)
        if measure.nodata is not None:
            usable &= ~(values == measure.nodata).any(axis=0)
        for ratio, (a, b) in zip(out, measure.ratio_bands, strict=False):
            ratio[:] = (values[a] - values[b]) / (values[a] + values[b] + RATIO_EPSILON)
        root = np.sqrt(square)
        lengths = norms(measure.signatures)
        for cosine, signature, norm in zip(out[len(measure.ratio_bands) :], measure.signatures, lengths, strict=True):
            product = sum((band * weight for band, weight in zip(values, signature, strict=True)), np.zeros(len(root)))
            cosine[:] = product / (root * norm)
    return out, usable
