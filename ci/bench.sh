#!/usr/bin/env bash
# `make bench`: a task's own bench.sh, or its benchmark_*.py in its image, or what a run costs over the engine's own.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
task=${TASK:-hello-gbdx}

[ ! -x "$task/bench.sh" ] || exec "$task/bench.sh"
shopt -s nullglob
scripts=("$task"/benchmark_*.py)
if [ ${#scripts[@]} -eq 0 ]; then
    exec "$python" ci/bench_run_overhead.py
fi
# On the processor unless a card is asked for: DEVICE=gpu.
export DEVICE=${DEVICE:-cpu}
engine=$(ci/engine.sh)
"$python" ci/build_images.py "$task"
exec "$engine" run --rm --init --network none --tmpfs /tmp:exec --env HOME=/tmp --env DEVICE="$DEVICE" \
    --volume "$PWD/$task:/$task:ro" --workdir / "${REGISTRY:-localhost}/$task:${TAG:-dev}" python "/${scripts[0]}" ${ROUNDS:+--rounds "$ROUNDS"}
