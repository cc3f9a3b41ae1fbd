"""Polygons to runs of pixels, by the rule of GDAL and rasterio.mask: a pixel is a polygon's when its centre is inside.

A run is (row, first, last): the pixels first <= column < last of one row. Positions are in pixels of the image: (0, 0)
is the top left corner of its top left pixel, x to the right, y down. Where a vertex or a crossing comes closer than
1e-6 pixels to a line of pixel centres, rounding would decide: such a polygon is drawn by rasterio itself (a "tie").
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import rasterio.features
import rasterio.windows
from affine import Affine
from numpy.typing import NDArray

SCAN: ModuleType | None
try:
    from . import _scan as SCAN
except ImportError:  # no compiler at installation: the numpy twins do the same, several times slower
    SCAN = None

TIE = 1e-6  # pixels; far above float64's error in an image of 10^7 pixels, far below anything that is drawn
MOST_CROSSINGS = 10_000_000  # of one part of a polygon with rows of pixel centres: 80 MB
SLAB = 4_000_000  # pixels of a mask that rasterio draws at once

RUN = np.dtype([("row", np.int32), ("first", np.int32), ("last", np.int32)])
DONE, IS_TIE, TOO_MANY = 0, 1, 2


class Polygons(NamedTuple):
    """Many polygons in flat arrays.

    points: (n, 2) float64. rings, parts, polygons: int64 offsets (one more than there are) into points, rings, parts.
    A part is an exterior ring and its holes; a MultiPolygon has several.
    """

    points: NDArray[np.float64]
    rings: NDArray[np.int64]
    parts: NDArray[np.int64]
    polygons: NDArray[np.int64]

    @property
    def size(self) -> int:
        """How many polygons there are."""
        return len(self.polygons) - 1

    def point_starts(self) -> NDArray[np.int64]:
        """Offsets of the polygons into points."""
        return self.rings[self.parts[self.polygons]]


class Runs(NamedTuple):
    """Runs of many polygons: items (RUN), sorted by row within a polygon; starts int64 offsets; states uint8."""

    items: NDArray[Any]
    starts: NDArray[np.int64]
    states: NDArray[np.uint8]


# --- GeoJSON geometries to flat arrays -------------------------------------------------------------------------------


def flatten(geometries: Sequence[Any]) -> tuple[Polygons, list[str | None]]:
    """Polygons of GeoJSON geometries (dicts), and for each the fault that left it empty, or None."""
    try:
        return _flatten(geometries, check=False)
    except (TypeError, ValueError, KeyError, AttributeError, IndexError):
        return _flatten(geometries, check=True)


def _flatten(geometries: Sequence[Any], check: bool) -> tuple[Polygons, list[str | None]]:
    positions: list[Any] = []
    ring_lengths, part_lengths, polygon_lengths = [], [], []
    faults: list[str | None] = []
    for geometry in geometries:
        fault = geometry_fault(geometry, check)
        faults.append(fault)
        parts = [] if fault else polygon_parts(geometry)
        polygon_lengths.append(len(parts))
        for part in parts:
            part_lengths.append(len(part))
            for ring in part:
                ring_lengths.append(len(ring))
                positions.extend(ring)
    offsets = [_offsets(lengths) for lengths in (ring_lengths, part_lengths, polygon_lengths)]
    return Polygons(_points(positions), *offsets), faults


def _offsets(lengths: list[int]) -> NDArray[np.int64]:
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _points(positions: list[Any]) -> NDArray[np.float64]:
    """Positions as (n, 2) float64; a third coordinate is left out."""
    flat = np.fromiter(itertools.chain.from_iterable(positions), dtype=np.float64)
    if len(flat) != 2 * len(positions) or max(map(len, positions), default=2) != 2:
        flat = np.array([position[:2] for position in positions], dtype=np.float64)
    return flat.reshape(-1, 2)


def polygon_parts(geometry: dict[str, Any]) -> list[Any]:
    """The parts (lists of rings) of a Polygon or MultiPolygon."""
    return [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]


def geometry_fault(geometry: Any, check: bool) -> str | None:
    """What keeps a geometry from being a polygon, or None. `check` also looks at every position."""
    if not isinstance(geometry, dict):
        return "no geometry" if geometry is None else f"expected a GeoJSON geometry, found {type(geometry).__name__}"
    kind = geometry.get("type")
    if kind not in ("Polygon", "MultiPolygon"):
        return f"expected a Polygon or MultiPolygon, found {kind}"
    if not geometry.get("coordinates"):
        return "empty geometry"
    return position_fault(geometry) if check else None


def position_fault(geometry: dict[str, Any]) -> str | None:
    """What is wrong with the positions of a Polygon or MultiPolygon, or None."""
    try:
        rings = [
            np.array([tuple(point)[:2] for point in ring], float) for part in polygon_parts(geometry) for ring in part
        ]
    except (TypeError, ValueError) as error:
        return f"coordinates are not lists of positions: {error}"
    if any(ring.size and ring.shape[1:] != (2,) for ring in rings):
        return "a position has fewer than two coordinates"
    return None


def bounds(polygons: Polygons) -> NDArray[np.float64]:
    """Smallest x and y, largest x and y of each polygon: (n, 4); nan for one without points."""
    starts = polygons.point_starts()
    found = np.full((polygons.size, 4), np.nan)
    filled = starts[:-1] < starts[1:]
    if filled.any():
        at = starts[:-1][filled]
        found[filled, :2] = np.minimum.reduceat(polygons.points, at, axis=0)
        found[filled, 2:] = np.maximum.reduceat(polygons.points, at, axis=0)
    return found


# --- polygons to runs ------------------------------------------------------------------------------------------------


def polygon_runs(polygons: Polygons, rows: int, cols: int, compiled: bool = True) -> Runs:
    """Runs of polygons in pixel coordinates within an image of rows x cols; ties and giants have none yet."""
    if compiled and SCAN is not None:
        starts = np.zeros(polygons.size + 1, dtype=np.int64)
        states = np.zeros(polygons.size, dtype=np.uint8)
        points = np.ascontiguousarray(polygons.points, dtype=np.float64)
        raw = SCAN.polygon_runs(points, *polygons[1:], rows, cols, MOST_CROSSINGS, starts, states)
        return Runs(np.frombuffer(raw, dtype=RUN), starts, states)
    return runs_by_numpy(polygons, rows, cols)


def runs_by_numpy(polygons: Polygons, rows: int, cols: int) -> Runs:
    """The compiled polygon_runs' twin: the same runs from whole-array operations."""
    x1, y1, x2, y2, ring = _edges(polygons)
    part_of_ring = np.repeat(np.arange(len(polygons.parts) - 1), np.diff(polygons.parts))
    polygon_of_part = np.repeat(np.arange(polygons.size), np.diff(polygons.polygons))
    part = part_of_ring[ring]
    from_row, to_row = _first_row(y1, rows), _first_row(y2, rows)
    crossings = np.bincount(part, weights=to_row - from_row, minlength=len(part_of_ring))
    states = np.zeros(polygons.size, dtype=np.uint8)
    states[polygon_of_part[np.flatnonzero(crossings > MOST_CROSSINGS)]] = TOO_MANY
    states[polygon_of_part[part[_near_centre(y1) | _near_centre(y2)]]] = IS_TIE
    keep = (states[polygon_of_part[part]] == DONE) & (from_row < to_row)
    part, row, x = _crossings(part[keep], from_row[keep], to_row[keep], (x1[keep], y1[keep], x2[keep], y2[keep]))
    states[polygon_of_part[part[_near_centre(x)]]] = IS_TIE
    keep = states[polygon_of_part[part]] == DONE
    part, row, x = part[keep], row[keep], x[keep]
    order = np.lexsort((x, row, part))
    part, row, x = part[order], row[order], np.floor(np.clip(x[order], -1.0, cols + 1.0) + 0.5).astype(np.int64)
    first, last = np.maximum(x[0::2], 0), np.minimum(x[1::2], cols)
    drawn = first < last
    items = np.empty(int(drawn.sum()), dtype=RUN)
    items["row"], items["first"], items["last"] = row[0::2][drawn], first[drawn], last[drawn]
    owner = polygon_of_part[part[0::2][drawn]]
    return _merged(items, owner, polygons, states)


def _edges(polygons: Polygons) -> tuple[NDArray[Any], ...]:
    """x1, y1, x2, y2 and ring of every edge, the closing one included, each with y1 <= y2."""
    lengths = np.diff(polygons.rings)
    ring = np.repeat(np.arange(len(lengths)), lengths)
    before = np.arange(len(polygons.points)) - 1
    first = polygons.rings[:-1][lengths > 0]
    before[first] = polygons.rings[1:][lengths > 0] - 1
    a, b = polygons.points[before], polygons.points
    swap = a[:, 1] > b[:, 1]
    a, b = np.where(swap[:, None], b, a), np.where(swap[:, None], a, b)
    return a[:, 0], a[:, 1], b[:, 0], b[:, 1], ring


def _first_row(y: NDArray[np.float64], rows: int) -> NDArray[np.int64]:
    """The first row whose centre is at or below y, kept inside 0..rows."""
    return np.clip(np.ceil(y - 0.5), 0, rows).astype(np.int64)


def _near_centre(position: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.abs(position - np.floor(position) - 0.5) < TIE


def _crossings(
    part: NDArray[Any], from_row: NDArray[Any], to_row: NDArray[Any], edges: tuple[NDArray[Any], ...]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Part, row and x of every crossing of an edge with a row of pixel centres."""
    count = to_row - from_row
    ends = np.cumsum(count)
    row = np.arange(int(count.sum())) - np.repeat(ends - count - from_row, count)
    x1, y1, x2, y2 = (np.repeat(values, count) for values in edges)
    return np.repeat(part, count), row, (row + 0.5 - y1) * (x2 - x1) / (y2 - y1) + x1


def _merged(items: NDArray[Any], owner: NDArray[Any], polygons: Polygons, states: NDArray[np.uint8]) -> Runs:
    """Runs with the overlaps of a polygon's parts taken out."""
    counts = np.bincount(owner, minlength=polygons.size)
    if (np.diff(polygons.polygons) > 1).any():
        several = (np.diff(polygons.polygons) > 1)[owner]
        starts = _offsets(counts.tolist())
        pieces = [items[~several]]
        owners = [owner[~several]]
        for number in np.unique(owner[several]):
            union = merge_runs(items[starts[number] : starts[number + 1]])
            pieces.append(union)
            owners.append(np.full(len(union), number))
        owner = np.concatenate(owners)
        order = np.argsort(owner, kind="stable")
        items, counts = np.concatenate(pieces)[order], np.bincount(owner, minlength=polygons.size)
    return Runs(items, _offsets(counts.tolist()), states)


def merge_runs(items: NDArray[Any]) -> NDArray[Any]:
    """Runs sorted by row and column, overlapping and touching ones made one."""
    items = np.sort(items, order=["row", "first"])
    if len(items) < 2:
        return items
    # Rows become stretches of one long line, two pixels apart, so that one pass finds all the gaps.
    wide = int(items["last"].max()) + 2
    first, last = (
        items["row"].astype(np.int64) * wide + items["first"],
        items["row"].astype(np.int64) * wide + items["last"],
    )
    reach = np.maximum.accumulate(last)
    opens = np.concatenate([[True], first[1:] > reach[:-1]])
    at = np.flatnonzero(opens)
    merged = items[at].copy()
    merged["last"] = reach[np.append(at[1:] - 1, len(items) - 1)] - merged["row"].astype(np.int64) * wide
    return merged


# --- what rasterio draws itself: ties, and all pixels touched ---------------------------------------------------------


def runs_by_rasterio(
    polygons: Polygons, number: int, box: Sequence[float], transform: Affine, rows: int, cols: int, all_touched: bool
) -> NDArray[Any]:
    """Runs of one polygon, given in the image's CRS, as rasterio.features.geometry_mask draws it in its window.

    box: its bounds in pixels (left, top, right, bottom).
    """
    shape = geojson_shape(polygons, number)
    top, bottom = max(0, math.floor(box[1])), min(rows, math.ceil(box[3]))
    left, right = max(0, math.floor(box[0])), min(cols, math.ceil(box[2]))
    if shape is None or top >= bottom or left >= right:
        return np.empty(0, dtype=RUN)
    step = max(1, SLAB // (right - left))
    slabs = [(row, min(bottom, row + step)) for row in range(top, bottom, step)]
    found = [_slab_runs(shape, transform, slab, left, right, all_touched) for slab in slabs]
    return np.concatenate(found)


def _slab_runs(
    shape: dict[str, Any], transform: Affine, slab: tuple[int, int], left: int, right: int, all_touched: bool
) -> NDArray[Any]:
    window = rasterio.windows.Window(left, slab[0], right - left, slab[1] - slab[0])
    inside = rasterio.features.geometry_mask(
        [shape],
        out_shape=(int(window.height), int(window.width)),
        transform=rasterio.windows.transform(window, transform),
        all_touched=all_touched,
        invert=True,
    )
    return mask_runs(inside, slab[0], left)


def mask_runs(inside: NDArray[np.bool_], row: int, col: int) -> NDArray[Any]:
    """Runs of the true pixels of a mask whose top left pixel is (row, col)."""
    edge = np.diff(np.pad(inside.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    rows, firsts = np.nonzero(edge == 1)
    items = np.empty(len(rows), dtype=RUN)
    items["row"], items["first"], items["last"] = rows + row, firsts + col, np.nonzero(edge == -1)[1] + col
    return items


def geojson_shape(polygons: Polygons, number: int) -> dict[str, Any] | None:
    """One polygon as a GeoJSON geometry with closed rings, or None when no ring has three points."""
    parts = []
    for part in range(polygons.polygons[number], polygons.polygons[number + 1]):
        rings = []
        for ring in range(polygons.parts[part], polygons.parts[part + 1]):
            points = polygons.points[polygons.rings[ring] : polygons.rings[ring + 1]].tolist()
            if points and points[0] != points[-1]:
                points.append(points[0])
            if len(points) >= 4:
                rings.append(points)
        if rings:
            parts.append(rings)
    return {"type": "MultiPolygon", "coordinates": parts} if parts else None


def replace_runs(runs: Runs, numbers: Iterable[int], draw: Callable[[int], NDArray[Any]]) -> Runs:
    """Runs with those of the polygons in `numbers` drawn anew by draw(number)."""
    numbers = sorted(numbers)
    if not numbers:
        return runs
    pieces, counts, at = [], np.diff(runs.starts), 0
    for number in numbers:
        pieces.append(runs.items[runs.starts[at] : runs.starts[number]])
        pieces.append(draw(number))
        counts[number] = len(pieces[-1])
        at = number + 1
    pieces.append(runs.items[runs.starts[at] :])
    return Runs(np.concatenate(pieces), _offsets(counts.tolist()), runs.states)


def window_runs(boxes: NDArray[np.int64]) -> Runs:
    """Runs of whole windows (n, 4: first row, last row, first column, last column; last ones excluded)."""
    heights = np.maximum(boxes[:, 1] - boxes[:, 0], 0) * (boxes[:, 3] > boxes[:, 2])
    items = np.empty(int(heights.sum()), dtype=RUN)
    starts = _offsets(heights.tolist())
    items["row"] = np.arange(len(items)) - np.repeat(starts[:-1] - boxes[:, 0], heights)
    items["first"], items["last"] = np.repeat(boxes[:, 2], heights), np.repeat(boxes[:, 3], heights)
    return Runs(items, starts, np.zeros(len(boxes), dtype=np.uint8))
