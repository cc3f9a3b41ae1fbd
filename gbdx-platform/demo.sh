#!/bin/bash
# The walkthrough's second half in one go: starts a service of its own, registers hello-gbdx, uploads its sample inputs,
# runs it twice in a chain, prints the result, stops all that it started.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

command=$(gbdx-platform/install.sh)
ENGINE=$(ci/engine.sh)
export ENGINE
"${PYTHON:-python3}" ci/build_images.py hello-gbdx
exec "$command" demo hello-gbdx/hello-gbdx_definition.json hello-gbdx/test_inputs/data_in \
    --local-image "${REGISTRY:-localhost}/hello-gbdx:${TAG:-dev}"
