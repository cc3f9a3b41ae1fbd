"""What GBDX's own clients do, with their published packages: original_clients.py TASK, beside TASK_definition.json.

Run by test_original_client.py. Their addresses are those of GBDX; `gbdx-platform client-env` leads them to the service.
"""

import json
import sys
from pathlib import Path

from gbdx_auth import gbdx_auth
from gbdx_cloud_harness.services.account_storage_service import AccountStorageService
from gbdx_cloud_harness.services.task_service import TaskService
from gbdx_cloud_harness.workflow import Workflow
from waiting import wait_until

name = sys.argv[1]
seen = {}

session = gbdx_auth.get_session()
seen["heartbeat"] = session.get("https://geobigdata.io/workflows/v1/heartbeat").json()

registry = TaskService()
seen["registered"] = registry.register_task(Path(f"{name}_definition.json").read_text())
seen["twice"] = registry.register_task(Path(f"{name}_definition.json").read_text())[0]

storage = AccountStorageService()
storage.upload((f"{name}_definition.json", "in/some.json"), s3_folder=f"harness/{name}")
workflow = Workflow(None)
workflow.execute({
    "name": "harness",
    "tasks": [{
        "name": "one",
        "taskType": name,
        "inputs": [
            {"name": "data_in", "value": f"{storage.location}/harness/{name}/in"},
            {"name": "message", "value": "This is my message!"},
        ],
        "outputs": [{"name": "data_out", "persist": True, "persistLocation": f"harness/{name}/out"}],
    }],
})  # fmt: skip
wait_until(lambda: workflow.complete, 120)
seen["succeeded"] = workflow.succeeded
seen["kept"] = [key.split(f"harness/{name}/")[1] for key in storage.list(f"harness/{name}/out")]
storage.download(".", f"harness/{name}/out/out.txt")
seen["out.txt"] = Path("harness", name, "out", "out.txt").read_text()

# As gbdxtools asks for all of the last twelve hours.
search = {"lookback_h": 12, "state": "all"}
found = session.post("https://geobigdata.io/workflows/v1/workflows/search", json=search).json()["Workflows"]
seen["searched"] = workflow.id in [one["id"] for one in found]

seen["deleted"] = registry.delete_task(name)
seen["deleted again"] = registry.delete_task(name)[0]
print(json.dumps(seen))
