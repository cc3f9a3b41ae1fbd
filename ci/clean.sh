#!/usr/bin/env bash
# Removes what make made, but for runs/: our containers and images in the engine, .venv, .make, caches.
set -euo pipefail
cd "$(dirname "$0")/.."
registry=${REGISTRY:-localhost}

if [ -r .make/engine ]; then
    engine=$(ci/engine.sh)
    "$engine" ps --all --quiet --filter label=gbdx.task | xargs -r "$engine" rm --force >/dev/null
    python3 ci/image_graph.py list | while read -r name; do
        "$engine" images --format '{{.Repository}}:{{.Tag}}' "$registry/$name"
        [ "$registry" = localhost ] || "$engine" images --format '{{.Repository}}:{{.Tag}}' "localhost/$name"
    done | xargs -r "$engine" rmi --force >/dev/null
fi
rm -rf .venv .make .pytest_cache .ruff_cache .mypy_cache .hypothesis docs/.venv docs/_site
echo "clean: removed this repository's images and tools; runs/ and the engine stay"
