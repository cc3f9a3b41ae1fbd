#!/bin/bash
# What the platform costs over the bare engine, side by side in one run: make bench TASK=gbdx-platform, with ROUNDS=
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

gbdx-platform/install.sh >/dev/null
ENGINE=$(ci/engine.sh)
export ENGINE
"${PYTHON:-python3}" ci/build_images.py hello-gbdx
exec gbdx-platform/.venv/bin/python gbdx-platform/benchmark_platform.py
