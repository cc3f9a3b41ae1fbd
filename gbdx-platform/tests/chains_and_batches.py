"""What gbdxtools can beyond the walkthrough: chains_and_batches.py TASK, with TASK_definition.json beside it.

Run by test_original_client.py, with the platform's own gbdxtools or with another one.
"""

import json
import sys
import uuid
from os.path import join
from pathlib import Path

from gbdxtools import Interface
from waiting import wait_until

name = sys.argv[1]
seen = {}

# Register.
gbdx = Interface()
seen["registered"] = gbdx.task_registry.register(json_filename=f"{name}_definition.json")
seen["listed"] = name in gbdx.task_registry.list()
seen["described"] = gbdx.task_registry.get_definition(name)["containerDescriptors"][0]["command"]

# Where the inputs are.
bucket = gbdx.s3.info["bucket"]
prefix = gbdx.s3.info["prefix"]
story = "s3://" + join(bucket, prefix, "stories", name)
gbdx.s3.upload(f"{name}_definition.json", join("stories", name, "data_in", "some.json"))

# One task.
hello = gbdx.Task(name)
hello.inputs.data_in = join(story, "data_in")
hello.inputs.message = "This is my message!"
output = join("stories", name, uuid.uuid4().hex)
workflow = gbdx.Workflow([hello])
workflow.savedata(hello.outputs.data_out, output)
workflow.execute()
seen["begun"] = workflow.status["state"]
wait_until(lambda: workflow.complete, 120)
seen["status"] = workflow.status
seen["events"] = [event["event"] for event in workflow.events]
task = gbdx.workflow.get(workflow.id)["tasks"][0]["id"]
seen["printed"] = [gbdx.workflow.get_stdout(workflow.id, task), gbdx.workflow.get_stderr(workflow.id, task)]
gbdx.s3.download(output, "downloaded")
seen["out.txt"] = Path("downloaded", "out.txt").read_text()

# Two tasks, the second fed by the first; the default place for what is kept.
first = gbdx.Task(name, data_in=join(story, "data_in"), message="first")
second = gbdx.Task(name, data_in=first.outputs.data_out.value, message="second")
chain = gbdx.Workflow([first, second], name="chain")
chain.savedata(second.outputs.data_out)
chain.execute()
wait_until(lambda: chain.complete, 120)
gbdx.s3.download(join("workflow_output", chain.id, second.name, "data_out"), "chained")
seen["chain"] = Path("chained", "out.txt").read_text()

# A batch, and a workflow that is canceled.
several = gbdx.Task(name)
several.set(data_in=join(story, "data_in"), message=["one", "two"])
batch = gbdx.Workflow([several])
batch.savedata(several.outputs.data_out)
batch.execute()
wait_until(lambda: batch.complete, 120)
seen["batch"] = batch.succeeded and len(batch.status["workflows"])
canceled = gbdx.Workflow([gbdx.Task(name, data_in=join(story, "data_in"), message="never")])
canceled.execute()
canceled.cancel()
wait_until(lambda: canceled.complete, 120)
seen["canceled"] = canceled.status["event"]

seen["deleted"] = gbdx.task_registry.delete(name)
print(json.dumps(seen))
