"""Training data and features for machine learning on satellite imagery.

features           spectral angles, band ratios and the pool feature vector of one chip
data_extractors    chips from images by polygon, point or at random
geojson_tools      split, join, filter, balance and edit GeoJSON files
polygon_features   the pool feature vector of very many polygons of one image, fast
"""

from . import data_extractors, features, geojson_tools, polygon_features

__version__ = "2.0.0"
__all__ = ["data_extractors", "features", "geojson_tools", "polygon_features"]
