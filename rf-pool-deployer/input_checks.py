"""Checks of an image strip and of polygons on it, made before any work; all problems are reported at once.

The same file lies in rf-pool-classifier and rf-pool-deployer. Nothing here depends on the size of the strip: headers
are read, and the pixels of a few windows.
"""

import json
import os

import numpy as np
import pyproj
import rasterio
from mltools.features import POOL_SIGNATURES
from mltools.image_blocks import describe_image
from mltools.polygon_features import WGS84, placed_runs
from mltools.polygon_runs import flatten
from rasterio.windows import Window

BANDS = POOL_SIGNATURES.shape[1]  # eight, in WorldView-2's order
IMAGE_ENDINGS = (".tif", ".tiff")
TIFF_BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # TIFF 6.0 and BigTIFF, little and big-endian
PROBED_WINDOWS = 16  # of an image; each costs the decoding of a block
LONGEST_PROBE = 256  # pixels, each side of a probed window
LARGEST_8_BIT = 255
ENOUGH_PIXELS = 200  # to tell stretched 8-bit data from a dark scene
NAMED_AT_MOST = 5  # features that a sentence names one by one


class Problems(list):
    """What is wrong with the inputs: (code, sentence) pairs. Codes are stable, sentences may change."""

    def add(self, code, place, expected, found):
        self.append((code, f"{place}: expected {expected}, found {found}"))

    def refuse(self):
        """ValueError with all problems, when there are any."""
        if self:
            counted = "1 problem" if len(self) == 1 else f"{len(self)} problems"
            sentences = "".join(f"\n[{code}] {sentence}" for code, sentence in self)
            raise ValueError(f"{counted} with the inputs, nothing was done:{sentences}")


def named(things):
    """A few of many things as text: '3, 8, 12 and 40 others'."""
    shown = ", ".join(str(thing) for thing in things[:NAMED_AT_MOST])
    return shown if len(things) <= NAMED_AT_MOST else f"{shown} and {len(things) - NAMED_AT_MOST} others"


# --- files -----------------------------------------------------------------------------------------------------------


def visible_files(port, folder, problems):
    """Paths of the files of a directory port, sorted, hidden ones left out; links that leave the port are refused."""
    if not folder or not os.path.isdir(folder):
        return []
    names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    inside = os.path.realpath(folder)
    found = []
    for name in names:
        path = os.path.join(folder, name)
        target = os.path.realpath(path)
        if os.path.commonpath([inside, target]) != inside:
            problems.add("file-outside-port", f"{port}/{name}", "a file of the port itself", f"a link to {target}")
        elif os.path.isfile(path):
            found.append(path)
    return found


def ends_with(path, endings):
    return os.path.splitext(path)[1].lower() in endings


def names_of(paths):
    return named([os.path.basename(path) for path in paths]) or "no file"


def find_images(folder, problems):
    """{image_id: path} of the image port: a strip's image_id is its file's name without .tif."""
    files = visible_files("image", folder, problems)
    images = {}
    for path in files:
        image_id, ending = os.path.splitext(os.path.basename(path))
        if ending.lower() not in IMAGE_ENDINGS:
            continue
        if image_id in images:
            both = names_of([images[image_id], path])
            problems.add("image-twice", "input port 'image'", f"one file for image_id {image_id}", both)
        images.setdefault(image_id, path)
    if any(ends_with(path, (".vrt",)) for path in files):
        what = "GeoTIFFs, whose pixels are in the port"
        problems.add("image-vrt", "input port 'image'", what, f"a VRT, which points elsewhere: {names_of(files)}")
    elif not images and not problems:
        problems.add("image-missing", "input port 'image'", "a directory with a .tif file", names_of(files))
    return images


def find_geojson(port, folder, name, problems):
    """The path of the one GeoJSON of a port, or None. name: what it must be called, None: any name."""
    before = len(problems)
    files = visible_files(port, folder, problems)
    candidates = [path for path in files if ends_with(path, (".geojson", ".json"))]
    wanted = f"a directory with one file, {name or 'a .geojson'}"
    if len(candidates) > 1:
        problems.add("geojson-several", f"input port '{port}'", wanted, names_of(candidates))
    elif not candidates and len(problems) == before:
        problems.add("geojson-missing", f"input port '{port}'", wanted, names_of(files))
    elif candidates and name and os.path.basename(candidates[0]) != name:
        problems.add("geojson-name", f"input port '{port}'", wanted, names_of(candidates))
    elif candidates:
        return candidates[0]
    return None


def collection_crs(place, member, problems):
    """The CRS that a collection names, as text; longitude and latitude when it names none (RFC 7946)."""
    if member is None:
        return WGS84
    name = (member.get("properties") or {}).get("name") if isinstance(member, dict) else None
    try:
        pyproj.CRS.from_user_input(name)
        return name
    except (pyproj.exceptions.CRSError, TypeError):
        problems.add("geojson-crs", place, "a crs that PROJ knows, or none", json.dumps(member)[:200])
        return None


# --- one image -------------------------------------------------------------------------------------------------------


def check_image(path, problems):
    """What mltools must know of a strip (mltools.image_blocks.Image), or None when it cannot be used."""
    place = f"image/{os.path.basename(path)}"
    with open(path, "rb") as file:
        beginning = file.read(4)
    if beginning not in TIFF_BEGINNINGS:
        problems.add("image-not-tiff", place, "a GeoTIFF", f"a file that begins with {beginning!r}")
        return None
    try:
        # Only as a GeoTIFF: other drivers, a VRT's above all, would follow names to other files.
        with rasterio.open(path, driver="GTiff") as source:
            before = len(problems)
            check_header(place, source, problems)
            if len(problems) > before:
                return None
        image = describe_image(path)
    except (rasterio.errors.RasterioError, ValueError, OSError) as error:
        problems.add("image-unreadable", place, "a GeoTIFF that GDAL can read", error)
        return None
    check_length(place, path, image, problems)
    return image


def check_header(place, source, problems):
    """Bands, type and georeferencing of an open image."""
    if source.count != BANDS:
        problems.add("image-bands", place, f"{BANDS} bands in WorldView-2's order", source.count)
    kinds = sorted(set(source.dtypes))
    if any(kind.startswith("complex") for kind in kinds):
        problems.add("image-complex", place, "real numbers", ", ".join(kinds))
    if any(kind in ("uint8", "int8") for kind in kinds):
        problems.add("image-8-bit", place, "reflectance or radiance of 11 bits or more", ", ".join(kinds))
    if source.crs is None:
        problems.add("image-crs-missing", place, "a CRS, to put the polygons on it", "none")
    elif not can_be_reached(source.crs):
        problems.add("image-crs-unknown", place, "a CRS that PROJ can project to", source.crs.to_wkt()[:120])
    transform = source.transform
    if transform.is_identity or transform.is_degenerate:
        problems.add("image-transform-missing", place, "a geotransform (pixels to coordinates)", tuple(transform)[:6])


def can_be_reached(crs):
    """Whether longitude and latitude can be projected to a CRS."""
    try:
        pyproj.Transformer.from_crs(WGS84, crs.to_wkt(), always_xy=True)
        return True
    except pyproj.exceptions.ProjError:
        return False


def check_length(place, path, image, problems):
    """That the file holds all its blocks: those whose places are known must end within it, else the last is read."""
    size = os.path.getsize(path)
    if image.layout is not None:
        needed = int(np.max(image.layout.offsets + image.layout.sizes, initial=0))
        if needed > size:
            problems.add("image-truncated", place, f"{needed:,} bytes, where its last block ends", f"{size:,}")
        return
    corner = Window(image.width - 1, image.height - 1, 1, 1)
    try:
        with rasterio.open(path, driver="GTiff") as source:
            source.read(window=corner)
    except rasterio.errors.RasterioError as error:
        problems.add("image-truncated", place, "readable pixels in its last block", reason_of(error))


def reason_of(error):
    """What GDAL says of a failed read; rasterio keeps it in the cause."""
    return str(error.__cause__ or error)


# --- polygons on an image --------------------------------------------------------------------------------------------


def check_placement(image, geometries, crs, problems):
    """(pixels, windows, left out) of polygons on an image: centres inside, (n, 4) rows then columns, {number: reason}.

    Reported is only what leaves no polygon on the image. No pixel is read.
    """
    with np.errstate(invalid="ignore"):  # what cannot be projected is infinite, and left out
        runs, windows, _, left_out = placed_runs(image, geometries, crs)
    lengths = np.concatenate([[0], np.cumsum(runs.items["last"] - runs.items["first"], dtype=np.int64)])
    pixels = np.diff(lengths[runs.starts])
    if geometries and len(left_out) == len(geometries):
        explain_no_overlap(image, geometries, crs, problems)
    elif geometries and not pixels.any():
        found = f"none in {len(geometries)} polygons, of which {len(left_out)} are outside the image"
        problems.add("polygons-too-small", f"image/{os.path.basename(image.path)}", "pixel centres inside", found)
    return pixels, windows, left_out


def explain_no_overlap(image, geometries, crs, problems):
    """Say why no polygon lies on an image: degrees and metres mixed up, coordinates swapped, or another place."""
    place = f"image/{os.path.basename(image.path)}"
    points = flatten(geometries)[0].points
    points = points[np.isfinite(points).all(axis=1)]
    left, bottom, right, top = *points.min(axis=0), *points.max(axis=0)
    box = f"x {left:.6g} to {right:.6g}, y {bottom:.6g} to {top:.6g}"
    swapped = [{"type": "Polygon", "coordinates": [points[:, ::-1].tolist()]}]
    with np.errstate(invalid="ignore"):
        fits = not placed_runs(image, swapped, crs)[3]
    if fits:
        problems.add("coordinates-swapped", "geojson", "longitude before latitude (x before y)", f"{box}: swapped")
        return
    geographic = pyproj.CRS.from_user_input(crs).is_geographic
    if geographic and (max(abs(left), abs(right)) > 180 or max(abs(bottom), abs(top)) > 90):
        problems.add("coordinates-not-degrees", "geojson", "longitudes and latitudes, or a crs member", box)
        return
    problems.add(
        "no-overlap",
        place,
        "polygons on the image",
        f"none; the polygons are at {box} ({crs}), the image at {describe_extent(image, crs)}",
    )


def describe_extent(image, crs):
    """Where an image lies, in a CRS, as text."""
    corners = [image.transform * corner for corner in ((0, 0), (image.width, 0), (0, image.height))]
    corners.append(image.transform * (image.width, image.height))
    project = pyproj.Transformer.from_crs(image.crs.to_wkt(), crs, always_xy=True)
    x, y = project.transform(*zip(*corners))
    return f"x {min(x):.6g} to {max(x):.6g}, y {min(y):.6g} to {max(y):.6g}"


def probe_pixels(image, windows, problems):
    """Read a few of the windows: damaged pixels, and 8-bit values in a wider type, are refused."""
    place = f"image/{os.path.basename(image.path)}"
    on_image = windows[(windows[:, 1] > windows[:, 0]) & (windows[:, 3] > windows[:, 2])]
    chosen = on_image[np.linspace(0, len(on_image) - 1, min(PROBED_WINDOWS, len(on_image))).astype(int)]
    seen, largest = 0, 0
    try:
        with rasterio.open(image.path, driver="GTiff") as source:
            for top, bottom, left, right in chosen.tolist():
                size = min(right - left, LONGEST_PROBE), min(bottom - top, LONGEST_PROBE)
                values = source.read(window=Window(left, top, *size))
                usable = values[(values != 0) & np.isfinite(values) & (values != image.nodata)]
                seen, largest = seen + usable.size // BANDS, max(largest, usable.max(initial=0))
    except rasterio.errors.RasterioError as error:
        problems.add("image-damaged", place, "readable pixels under the polygons", reason_of(error))
        return
    if np.issubdtype(image.dtype, np.integer) and seen >= ENOUGH_PIXELS and largest <= LARGEST_8_BIT:
        found = f"none above {largest} in {seen:,} pixels under polygons"
        problems.add("image-8-bit-values", place, f"values above {LARGEST_8_BIT} in an image of {image.dtype}", found)
