#!/bin/bash
# Builds a task's image, gives it the name that its definition has, and registers it: register.sh TASK
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

task=${1:?expected the name of a task, for example: gbdx-platform/register.sh hello-gbdx}
[[ -d $task ]] || { echo "register: expected a task folder, found none called $task" >&2; exit 2; }
command=$(gbdx-platform/install.sh)
ENGINE=$(ci/engine.sh)
export ENGINE
"${PYTHON:-python3}" ci/build_images.py "$task"
exec "$command" register "$task/${task}_definition.json" --local-image "${REGISTRY:-localhost}/$task:${TAG:-dev}"
