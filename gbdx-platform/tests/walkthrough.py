"""The walkthrough's blocks of gbdxtools, one after the other: the same calls, arguments, names and order.

Run by test_original_client.py in a folder that holds the definitions which the blocks register; their inputs lie in S3
at the places which they name. What is not of the blocks: `seen`, and `wait_until` where a sentence between two of them
has its reader wait for the workflow's end. Where a block imports and makes an interface anew, it is made anew.
"""
# ruff: noqa: S311 (so the blocks make a name that is free)

import json
import random
import string
from os.path import join
from pathlib import Path

from gbdxtools import Interface
from waiting import wait_until

seen = {}

# "GBDX Task Registry", step 1: an interface.
gbdx = Interface()

# Step 2: the task is registered.
seen["hello registered"] = gbdx.task_registry.register(json_filename="hello-gbdx_definition.json")

# Step 3: it runs, and its output is downloaded.
gbdx = Interface()
bucket = gbdx.s3.info["bucket"]
prefix = gbdx.s3.info["prefix"]
story_prefix = "s3://" + join(bucket, prefix, "platform_stories", "create_task", "hello_gbdx")
hello_task = gbdx.Task("hello-gbdx")
hello_task.inputs.data_in = join(story_prefix, "data_in")
hello_task.inputs.message = "This is my message!"
output_str = "".join(random.choice(string.ascii_uppercase + string.digits) for _ in range(20))
output_loc = join("platform_stories/create_task/hello_gbdx/user_outputs", output_str)
workflow = gbdx.Workflow([hello_task])
workflow.savedata(hello_task.outputs.data_out, output_loc)
workflow.execute()
wait_until(lambda: workflow.complete, 120)
gbdx.s3.download(join("platform_stories/create_task/hello_gbdx/user_outputs", output_str))
seen["hello"] = Path("out.txt").read_text()

# Step 4: it is deleted.
seen["hello deleted"] = gbdx.task_registry.delete("hello-gbdx")

# "Testing the Docker Image" of the random forest, step 2: two single files, each into a folder that is not there yet.
gbdx = Interface()
gbdx.s3.download("platform_stories/create_task/rf_pool_classifier/image/1040010014800C00.tif", "./image/")
gbdx.s3.download("platform_stories/create_task/rf_pool_classifier/geojson/train.geojson", "./geojson/")
seen["single files"] = sorted(str(path) for folder in ("image", "geojson") for path in Path(folder).rglob("*"))

# Its "Task Definition": the task is registered.
gbdx = Interface()
seen["forest registered"] = gbdx.task_registry.register(json_filename="rf-pool-classifier_definition.json")

# Its "Executing the Task", step 1: where the inputs are.
gbdx = Interface()
bucket = gbdx.s3.info["bucket"]
prefix = gbdx.s3.info["prefix"]
story_prefix = "s3://" + join(bucket, prefix, "platform_stories", "create_task", "rf_pool_classifier")

# Step 2: the task and its inputs.
rf_task = gbdx.Task("rf-pool-classifier")
rf_task.inputs.image = join(story_prefix, "image")
rf_task.inputs.geojson = join(story_prefix, "geojson")
rf_task.inputs.n_estimators = "1000"

# Step 3: the workflow, and where its output is to be.
output_str = "".join(random.choice(string.ascii_uppercase + string.digits) for _ in range(20))
output_loc = join("platform_stories/create_task/rf_pool_classifier/user_outputs", output_str)
workflow = gbdx.Workflow([rf_task])
workflow.savedata(rf_task.outputs.trained_classifier, output_loc)

# Step 4: it runs and is looked at.
workflow.execute()
seen["forest begun"] = workflow.status["state"]
wait_until(lambda: workflow.complete, 120)

# Step 5: its output is downloaded.
gbdx.s3.download(join("platform_stories/create_task/rf_pool_classifier/user_outputs/", output_str))
seen["forest"] = Path("classifier.pkl").read_text()

# "Task Definition" of the network asks for the same steps with its own definition.
seen["network registered"] = gbdx.task_registry.register(json_filename="train-cnn_definition.json")

# Its "Executing the Task", step 1: where the inputs are.
gbdx = Interface()
bucket = gbdx.s3.info["bucket"]
prefix = gbdx.s3.info["prefix"]
story_prefix = "s3://" + join(bucket, prefix, "platform_stories", "create_task", "train_cnn")

# Step 2: the task and its inputs.
cnn_task = gbdx.Task("train-cnn")
cnn_task.inputs.train_data = join(story_prefix, "train_data")
cnn_task.inputs.bit_depth = "8"
cnn_task.inputs.nb_epoch = "15"

# Step 3: the workflow, and where its output is to be.
output_str = "".join(random.choice(string.ascii_uppercase + string.digits) for _ in range(20))
output_loc = join("platform_stories/create_task/train_cnn/user_outputs", output_str)
workflow = gbdx.Workflow([cnn_task])
workflow.savedata(cnn_task.outputs.trained_model, output_loc)

# Step 4: it runs and is looked at.
workflow.execute()
seen["network begun"] = workflow.status["state"]
wait_until(lambda: workflow.complete, 120)

# Step 5: its output is downloaded.
gbdx.s3.download(join("platform_stories/create_task/train_cnn/user_outputs", output_str))
seen["network"] = [Path(name).read_text() for name in ("model_architecture.json", "model_weights.h5")]

print(json.dumps(seen))
