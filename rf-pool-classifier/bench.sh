#!/usr/bin/env bash
# make bench TASK=rf-pool-classifier: the features of many polygons, as ratios to other ways in the image, then the
# whole task. POLYGONS (default "1000 11000") and GIGABYTES (default 1) choose the size; ROUNDS the rounds. The strip is
# made once and kept in runs/bench/.
set -euo pipefail
cd "$(dirname "$0")/.."
engine=$(ci/engine.sh)
"${PYTHON:-python3}" ci/build_images.py rf-pool-classifier
image=${REGISTRY:-localhost}/rf-pool-classifier:${TAG:-dev}
size=${GIGABYTES:-1}
strip=$PWD/runs/bench/strip-$size-gb
read -ra polygons <<<"${POLYGONS:-1000 11000}"

inside() {
    "$engine" run --rm --init --network none --user "$(id -u):$(id -g)" --env HOME=/tmp --tmpfs /tmp:exec \
        --volume "$PWD/runs/bench:/bench" --volume "$PWD/rf-pool-classifier:/task:ro" \
        --volume "$PWD/base-images/mltools/benchmark_polygon_features.py:/benchmark.py:ro" "$image" "$@"
}

mkdir -p runs/bench
if [ ! -d "$strip" ]; then
    echo "making a strip of $size GB in $strip" >&2
    inside python /task/make_test_inputs.py "/bench/unfinished-$size" --parcels 1000 --gigabytes "$size"
    mv "runs/bench/unfinished-$size" "$strip"
fi
name=$(basename "$strip")
tif=$(basename "$(find "$strip/image" -name '*.tif' | head -n 1)")
inside python /benchmark.py "/bench/$name/image/$tif" --geojson "/bench/$name/geojson/train.geojson" \
    --polygons "${polygons[@]}" --peers rasterio.mask 'GDAL bindings' --rounds "${ROUNDS:-3}"

echo
echo "The whole task on that strip, 1,000 polygons:"
INPUT=$strip OUTPUT='' PORTS='' "${PYTHON:-python3}" ci/run_task.py rf-pool-classifier
