#!/usr/bin/env bash
# make bench TASK=train-cnn: the task's training against other ways to train the same network, as ratios in one run.
# ROUNDS (default 3) epochs each; arguments are benchmark_training.py's, such as --ways or --images.
# DEVICE=gpu compares on a card. Theano takes part where its image is there: make build TASK=train-cnn BASE=theano.
set -euo pipefail
cd "$(dirname "$0")/.."
export DEVICE=${DEVICE:-cpu}
python=${PYTHON:-python3}
engine=$(ci/engine.sh)
"$python" ci/build_images.py --stage bench train-cnn
exec "$python" train-cnn/benchmark_training.py --engine "$engine" "$@"
