"""Measure polygon_features against what else computes the same: a table of ratios, from one run.

    python benchmark_polygon_features.py strip.tif --geojson train.geojson --polygons 1000 11000

Polygons beyond those of the GeoJSON are copies of them, shifted by up to 200 m (deterministic). Every figure comes from
a process of its own with a warm page cache; rounds of all methods take turns and the median is given. Seconds run from
geometries in memory to features in memory, the reprojection included; with --from-file they include parsing the file,
which is then streamed. Peers work on the first --peer-polygons polygons at most: their rate is compared. A peer that is
not installed is named in the table.
"""

import argparse
import importlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

PEERS = {
    "rasterio.mask": "rasterio",
    "rasterio.mask, direct IO": "rasterio",
    "exactextract": "exactextract",
    "rasterstats": "rasterstats",
    "GDAL bindings": "osgeo",
}
SLOW_PEERS = {"exactextract": 1000, "rasterstats": 200}  # more would take minutes; their rate does not change
OURS = "polygon_features"
LIMIT = "only decode the needed blocks"  # what no method can do without: our readers, nothing measured


# --- polygons --------------------------------------------------------------------------------------------------------


def write_polygons(source, count, path):
    """Write `count` polygons: those of the GeoJSON, then shifted copies, in random order."""
    with open(source) as file:
        features = json.load(file)["features"]
    points = np.concatenate([feature["geometry"]["coordinates"][0] for feature in features])[:, :2]
    low, high = points.min(axis=0), points.max(axis=0)
    rng = np.random.default_rng(count)
    with open(path, "w") as out:
        out.write('{"type": "FeatureCollection", "features": [\n')
        for number in range(count):
            feature = features[number % len(features)]
            ring = np.array(feature["geometry"]["coordinates"][0])[:, :2]
            if number >= len(features):
                shift = rng.uniform(-0.002, 0.002, 2)  # about 200 m, but never beyond the extent of the originals
                ring = ring + np.clip(shift, low - ring.min(axis=0), high - ring.max(axis=0))
            geometry = {"type": "Polygon", "coordinates": [ring.tolist()]}
            line = {"type": "Feature", "properties": {"feature_id": number}, "geometry": geometry}
            out.write(json.dumps(line) + (",\n" if number + 1 < count else "\n"))
        out.write("]}\n")


def read_geometries(path, count):
    """The first geometries of a GeoJSON as dicts."""
    from mltools.geojson_tools import iter_features

    found = []
    for feature in iter_features(path):
        found.append(feature["geometry"])
        if len(found) == count:
            break
    return found


# --- the methods: image, geometries -> (features, seconds) -----------------------------------------------------------


def polygon_by_polygon(image, geometries, extract):
    """Features of each polygon's (pixels, inside) as `extract` gives them; nan where it gives none."""
    from mltools.features import pool_basic

    values = np.full((len(geometries), 4), np.nan)
    for number, geometry in enumerate(geometries):
        pixels, inside = extract(geometry)
        if inside.any():
            values[number] = pool_basic(np.ma.MaskedArray(pixels, np.broadcast_to(~inside, pixels.shape)))
    return values


def by_rasterio(image, geometries, direct_io=False):
    import rasterio
    import rasterio.mask
    from rasterio.warp import transform_geom

    with rasterio.Env(GTIFF_DIRECT_IO="YES" if direct_io else "NO"), rasterio.open(image) as source:
        shapes = transform_geom("OGC:CRS84", source.crs, geometries)

        def extract(shape):
            try:
                data, _ = rasterio.mask.mask(source, [shape], crop=True, filled=False)
            except ValueError:  # it lies outside the image
                return np.empty((8, 1, 1)), np.zeros((1, 1), dtype=bool)
            return data.data, ~data.mask[0]

        return polygon_by_polygon(image, shapes, extract)


def by_rasterstats(image, geometries):
    import rasterio
    import rasterstats
    from rasterio.warp import transform_geom

    with rasterio.open(image) as source:
        shapes, bands = transform_geom("OGC:CRS84", source.crs, geometries), source.count
    found = [
        rasterstats.zonal_stats(shapes, image, band=band, raster_out=True, stats="count")
        for band in range(1, bands + 1)
    ]

    def extract(number):
        rasters = [band[number]["mini_raster_array"] for band in found]
        return np.stack([raster.data for raster in rasters]), ~np.ma.getmaskarray(rasters[0])

    return polygon_by_polygon(image, range(len(shapes)), extract)


def by_exactextract(image, geometries):
    import exactextract
    import rasterio
    from rasterio.warp import transform_geom

    with rasterio.open(image) as source:
        shapes, bands = transform_geom("OGC:CRS84", source.crs, geometries), source.count
    features = [{"type": "Feature", "properties": {}, "geometry": shape} for shape in shapes]
    found = exactextract.exact_extract(image, features, ["values", "coverage"])

    def extract(number):
        of = found[number]["properties"]
        values = np.stack([of[f"band_{band}_values"] for band in range(1, bands + 1)]).astype(float)
        return values[:, :, None], (of["band_1_coverage"] >= 0.5)[:, None]

    return polygon_by_polygon(image, range(len(features)), extract)


def by_gdal(image, geometries):
    from osgeo import gdal, ogr, osr

    gdal.UseExceptions()
    source = gdal.Open(image)
    reference = source.GetSpatialRef()
    wgs84 = osr.SpatialReference()
    wgs84.SetFromUserInput("OGC:CRS84")
    bring = osr.CoordinateTransformation(wgs84, reference)
    inverse = gdal.InvGeoTransform(source.GetGeoTransform())
    memory, vectors = gdal.GetDriverByName("MEM"), ogr.GetDriverByName("Memory") or ogr.GetDriverByName("MEM")

    def extract(geometry):
        shape = ogr.CreateGeometryFromJson(json.dumps(geometry))
        shape.Transform(bring)
        left, right, bottom, top = shape.GetEnvelope()
        corners = [gdal.ApplyGeoTransform(inverse, x, y) for x, y in ((left, top), (right, bottom))]
        x0, y0 = max(0, int(np.floor(corners[0][0]))), max(0, int(np.floor(corners[0][1])))
        x1 = min(source.RasterXSize, int(np.ceil(corners[1][0])))
        y1 = min(source.RasterYSize, int(np.ceil(corners[1][1])))
        if x1 <= x0 or y1 <= y0:  # it lies outside the image
            return np.empty((8, 1, 1)), np.zeros((1, 1), dtype=bool)
        pixels = source.ReadAsArray(x0, y0, x1 - x0, y1 - y0)
        mask = memory.Create("", x1 - x0, y1 - y0, 1, gdal.GDT_Byte)
        a, b, c, d, e, f = source.GetGeoTransform()
        mask.SetGeoTransform((a + b * x0 + c * y0, b, c, d + e * x0 + f * y0, e, f))
        mask.SetSpatialRef(reference)
        layer_source = vectors.CreateDataSource("")
        layer = layer_source.CreateLayer("", reference)
        feature = ogr.Feature(layer.GetLayerDefn())
        feature.SetGeometry(shape)
        layer.CreateFeature(feature)
        gdal.RasterizeLayer(mask, [1], layer, burn_values=[1])
        return pixels, mask.ReadAsArray() > 0

    return polygon_by_polygon(image, geometries, extract)


def by_us(image, path, count, threads, compiled, from_file):
    from mltools.geojson_tools import iter_features
    from mltools.polygon_features import join_batches, stream_polygon_features

    geometries = None if from_file else read_geometries(path, count)
    begin = time.perf_counter(), time.process_time()
    given = (feature["geometry"] for feature in iter_features(path)) if from_file else geometries
    found = join_batches(list(stream_polygon_features(image, given, threads=threads, compiled=compiled)))
    return found.values, begin


def by_decoding(image, path, count, threads):
    """Decode every block that holds a polygon once, and nothing else."""
    from concurrent.futures import ThreadPoolExecutor

    from mltools import image_blocks, polygon_features

    source = image_blocks.describe_image(image)
    runs = polygon_features.placed_runs(source, read_geometries(path, count))[0]
    boxes, drawn = image_blocks.run_boxes(runs), np.flatnonzero(np.diff(runs.starts) > 0)
    begin = time.perf_counter(), time.process_time()
    with image_blocks.BlockPieces(source, boxes, drawn) as pieces, ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda piece: piece.read() and None, pieces):
            pass
    return np.full((count, 4), np.nan), begin


def run_worker(task):
    """One measurement in this process; its result as one line of JSON."""
    method, path, image = task["method"], task["geojson"], task["image"]
    begun = time.perf_counter()
    if method.startswith(OURS):
        values, begin = by_us(
            image, path, task["count"], task["threads"], not method.endswith("numpy"), task["from_file"]
        )
    elif method == LIMIT:
        values, begin = by_decoding(image, path, task["count"], task["threads"])
    else:
        geometries = read_geometries(path, task["count"])
        begin = time.perf_counter(), time.process_time()
        if method.startswith("rasterio.mask"):
            values = by_rasterio(image, geometries, direct_io=method.endswith("direct IO"))
        else:
            call = {"rasterstats": by_rasterstats, "exactextract": by_exactextract, "GDAL bindings": by_gdal}[method]
            values = call(image, geometries)
    seconds, cpu = time.perf_counter() - begin[0], time.process_time() - begin[1]
    np.save(task["values"], values)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    whole = time.perf_counter() - begun
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak, "whole": whole, "polygons": len(values)}))


# --- rounds and the table --------------------------------------------------------------------------------------------


def measure(task):
    """run_worker in a fresh process."""
    command = [sys.executable, os.path.abspath(__file__), "--worker", json.dumps(task)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{task['method']} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def installed(peer):
    """Whether a peer can be imported here."""
    try:
        importlib.import_module(PEERS[peer])
    except ImportError:
        return False
    return True


def is_ours(name):
    """Whether a method is one of this library's."""
    return name.startswith(OURS) or name == LIMIT


def compressed(image):
    """Whether an image's blocks must be decoded."""
    import rasterio

    with rasterio.open(image) as source:
        return source.compression is not None


def plan(options, image):
    """The methods to measure: (name, threads)."""
    ours = [(f"{OURS}", threads) for threads in options.threads]
    if options.numpy:
        ours.append((f"{OURS}, numpy", 1))
    if compressed(image):
        ours += [(LIMIT, threads) for threads in options.threads]
    return ours + [(peer, 1) for peer in options.peers if installed(peer)]


def compare(image, count, options, folder):
    """Rows of one image and one number of polygons: dicts, our reference rasterio.mask last."""
    path = os.path.join(folder, f"{count}.geojson")
    if not os.path.exists(path):
        write_polygons(options.geojson, count, path)
    rows = []
    for name, threads in plan(options, image):
        limit = count if is_ours(name) else min(count, SLOW_PEERS.get(name, options.peer_polygons))
        task = {"method": name, "threads": threads, "image": image, "geojson": path, "count": limit}
        task.update(from_file=options.from_file, values=os.path.join(folder, f"{name}-{threads}.npy"))
        rows.append({"task": task, "runs": []})
    for turn in range(options.rounds + 1):
        for row in rows:
            slow = not is_ours(row["task"]["method"])
            if slow and turn > options.peer_rounds:
                continue
            found = measure(row["task"])
            if turn or (slow and options.peer_rounds == 0):  # the first round warms the page cache
                row["runs"].append(found)
    return [summary(row, rows) for row in rows]


def summary(row, rows):
    """Median figures of a method, and how far its values are from rasterio.mask's."""
    middle = {key: statistics.median(run[key] for run in row["runs"]) for key in ("seconds", "cpu", "peak", "polygons")}
    reference = next((other for other in rows if other["task"]["method"] == "rasterio.mask"), None)
    if reference and row["task"]["method"] != LIMIT:
        ours, theirs = np.load(row["task"]["values"]), np.load(reference["task"]["values"])
        size = min(len(ours), len(theirs))
        apart = np.abs(ours[:size] - theirs[:size]).max(axis=1)
        middle["apart"] = float(np.nanmax(apart))
        middle["different"] = int(
            (apart > 1e-6).sum() + (np.isnan(ours[:size]) != np.isnan(theirs[:size])).any(1).sum()
        )
        middle["compared"] = size
    if reference:
        rate = statistics.median(run["seconds"] / run["polygons"] for run in reference["runs"])
        middle["ratio"] = rate / (middle["seconds"] / middle["polygons"])
    return {"name": row["task"]["method"], "threads": row["task"]["threads"], **middle}


def describe(image):
    """An image in a few words."""
    import rasterio

    with rasterio.open(image) as source:
        layout = "tiled" if source.profile.get("tiled") else "striped"
        packing = source.compression.name.lower() if source.compression else "uncompressed"
        size = f"{source.width} x {source.height} x {source.count} {source.dtypes[0]}"
    return f"{layout} {packing}, {size}, {os.path.getsize(image) / 1e9:.2f} GB"


def print_table(image, count, rows):
    """One markdown table."""
    print(f"\n### {count:,} polygons, {describe(image)}\n")
    print("| method | threads | seconds | CPU s | polygons/s | x rasterio.mask | peak MB | rows apart > 1e-6 |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        ratio = f"{row['ratio']:.1f}" if "ratio" in row else "-"
        apart = f"{row['different']} of {row['compared']} (max {row['apart']:.1e})" if "apart" in row else "-"
        part = "" if row["polygons"] == count else f" (first {row['polygons']:,.0f})"
        print(
            f"| {row['name']}{part} | {row['threads']} | {row['seconds']:.3f} | {row['cpu']:.3f} "
            f"| {row['polygons'] / row['seconds']:,.0f} | {ratio} | {row['peak']:.0f} | {apart} |"
        )


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="*", help="8-band strips")
    parser.add_argument("--geojson", help="polygons in longitude and latitude")
    parser.add_argument("--polygons", type=int, nargs="+", default=[1000, 11000])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--peers", nargs="*", default=list(PEERS), help=f"of {list(PEERS)}")
    parser.add_argument("--peer-polygons", type=int, default=11000, help="polygons a peer works on at most")
    parser.add_argument("--rounds", type=int, default=3, help="rounds after the first, which warms the cache")
    parser.add_argument("--peer-rounds", type=int, default=1)
    parser.add_argument("--numpy", action="store_true", help="also measure polygon_features without its compiled part")
    parser.add_argument("--from-file", action="store_true", help="count the parsing of the GeoJSON too, streamed")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(options):
    if options.worker:
        return run_worker(json.loads(options.worker))
    if not options.images or not options.geojson:
        raise SystemExit("expected an image and --geojson, see --help")
    versions = f"Python {platform.python_version()}, numpy {np.__version__}"
    print(f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} CPUs, {versions}")
    missing = [peer for peer in options.peers if not installed(peer)]
    if missing:
        print(f"Not installed here and not measured: {', '.join(missing)}.")
    with tempfile.TemporaryDirectory() as folder:
        for count in options.polygons:
            for image in options.images:
                print_table(image, count, compare(image, count, options, folder))
                sys.stdout.flush()
    return None


if __name__ == "__main__":
    main(parse(sys.argv[1:]))
