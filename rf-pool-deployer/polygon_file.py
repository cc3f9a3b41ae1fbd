"""A GeoJSON file of any size: its beginning is checked and its CRS found without reading it whole."""

import json
import os
import re
from itertools import islice
from typing import NamedTuple

from input_checks import collection_crs
from mltools.geojson_tools import iter_features
from mltools.polygon_runs import geometry_fault

END_CHARACTERS = 65_536  # of a file's beginning and end that are searched for the crs member


class Crs(NamedTuple):
    """A file's CRS: its name for PROJ, and the member that gave it, None for longitude and latitude."""

    name: str
    member: object


def check_head(path, count, problems):
    """The first features of a file; reported is what no feature can be read from, or is no polygon."""
    place = f"geojson/{os.path.basename(path)}"
    try:
        early = list(islice(iter_features(path), count))
    except (ValueError, RecursionError) as error:
        problems.add("geojson-not-json", place, "a FeatureCollection in UTF-8", error)
        return []
    odd = [number for number, feature in enumerate(early) if not isinstance(feature, dict)]
    if not early:
        problems.add("geojson-empty", place, "polygons", "no feature")
    elif odd:
        problems.add("feature-malformed", place, "features", f"something else at {odd[0]} (from 0)")
        return []
    faults = [geometry_fault(feature.get("geometry"), check=True) for feature in early]
    if faults and all(faults):
        problems.add("geometry-malformed", place, "Polygons or MultiPolygons", f"none; the first: {faults[0]}")
    return early


def read_crs(path, problems):
    """The CRS of a collection, from its member before or after the features."""
    with open(path, "rb") as file:
        head = file.read(END_CHARACTERS).decode("utf-8-sig", errors="replace")
        file.seek(max(0, os.path.getsize(path) - END_CHARACTERS))
        tail = file.read().decode("utf-8", errors="replace")
    member = member_before_features(head) or member_after_features(tail)
    return Crs(collection_crs(f"geojson/{os.path.basename(path)}", member, problems), member)


def member_before_features(head):
    """The crs member in the text before the list of features, or None."""
    start = re.search(r'"features"\s*:\s*\[', head)
    try:
        return json.loads(head[: start.end()] + "]}").get("crs") if start else None
    except (ValueError, AttributeError):
        return None


def member_after_features(tail):
    """The crs member in the text after the list of features, or None: nothing but members follow it there."""
    for found in re.finditer(r'\]\s*,\s*"crs"\s*:\s*', tail):
        try:
            member, end = json.JSONDecoder().raw_decode(tail, found.end())
            json.loads("{" + tail[end:].strip().lstrip(",") if tail[end:].strip() != "}" else "{}")
            return member
        except ValueError:
            continue
    return None
