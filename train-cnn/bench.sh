#!/usr/bin/env bash
# make bench TASK=train-cnn: the task's training against other ways to train the same network, as ratios in one run.
# ROUNDS (default 3) epochs each; arguments are benchmark_training.py's, such as --ways or --images.
# DEVICE=gpu compares on a card. Theano takes part where its image is there: make build TASK=train-cnn BASE=theano.
set -euo pipefail
cd "$(dirname "$0")/.."
export DEVICE=${DEVICE:-cpu} DOCKER_BUILDKIT=1
python=${PYTHON:-python3}
engine=$(ci/engine.sh)
"$python" ci/build_images.py train-cnn
certificates=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
secret=()
[ ! -f "$certificates" ] || secret=(--secret "id=ca,src=$certificates")
"$engine" build --quiet --target bench --tag localhost/train-cnn:bench \
    --build-arg REGISTRY="${REGISTRY:-localhost}" --build-arg TAG="${TAG:-dev}" "${secret[@]}" train-cnn >&2
exec "$python" train-cnn/benchmark_training.py --engine "$engine" "$@"
