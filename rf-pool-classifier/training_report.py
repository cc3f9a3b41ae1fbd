"""report.html: what a person looks at after training. One file, without anything from elsewhere.

Distributions of the features per class, importances, the confusion matrix, and pictures of the polygons that the forest
is surest and least sure of, by the votes of the trees that have not seen them.
"""

import base64
import html
import warnings

import numpy as np
import pyproj
import rasterio
from mltools.polygon_runs import polygon_parts
from rasterio.io import MemoryFile
from rasterio.windows import Window

COLOURS = ("#1f77b4", "#d95f02", "#2ca02c", "#9467bd", "#8c564b", "#e377c2")
BINS = 40
PICTURES = 8  # of the surest and as many of the most doubtful polygons
MARGIN = 6  # pixels around a polygon
PICTURE_SIDE = 120  # screen pixels
LONGEST_SIDE = 300  # image pixels of a picture
RED_GREEN_BLUE = (5, 3, 2)  # WorldView-2's bands

STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:.3rem .7rem;text-align:right}"
    "th:first-child{text-align:left}figure{display:inline-block;margin:.4rem;vertical-align:top;width:130px}"
    "figcaption{font-size:12px;line-height:1.3}svg{margin-right:1rem}.picture{position:relative}"
)


def write_report(path, metrics, inputs, values, polygons, votes):
    """Write the report. values (n, 4), polygons and votes (n, classes; nan where unknown) are in one order."""
    names = metrics["classes"]
    labels = np.array([polygon["properties"]["class_name"] for polygon in polygons])
    doubtful, surest = by_certainty(votes)
    parts = [
        f"<h1>{metrics['task']}</h1><p>{summary(metrics)}</p>",
        "<h2>Confusion matrix (out of bag)</h2>" + confusion_table(names, metrics["out_of_bag"]),
        "<h2>Importance of the features</h2>" + bars(metrics["importances"]),
        "<h2>Features of each class</h2>" + legend(names),
        *(histogram(name, values[:, n], labels, names) for n, name in enumerate(metrics["features"])),
        "<h2>Most doubtful polygons</h2>" + pictures(doubtful, inputs, polygons, votes, names),
        "<h2>Surest polygons</h2>" + pictures(surest, inputs, polygons, votes, names),
        "<h2>Left out</h2>" + left_out_list(metrics["left_out"]),
    ]
    with open(path, "w", encoding="utf-8") as file:
        file.write(f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>{metrics["task"]}</title>')
        file.write(f"<style>{STYLE}</style><body>{''.join(parts)}</body></html>\n")


def by_certainty(votes):
    """Numbers of the most doubtful and of the surest polygons; those that no tree could vote on are in neither."""
    certainty = votes.max(axis=1)
    order = np.argsort(certainty, kind="stable")
    order = order[np.isfinite(certainty[order])]
    return order[:PICTURES].tolist(), order[::-1][:PICTURES].tolist()


def summary(metrics):
    counts = ", ".join(f"{count} {html.escape(name)}" for name, count in metrics["counts"].items())
    scores = metrics["out_of_bag"]
    return (
        f"{metrics['settings']['n_estimators']} trees, trained on {counts}; left out: {len(metrics['left_out'])}. "
        f"Out-of-bag accuracy {scores['accuracy']:.3f} (always the commonest class: {scores['majority_baseline']:.3f})."
    )


def confusion_table(names, scores):
    head = "".join(f"<th>found: {html.escape(name)}</th>" for name in names)
    rows = [f"<tr><th>given as</th>{head}<th>recall</th></tr>"]
    for name, counts in zip(names, scores["confusion_matrix"]):
        cells = "".join(f"<td>{count}</td>" for count in counts)
        rows.append(f"<tr><th>{html.escape(name)}</th>{cells}<td>{scores['recall'][name]:.3f}</td></tr>")
    precision = "".join(f"<td>{scores['precision'][name]:.3f}</td>" for name in names)
    return f"<table>{''.join(rows)}<tr><th>precision</th>{precision}<td></td></tr></table>"


def left_out_list(left_out):
    lines = [f"<li>{html.escape(str(entry['feature_id']))}: {html.escape(entry['reason'])}</li>" for entry in left_out]
    more = f"<li>and {len(lines) - 100} others, in metrics.json</li>" if len(lines) > 100 else ""
    return f"<ul>{''.join(lines[:100])}{more}</ul>" if lines else "<p>None.</p>"


# --- charts (SVG) ----------------------------------------------------------------------------------------------------


def legend(names):
    marks = [
        f'<span style="color:{COLOURS[n % len(COLOURS)]}">&#9632;</span> {html.escape(name)}'
        for n, name in enumerate(names)
    ]
    return f"<p>{' &nbsp; '.join(marks)}</p>"


def bars(importances):
    """Horizontal bars, 0 to 1."""
    rows = [
        f'<text x="190" y="{22 * n + 15}" text-anchor="end">{name}</text>'
        f'<rect x="200" y="{22 * n + 3}" width="{300 * share:.1f}" height="15" fill="#777"/>'
        f'<text x="{206 + 300 * share:.1f}" y="{22 * n + 15}">{share:.3f}</text>'
        for n, (name, share) in enumerate(importances.items())
    ]
    return f'<svg width="560" height="{22 * len(rows) + 6}" font-size="13">{"".join(rows)}</svg>'


def histogram(name, values, labels, names):
    """The share of each class's polygons in 40 bins between the smallest and the largest value."""
    low, high = float(values.min()), float(values.max())
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    shares = [np.histogram(values[labels == label], edges)[0] / max((labels == label).sum(), 1) for label in names]
    tallest = max(float(share.max()) for share in shares)
    lines = [
        f'<polyline points="{steps(share / tallest)}" fill="{colour}" fill-opacity=".25" stroke="{colour}"/>'
        for share, colour in zip(shares, COLOURS * len(names))
    ]
    axis = f'<text x="10" y="136">{low:.3g}</text><text x="410" y="136" text-anchor="end">{edges[-1]:.3g}</text>'
    title = f'<text x="210" y="136" text-anchor="middle">{name}</text>'
    return f'<svg width="420" height="145" font-size="12">{"".join(lines)}{axis}{title}</svg>'


def steps(heights):
    """A histogram's outline, 400 wide and 110 high, as SVG points."""
    x = 10 + 400 * np.repeat(np.arange(len(heights) + 1), 2) / len(heights)
    y = 120 - 110 * np.concatenate([[0], np.repeat(heights, 2), [0]])
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y))


# --- pictures of polygons --------------------------------------------------------------------------------------------


def pictures(numbers, inputs, polygons, votes, names):
    """Polygons on their image in true colour, each with its class and the votes for each class."""
    figures = []
    for number in numbers:
        properties = polygons[number]["properties"]
        shares = ", ".join(f"{html.escape(name)} {share:.0%}" for name, share in zip(names, votes[number]))
        caption = f"{html.escape(str(properties['feature_id']))}: {html.escape(properties['class_name'])}<br>{shares}"
        picture = picture_of(inputs.images[str(properties["image_id"])], polygons[number]["geometry"], inputs.crs)
        figures.append(f"<figure>{picture}<figcaption>{caption}</figcaption></figure>")
    return "".join(figures)


def picture_of(path, geometry, crs):
    """A polygon's outline over its surroundings, as SVG around a PNG."""
    with rasterio.open(path) as source:
        rings = rings_in_pixels(source, geometry, crs)
        points = np.concatenate(rings)
        left, top = np.floor(points.min(axis=0)).astype(int) - MARGIN
        right, bottom = np.ceil(points.max(axis=0)).astype(int) + MARGIN
        left, top = max(left, 0), max(top, 0)
        cols = min(right, source.width, left + LONGEST_SIDE) - left
        rows = min(bottom, source.height, top + LONGEST_SIDE) - top
        pixels = source.read(RED_GREEN_BLUE, window=Window(left, top, cols, rows))
    outlines = [f'<polygon points="{" ".join(f"{x:.2f},{y:.2f}" for x, y in ring - (left, top))}"/>' for ring in rings]
    image = f'<image width="{cols}" height="{rows}" style="image-rendering:pixelated" href="{png(pixels)}"/>'
    lines = f'<g fill="none" stroke="#ff0" stroke-width="{max(cols, rows) / 100:.2f}">{"".join(outlines)}</g>'
    box = f'width="{PICTURE_SIDE}" height="{PICTURE_SIDE}" viewBox="0 0 {cols} {rows}"'
    return f"<svg {box}>{image}{lines}</svg>"


def rings_in_pixels(source, geometry, crs):
    """The rings of a polygon as columns and rows of an open image, each (n, 2)."""
    project = pyproj.Transformer.from_crs(crs, source.crs.to_wkt(), always_xy=True)
    found = []
    for ring in (ring for part in polygon_parts(geometry) for ring in part):
        x, y = np.array([position[:2] for position in ring], dtype=float).T
        found.append(np.stack(~source.transform * project.transform(x, y), axis=1))
    return found


def png(pixels):
    """Three bands (3, rows, cols) stretched between their 2nd and 98th percentile, as the data URL of a PNG."""
    values = np.nan_to_num(pixels.astype(np.float64))
    low, high = np.percentile(values, (2, 98))
    stretched = np.clip((values - low) / max(high - low, 1e-9) * 255, 0, 255).astype(np.uint8)
    with warnings.catch_warnings(), MemoryFile() as memory:
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)  # it is a picture
        profile = {"driver": "PNG", "count": 3, "dtype": "uint8", "height": pixels.shape[1], "width": pixels.shape[2]}
        with memory.open(**profile) as target:
            target.write(stretched)
        return "data:image/png;base64," + base64.b64encode(memory.read()).decode()
