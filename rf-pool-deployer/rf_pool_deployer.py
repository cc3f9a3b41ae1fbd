"""rf-pool-deployer: classify polygons with a forest that rf-pool-classifier has trained.

| port               | type             | content                                                             |
| ------------------ | ---------------- | ------------------------------------------------------------------- |
| image              | directory input  | one strip, 8 bands (WorldView-2): a .tif                            |
| geojson            | directory input  | one .geojson with polygons                                          |
| trained_classifier | directory input  | what rf-pool-classifier writes; only classifier.onnx is read        |
| classified_geojson | directory output | classified.geojson: the polygons with class_name and score          |

Run it on test_inputs/ with `make run TASK=rf-pool-deployer`.
"""

import json
import os

import numpy as np
from gbdx_task_interface import GbdxTaskInterface
from input_checks import Problems, check_image, check_placement, find_geojson, find_images, probe_pixels
from mltools.geojson_tools import iter_features
from mltools.polygon_features import FEATURE_NAMES, stream_polygon_features
from mltools.polygon_runs import geometry_fault
from polygon_file import check_head, read_crs
from trained_model import classify, load_model

EARLY = 1_000  # features that are looked at before any work


def check_inputs(image_folder, geojson_folder, model_folder):
    """(model, image, path of the GeoJSON, its CRS), or a ValueError with all that is wrong."""
    problems = Problems()
    model = load_model(model_folder, problems)
    image = one_image(image_folder, problems)
    geojson = find_geojson("geojson", geojson_folder, None, problems)
    early = check_head(geojson, EARLY, problems) if geojson else []
    crs = read_crs(geojson, problems) if geojson else None
    if not problems:
        _, windows, _ = check_placement(image, [polygon_or_none(feature) for feature in early], crs.name, Problems())
        probe_pixels(image, windows, problems)
    problems.refuse()
    return model, image, geojson, crs


def one_image(folder, problems):
    """mltools' description of the port's one strip, or None."""
    images = find_images(folder, problems)
    if len(images) > 1:
        problems.add("images-several", "input port 'image'", "one .tif file", ", ".join(sorted(images)))
    return check_image(next(iter(images.values())), problems) if len(images) == 1 else None


def polygon_or_none(feature):
    """A feature's geometry when it is a sound Polygon or MultiPolygon."""
    geometry = feature.get("geometry") if isinstance(feature, dict) else None
    return None if geometry_fault(geometry, check=True) else geometry


def measure(image, geojson, crs, model):
    """(values (n, 4) float64 with nan where there are none, {number: reason}) of all polygons, in the file's order."""
    polygons = (polygon_or_none(feature) for feature in iter_features(geojson))
    values, left_out, start = [], {}, 0
    window_ratios = model.feature_set == "pool_basic_whole_window"
    for batch in stream_polygon_features(image.path, polygons, crs, model.all_touched, window_ratios):
        left_out.update({start + number: reason for number, reason in batch.left_out.items()})
        values.append(batch.values)
        start += len(batch.values)
        print(f"features measured: {start} polygons")
    return np.concatenate(values) if values else np.empty((0, len(FEATURE_NAMES))), left_out


def write_classified(path, geojson, crs_member, labels, scores, left_out):
    """The features of a file with class_name and score, one by one; left_out says why some have none."""
    with open(path, "w", encoding="utf-8") as file:
        crs = f'"crs": {json.dumps(crs_member)}, ' if crs_member else ""
        file.write(f'{{"type": "FeatureCollection", {crs}"features": [')
        for number, feature in enumerate(iter_features(geojson)):
            result = {"class_name": None, "score": None, "left_out": left_out[number]} if number in left_out else {}
            if not result:
                result = {"class_name": labels[number], "score": round(float(scores[number]), 6)}
            file.write(("\n" if number == 0 else ",\n") + json.dumps(with_properties(feature, result)))
        file.write("\n]}\n")


def with_properties(feature, values):
    """A feature with more properties; what is no feature becomes one without geometry."""
    if not isinstance(feature, dict):
        feature = {"type": "Feature", "geometry": None}
    properties = feature.get("properties")
    return {**feature, "properties": {**(properties if isinstance(properties, dict) else {}), **values}}


class RfPoolDeployer(GbdxTaskInterface):
    def invoke(self):
        model, image, geojson, crs = check_inputs(
            self.get_input_data_port("image", default=""),
            self.get_input_data_port("geojson", default=""),
            self.get_input_data_port("trained_classifier", default=""),
        )
        print(f"inputs checked: a forest of {len(model.classes)} classes, trained with {model.made_with}")

        values, left_out = measure(image, geojson, crs.name, model)
        if len(left_out) == len(values):
            refuse_all(image, geojson, crs.name, left_out)
        labels, scores = classify(model, values)

        folder = self.get_output_data_port("classified_geojson")
        os.makedirs(folder, exist_ok=True)
        write_classified(os.path.join(folder, "classified.geojson"), geojson, crs.member, labels, scores, left_out)
        used = np.delete(labels, list(left_out))
        counts = ", ".join(f"{(used == name).sum()} {name}" for name in model.classes)
        print(f"classified: {counts}; left out: {len(left_out)}")


def refuse_all(image, geojson, crs, left_out):
    """Say why no polygon of a file can be classified."""
    problems = Problems()
    early = [feature for feature, _ in zip(iter_features(geojson), range(EARLY))]
    check_placement(image, [polygon_or_none(feature) for feature in early], crs, problems)
    if not problems:
        first = f"none; the first is left out: {left_out[0]}"
        problems.add("polygons-unusable", f"geojson/{os.path.basename(geojson)}", "polygons with usable pixels", first)
    problems.refuse()


if __name__ == "__main__":
    with RfPoolDeployer() as task:
        task.invoke()
