"""Make a synthetic 8-band strip with labelled parcels, as rf-pool-classifier expects it.

The strip imitates WorldView-2 surface reflectance (x 10,000, uint16, bands coastal, blue, green, yellow, red, red edge,
near infrared 1 and 2) in UTM; the parcels go to train.geojson in longitude and latitude (WGS84). What lies on a parcel
(roof, lawn or soil, trees, pool, tarpaulin) depends on the seed and its feature_id alone, so that the same parcel
looks the same in any strip. Blocks are painted one at a time on all cores: memory does not grow with the strip.

    python make_test_inputs.py test_inputs                                         the committed sample
    python make_test_inputs.py /tmp/strip --parcels 11000 --gigabytes 4            a strip for a benchmark
    python make_test_inputs.py /tmp/strip --geojson train.geojson --compress lzw   a strip under given parcels

It needs numpy and rasterio. The same arguments give the same pixels and the same GeoJSON.
"""

import argparse
import json
import math
import os
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterio.warp import transform as transform_points
from rasterio.windows import Window

POOL_CLASS = "Swimming pool"
OTHER_CLASS = "No swimming pool"
SAMPLE_IMAGE_ID = "SYNTHETIC00000001"
SAMPLE_CENTRE = (138.52, -35.05)  # Adelaide, where the walkthrough's parcels lie
WGS84 = "OGC:CRS84"
BLOCK = 512  # pixels; the unit of painting and of noise, and the side of a tile
SUBPIXELS = 4  # an object's edge is averaged over 4 x 4 points in every pixel
NOISE_SIDE = 1024  # pixels; a block takes its noise from a random corner of one such field

# Reflectance x 10,000 in the eight bands. The pools' spectra are the library's two signatures; the others are
# rounded from common field spectra of the material, so that no single band separates the classes.
SPECTRA = {
    "pool": [1179, 2295, 2179, 759, 628, 186, 270, 110],
    "covered pool": [1584, 1808, 1150, 1104, 1035, 995, 1659, 1741],
    "lawn": [350, 420, 780, 640, 520, 1700, 3400, 3600],
    "tree": [280, 310, 560, 420, 340, 1300, 2900, 3100],
    "soil": [800, 1000, 1400, 1800, 2100, 2350, 2600, 2750],
    "tile roof": [650, 740, 980, 1500, 2050, 2250, 2400, 2450],
    "metal roof": [1900, 2150, 2350, 2400, 2450, 2500, 2550, 2500],
    "blue roof": [1500, 2000, 1750, 1250, 1100, 1200, 1650, 1750],
    "tarpaulin": [1200, 2050, 1900, 900, 760, 620, 900, 1000],
    "asphalt": [700, 760, 850, 900, 950, 1000, 1080, 1120],
    "open water": [650, 600, 480, 300, 220, 130, 90, 70],
    "cloud": [7200, 7400, 7500, 7500, 7500, 7450, 7400, 7300],
}
SPECTRA = {name: np.array(values, dtype=np.float32) for name, values in SPECTRA.items()}


# --- parcels ---------------------------------------------------------------------------------------------------------


def parcel_corners(rng, columns, rows, pitch, origin):
    """Corners (columns * rows, 5, 2) of slightly crooked rectangles on a street grid, in metres of the UTM zone."""
    width, height = pitch[0] - 2.0, pitch[1] - 4.0  # what is left over is fence and street
    x = origin[0] + pitch[0] * np.arange(columns) + 1.0
    y = origin[1] - pitch[1] * np.arange(rows) - 2.0
    left, top = (grid.ravel() for grid in np.meshgrid(x, y))
    corners = np.stack(
        [
            np.stack([left, top], 1),
            np.stack([left + width, top], 1),
            np.stack([left + width, top - height], 1),
            np.stack([left, top - height], 1),
        ],
        axis=1,
    )
    corners += rng.uniform(-0.9, 0.9, corners.shape)
    return np.concatenate([corners, corners[:, :1]], axis=1)


def street_grid(count, extent):
    """Columns, rows and pitch (m) of a grid of `count` parcels, over `extent` (m) or, without one, as a suburb."""
    if extent is None:
        columns = max(1, math.ceil(math.sqrt(count * 1.5)))
        return columns, math.ceil(count / columns), (21.0, 33.0)
    columns = max(1, round(math.sqrt(count * 1.5 * extent[0] / extent[1])))
    rows = math.ceil(count / columns)
    return columns, rows, (min(24.0, extent[0] / columns), min(36.0, extent[1] / rows))


def spread_over(corners, columns, rows, pitch, extent):
    """Move the parcels of a packed grid apart so that they cover `extent` (m) evenly."""
    step = np.array([extent[0] / columns, extent[1] / rows]) - pitch
    index = np.arange(len(corners))
    offset = np.stack([index % columns * step[0], -(index // columns) * step[1]], axis=1)
    return corners + offset[:, None, :]


def make_parcels(count, seed, crs, origin, extent):
    """`count` parcels from `origin` (UTM, top left): a list of (feature_id, class name, ring of (x, y))."""
    rng = np.random.default_rng([seed, 1])
    columns, rows, pitch = street_grid(count, extent)
    corners = parcel_corners(rng, columns, rows, pitch, origin)
    if extent is not None:
        corners = spread_over(corners, columns, rows, pitch, extent)
    chosen = rng.permutation(len(corners))[:count]  # a file's order says nothing of the place
    classes = rng.permutation([POOL_CLASS, OTHER_CLASS] * (count // 2 + 1))[:count]
    return [(int(1000 + number), str(name), corners[number]) for number, name in zip(chosen, classes)]


def read_parcels(path, crs):
    """Parcels of a GeoJSON in longitude and latitude, their exterior rings reprojected to `crs`, and its image_id."""
    with open(path) as file:
        features = json.load(file)["features"]
    parcels, image_ids = [], set()
    for number, feature in enumerate(features):
        geometry = feature["geometry"] or {}
        if geometry.get("type") != "Polygon":
            raise ValueError(f"{path}, feature {number}: expected a Polygon, found {geometry.get('type')}")
        ring = np.array(geometry["coordinates"][0], dtype=float)[:, :2]
        properties = feature["properties"]
        image_ids.add(str(properties.get("image_id", SAMPLE_IMAGE_ID)))
        parcels.append((properties.get("feature_id", number), properties.get("class_name", OTHER_CLASS), ring))
    if len(image_ids) != 1:
        raise ValueError(f"{path}: expected one image_id, found {sorted(image_ids)}")
    lengths = np.cumsum([len(ring) for _, _, ring in parcels])[:-1]
    points = np.concatenate([ring for _, _, ring in parcels])
    projected = np.split(reproject(points, WGS84, crs), lengths)
    return [(key, name, ring) for (key, name, _), ring in zip(parcels, projected)], image_ids.pop()


def reproject(points, from_crs, to_crs):
    """Points (n, 2) as x, y (longitude, latitude) from one CRS to another."""
    return np.stack(transform_points(from_crs, to_crs, points[:, 0], points[:, 1]), axis=1)


def write_geojson(path, parcels, crs, image_id):
    """Write the parcels in longitude and latitude, a feature a line, without holding the file in memory."""
    with open(path, "w") as file:
        file.write('{"type": "FeatureCollection", "features": [\n')
        for start in range(0, len(parcels), 50_000):
            batch = parcels[start : start + 50_000]
            points = reproject(np.concatenate([ring for _, _, ring in batch]), crs, WGS84)
            rings = np.split(points.round(9), np.cumsum([len(ring) for _, _, ring in batch])[:-1])
            lines = [feature_line(key, name, ring, image_id) for (key, name, _), ring in zip(batch, rings)]
            file.write(",\n".join(lines) + (",\n" if start + len(batch) < len(parcels) else "\n"))
        file.write("]}\n")


def feature_line(feature_id, class_name, ring, image_id):
    """One GeoJSON feature as a line of text."""
    properties = {"feature_id": feature_id, "image_id": image_id, "class_name": class_name}
    geometry = {"type": "Polygon", "coordinates": [ring.tolist()]}
    return json.dumps({"type": "Feature", "properties": properties, "geometry": geometry})


# --- what lies on a parcel -------------------------------------------------------------------------------------------


def parcel_objects(feature_id, class_name, ring, seed, label_noise):
    """What lies on a parcel, lowest first: (shape, centre, half sizes, angle, spectrum), in metres of the UTM zone."""
    key = abs(hash_text(str(feature_id)))
    rng = np.random.default_rng([seed, 2, key])
    centre = ring[:-1].mean(axis=0)
    sides = np.diff(ring, axis=0)
    longest = sides[np.argmax((sides**2).sum(axis=1))]
    angle = math.atan2(longest[1], longest[0])
    size = math.sqrt(polygon_area(ring))
    ground = mix(rng, "lawn", "soil", rng.uniform(0.1, 0.9))
    objects = [("parcel", centre, None, 0.0, ground)]
    corners = rng.permutation(len(ring) - 1)
    place = [centre + (ring[corner] - centre) * rng.uniform(0.3, 0.5) for corner in corners]
    roof = mix(rng, *(("metal roof", "soil") if rng.random() < 0.35 else ("tile roof", "soil")), 0.85)
    if rng.random() < 0.06:
        roof = mix(rng, "blue roof", "metal roof", 0.8)
    objects.append(("box", centre, rng.uniform(0.22, 0.32, 2) * size, angle, roof))
    if rng.random() < 0.6:
        objects.append(("disc", place[0], np.full(2, rng.uniform(1.5, 3.5)), 0.0, mix(rng, "tree", "lawn", 0.9)))
    has_pool = (class_name == POOL_CLASS) != (rng.random() < label_noise)
    half = rng.uniform([2.6, 1.7], [5.0, 3.0]) * min(1.0, size / 18.0)
    if has_pool:
        covered = rng.random() < 0.15
        water = mix(rng, "covered pool" if covered else "pool", "open water" if not covered else "pool", 0.93)
        objects.append(("disc", place[1], half, angle + rng.uniform(-0.3, 0.3), water))
    elif rng.random() < 0.12:
        objects.append(("box", place[1], half * 0.8, angle, mix(rng, "tarpaulin", "soil", 0.85)))
    return objects


def hash_text(text):
    """A number from a text that is the same in every process (Python's own hash is salted)."""
    value = 2166136261
    for byte in text.encode():
        value = (value ^ byte) * 16777619 % 2**32
    return value


def mix(rng, first, second, share):
    """A spectrum of two materials with its own brightness: `share` of the first, give or take."""
    weight = min(1.0, max(0.0, rng.normal(share, 0.06)))
    spectrum = SPECTRA[first] * weight + SPECTRA[second] * (1 - weight)
    return (spectrum * rng.normal(1.0, 0.08) * rng.normal(1.0, 0.03, 8)).astype(np.float32)


def polygon_area(ring):
    """Area of a closed ring (n, 2), in its own units squared."""
    x, y = (ring - ring[0]).T
    return abs(float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]))) / 2


def covered_points(shape, centre, half, angle, ring, x, y):
    """Which of the points x, y lie on an object: a bool array of their shape."""
    if shape == "parcel":
        return inside_ring(ring, x, y)
    dx, dy = x - centre[0], y - centre[1]
    along = (dx * math.cos(angle) + dy * math.sin(angle)) / half[0]
    across = (dy * math.cos(angle) - dx * math.sin(angle)) / half[1]
    if shape == "disc":
        return along**2 + across**2 <= 1.0
    return (np.abs(along) <= 1.0) & (np.abs(across) <= 1.0)


def inside_ring(ring, x, y):
    """Even-odd rule: which of the points x, y lie inside a closed ring (n, 2)."""
    inside = np.zeros(x.shape, dtype=bool)
    for (x1, y1), (x2, y2) in zip(ring[:-1], ring[1:]):
        if y1 != y2:
            crosses = (y1 > y) != (y2 > y)
            inside ^= crosses & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
    return inside


# --- painting --------------------------------------------------------------------------------------------------------


def parcel_windows(parcels, transform):
    """First and last row and column (n, 4: row0, row1, col0, col1; last excluded) of every parcel, as integers."""
    windows = np.empty((len(parcels), 4), dtype=np.int64)
    for number, (_, _, ring) in enumerate(parcels):
        columns, rows = ~transform * (ring[:, 0], ring[:, 1])
        windows[number] = math.floor(min(rows)), math.ceil(max(rows)), math.floor(min(columns)), math.ceil(max(columns))
    return windows


def parcels_by_block(windows):
    """Numbers of the parcels that touch each block: a dict (block row, block column) -> list."""
    found = {}
    for number, (row0, row1, col0, col1) in enumerate(windows.tolist()):
        for block_row in range(row0 // BLOCK, (row1 - 1) // BLOCK + 1):
            for block_col in range(col0 // BLOCK, (col1 - 1) // BLOCK + 1):
                found.setdefault((block_row, block_col), []).append(number)
    return found


def noise_field(seed):
    """Sensor noise shared by all blocks: (8, rows, cols) float32, mean 0, standard deviation 1."""
    return np.random.default_rng([seed, 3]).standard_normal((8, NOISE_SIDE, NOISE_SIDE), dtype=np.float32)


def background(seed, row0, col0, height, width):
    """Streets, open ground and vegetation without parcels: (8, height, width) float32."""
    rows = np.arange(row0, row0 + height, dtype=np.float32)[:, None]
    columns = np.arange(col0, col0 + width, dtype=np.float32)[None, :]
    phase = np.random.default_rng([seed, 4]).uniform(0, 6.28, 4).astype(np.float32)
    green = np.sin(rows / 97 + phase[0]) * np.sin(columns / 131 + phase[1]) + np.sin(
        rows / 23 + columns / 31 + phase[2]
    )
    green = np.clip(0.45 + 0.25 * green, 0.05, 0.95)
    spectra = [SPECTRA[name][:, None, None] for name in ("lawn", "soil", "asphalt")]
    ground = spectra[0] * green + spectra[1] * (1 - green)
    return ground * 0.35 + spectra[2] * 0.65


def paint_parcel(block, origin, window, ring, objects, transform):
    """Paint a parcel's objects into block (8, rows, cols), whose top left pixel is `origin` (row, col)."""
    top, left = max(window[0], origin[0]), max(window[2], origin[1])
    bottom = min(window[1], origin[0] + block.shape[1])
    right = min(window[3], origin[1] + block.shape[2])
    if top >= bottom or left >= right:
        return
    step = (np.arange(SUBPIXELS) + 0.5) / SUBPIXELS
    columns = (np.arange(left, right)[:, None] + step).ravel()
    rows = (np.arange(top, bottom)[:, None] + step).ravel()
    x, y = np.meshgrid(transform.c + columns * transform.a, transform.f + rows * transform.e)
    part = block[:, top - origin[0] : bottom - origin[0], left - origin[1] : right - origin[1]]
    on_parcel = inside_ring(ring, x, y)
    for shape, centre, half, angle, spectrum in objects:
        inside = on_parcel if shape == "parcel" else on_parcel & covered_points(shape, centre, half, angle, ring, x, y)
        share = inside.reshape(bottom - top, SUBPIXELS, right - left, SUBPIXELS).mean(axis=(1, 3), dtype=np.float32)
        part += share * (spectrum[:, None, None] - part)


def add_clouds(block, origin, seed, share):
    """Cover about `share` of the strip with soft clouds, in place."""
    if share <= 0:
        return
    rows = np.arange(origin[0], origin[0] + block.shape[1], dtype=np.float32)[:, None]
    columns = np.arange(origin[1], origin[1] + block.shape[2], dtype=np.float32)[None, :]
    phase = np.random.default_rng([seed, 5]).uniform(0, 6.28, 3).astype(np.float32)
    field = np.sin(rows / 61 + phase[0]) + np.sin(columns / 83 + phase[1]) + np.sin((rows + columns) / 47 + phase[2])
    # The sum of three sines is about normal, with a variance of 3 / 2.
    threshold = math.sqrt(1.5) * statistics.NormalDist().inv_cdf(1.0 - min(0.999, share))
    cover = np.clip((field - threshold) * 2.0 + 0.5, 0.0, 1.0)
    block += cover * (SPECTRA["cloud"][:, None, None] - block)


def paint_block(task, scene):
    """One finished block of the strip: (8, height, width) uint16."""
    row0, col0, height, width = task
    block = background(scene["seed"], row0, col0, height, width)
    for number in scene["by_block"].get((row0 // BLOCK, col0 // BLOCK), []):
        key, name, ring = scene["parcels"][number]
        objects = parcel_objects(key, name, ring, scene["seed"], scene["label_noise"])
        paint_parcel(block, (row0, col0), scene["windows"][number], ring, objects, scene["transform"])
    add_clouds(block, (row0, col0), scene["seed"], scene["clouds"])
    corner = np.random.default_rng([scene["seed"], 6, row0, col0]).integers(0, NOISE_SIDE - BLOCK + 1, 2)
    noise = scene["noise"][:, corner[0] : corner[0] + height, corner[1] : corner[1] + width]
    block *= 1.0 + 0.025 * noise
    block += 12.0 * noise[::-1]
    return np.clip(np.rint(block), 1, 10_000).astype(np.uint16)  # 0 is kept for "no data"


def block_tasks(height, width):
    """Blocks of a strip in file order: (row, col, height, width)."""
    for row in range(0, height, BLOCK):
        for col in range(0, width, BLOCK):
            yield row, col, min(BLOCK, height - row), min(BLOCK, width - col)


def write_strip(path, scene, profile, threads):
    """Paint a strip a row of blocks at a time and write it."""
    height, width = profile["height"], profile["width"]
    tasks = list(block_tasks(height, width))
    per_row = math.ceil(width / BLOCK)
    with (
        rasterio.Env(GDAL_CACHEMAX=256),
        ThreadPoolExecutor(threads) as pool,
        rasterio.open(path, "w", **profile) as strip,
    ):
        for start in range(0, len(tasks), per_row):
            row = tasks[start : start + per_row]
            blocks = pool.map(lambda task: paint_block(task, scene), row)
            whole = np.concatenate(list(blocks), axis=2)
            strip.write(whole, window=Window(0, row[0][0], width, row[0][2]))


# --- command line ----------------------------------------------------------------------------------------------------


def utm_of(longitude, latitude):
    """EPSG code of the UTM zone of a place, as text."""
    zone = min(60, int((longitude + 180) // 6) + 1)
    return f"EPSG:{(32700 if latitude < 0 else 32600) + zone}"


def strip_profile(options, extent, origin, crs):
    """rasterio's profile of the strip that covers `extent` (m) from `origin` (top left, m)."""
    profile = {
        "driver": "GTiff",
        "dtype": "uint16",
        "count": 8,
        "width": math.ceil(extent[0] / options.resolution),
        "height": math.ceil(extent[1] / options.resolution),
        "crs": crs,
        "transform": from_origin(origin[0], origin[1], options.resolution, options.resolution),
        "interleave": options.interleave,
        "BIGTIFF": "IF_SAFER",
        "NUM_THREADS": str(options.threads),
    }
    if options.layout == "tiled":
        side = BLOCK if min(profile["width"], profile["height"]) >= BLOCK else 128
        profile.update(tiled=True, blockxsize=side, blockysize=side)
    if options.compress != "none":
        profile.update(compress=options.compress, predictor=options.predictor)
    return profile


def extent_of_gigabytes(gigabytes, resolution):
    """Width and height (m) of a strip of that many 10^9 bytes: a fifth as wide as long, as a satellite's pass is."""
    pixels = gigabytes * 1e9 / 16
    width = math.sqrt(pixels / 5.34)
    return width * resolution, pixels / width * resolution


def plan(options):
    """Parcels, CRS, origin and extent (m) of what the options ask for, and its image_id."""
    if options.geojson:
        with open(options.geojson) as file:
            first = json.load(file)["features"][0]["geometry"]["coordinates"][0][0]
        crs = options.crs or utm_of(*first[:2])
        parcels, image_id = read_parcels(options.geojson, crs)
        points = np.concatenate([ring for _, _, ring in parcels])
        origin = np.floor(points[:, 0].min()) - 40.0, np.ceil(points[:, 1].max()) + 40.0
        extent = points[:, 0].max() + 40.0 - origin[0], origin[1] - points[:, 1].min() + 40.0
        return parcels, crs, origin, extent, options.image_id or image_id
    crs = options.crs or utm_of(*SAMPLE_CENTRE)
    origin = tuple(np.floor(reproject(np.array([SAMPLE_CENTRE]), WGS84, crs)[0]))
    extent = extent_of_gigabytes(options.gigabytes, options.resolution) if options.gigabytes else None
    inner = None if extent is None else (extent[0] - 80.0, extent[1] - 80.0)
    parcels = make_parcels(options.parcels, options.seed, crs, (origin[0] + 40.0, origin[1] - 40.0), inner)
    if extent is None:
        points = np.concatenate([ring for _, _, ring in parcels])
        extent = points[:, 0].max() + 20.0 - origin[0], origin[1] - points[:, 1].min() + 20.0
    return parcels, crs, origin, extent, options.image_id or SAMPLE_IMAGE_ID


def make_inputs(options):
    """Write <out>/image/<image_id>.tif, <out>/geojson/train.geojson and <out>/ports.json."""
    parcels, crs, origin, extent, image_id = plan(options)
    os.makedirs(os.path.join(options.out, "image"), exist_ok=True)
    os.makedirs(os.path.join(options.out, "geojson"), exist_ok=True)
    write_geojson(os.path.join(options.out, "geojson", "train.geojson"), parcels, crs, image_id)
    with open(os.path.join(options.out, "ports.json"), "w") as file:
        json.dump({"n_estimators": "100"}, file)
        file.write("\n")
    if options.no_image:
        return
    profile = strip_profile(options, extent, origin, crs)
    windows = parcel_windows(parcels, profile["transform"])
    scene = {
        "seed": options.seed,
        "parcels": parcels,
        "windows": windows,
        "by_block": parcels_by_block(windows),
        "transform": profile["transform"],
        "noise": noise_field(options.seed),
        "clouds": options.clouds,
        "label_noise": options.label_noise,
    }
    path = os.path.join(options.out, "image", f"{image_id}.tif")
    write_strip(path, scene, profile, options.threads)
    size = f"{profile['width']} x {profile['height']} x 8, {os.path.getsize(path) / 1e6:.1f} MB"
    print(f"{path}: {size}; {len(parcels)} parcels")


def positive(text):
    """A number above zero from the command line."""
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, found {text}")
    return value


def parse(arguments):
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="folder to write image/, geojson/ and ports.json into")
    parser.add_argument("--parcels", type=int, default=180, help="how many parcels to invent (default 180)")
    parser.add_argument("--geojson", help="paint the strip under these parcels instead (longitude, latitude)")
    parser.add_argument("--gigabytes", type=positive, help="size of the strip, uncompressed; else it fits the parcels")
    parser.add_argument("--resolution", type=positive, default=2.0, help="side of a pixel in metres (default 2)")
    parser.add_argument("--crs", help="CRS of the strip, in metres (default: the UTM zone)")
    parser.add_argument("--image-id", help=f"name of the strip (default {SAMPLE_IMAGE_ID}, or the GeoJSON's)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other parcels (default 0)")
    parser.add_argument("--layout", choices=["tiled", "striped"], default="tiled")
    parser.add_argument("--interleave", choices=["pixel", "band"], default="pixel")
    parser.add_argument("--compress", choices=["none", "lzw", "deflate", "zstd"], default="none")
    parser.add_argument("--predictor", type=int, choices=[1, 2], default=2, help="of a compressed strip (default 2)")
    parser.add_argument("--clouds", type=float, default=0.0, help="share of the strip under clouds, 0 to 1 (default 0)")
    parser.add_argument("--label-noise", type=float, default=0.02, help="share of wrong labels (default 0.02)")
    parser.add_argument("--no-image", action="store_true", help="write the parcels only")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: all cores")
    options = parser.parse_args(arguments)
    if options.parcels < 1:
        parser.error(f"--parcels: expected at least 1, found {options.parcels}")
    return options


if __name__ == "__main__":
    make_inputs(parse(sys.argv[1:]))
