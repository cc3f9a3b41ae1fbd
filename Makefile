# One verb for each thing that a person does; what is longer than a line or two lives in ci/.
# A value on the command line is passed on exactly as typed: neither make nor a shell reads it again.
VARIABLES := TASK INPUT OUTPUT PORTS DEVICE BASE ENGINE REGISTRY TAG NAME FROM NETWORK MEMORY DISK ROUNDS POLYGONS GIGABYTES V \
  PLATFORM NO_CACHE REF SINCE RELEASE WORKFLOW
$(foreach name,$(VARIABLES),$(if $(filter command environment,$(firstword $(origin $(name)))),\
  $(eval override $(name) := $$(value $(name)))))
export $(VARIABLES)

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv/bin/python
.DEFAULT_GOAL := help
.PHONY: help build run shell container-test test lint sync new clean bench push test-theano register verify sbom sign matrix ci demo docs
.SILENT:

##@ Every day
help: ## this list
	awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	printf '\nTasks: %s\n' "$$($(PYTHON) ci/image_graph.py tasks | paste -sd' ')"
	printf 'Try:   make run TASK=hello-gbdx\n       make run TASK=hello-gbdx PORTS="message=Hi there" INPUT=my_inputs OUTPUT=my_outputs\n'

run: ## run a task in its container: TASK=, with INPUT= OUTPUT= PORTS= DEVICE=cpu NETWORK= MEMORY= DISK=
	$(PYTHON) ci/run_task.py

build: ## build what is missing or changed: TASK= (default: all), DEVICE=cpu BASE=theano PLATFORM= NO_CACHE=1 REGISTRY= TAG=
	$(PYTHON) ci/build_images.py $${TASK:+"$$TASK"}

shell: ## a shell in a task's image, with its inputs under /mnt/work: TASK=, with INPUT=
	$(PYTHON) ci/run_task.py --shell

##@ Write a task
new: ## start a task of your own from another: NAME=my-task FROM=hello-gbdx
	$(PYTHON) ci/new_task.py

sync: ## copy gbdx_task_interface.py from hello-gbdx into every task
	$(PYTHON) ci/sync_copies.py

lint: .venv/installed ## check definitions, READMEs, code, Dockerfiles and scripts; all findings at once
	ci/lint.sh

docs: ## build the documents as a site, links checked, tables and pictures made anew; prints where it is
	ci/docs.sh

##@ Test
container-test: .venv/installed ## test the images in real containers: TASK= (default: all)
	DEVICE=$${DEVICE:-cpu} $(VENV) -m pytest -m "not theano" ci/tests/test_container_contract.py ci/tests/test_graphics_card.py $${TASK:+--task "$$TASK"}

test: lint ## everything that a fresh machine can run; installs what it needs
	ci/test.sh

test-theano: .venv/installed ## the tests of the Theano layer alone, as make test runs them too
	DEVICE=cpu $(VENV) -m pytest -m theano

bench: ## a task's benchmark, or what a run costs over the bare engine: TASK= (default: hello-gbdx), ROUNDS=
	ci/bench.sh

##@ Publish
push: .venv/installed ## test, then push to REGISTRY=host/path under version and commit: TASK= (default: all), DEVICE= BASE=
	$(VENV) ci/push_images.py $${TASK:+"$$TASK"}

register: .venv/installed ## register a pushed task with the platform at GBDX_URL: TASK=, DEVICE= BASE=
	$(VENV) ci/register_task.py "$$TASK"

verify: ## build a pushed image again from its commit and compare: TASK= REF=host/name@sha256:...
	$(PYTHON) ci/verify_image.py "$$TASK" "$$REF"

sbom: .venv/installed ## list what is in an image, and what is known to be wrong with it: TASK= (default: all), DEVICE= BASE=
	$(VENV) ci/write_sbom.py $${TASK:+"$$TASK"}

sign: ## sign a pushed image and its bill of materials with cosign: TASK=, DEVICE= BASE=
	$(PYTHON) ci/sign_image.py "$$TASK"

matrix: ## the tasks for the jobs of the CI, as JSON: changed SINCE= a commit, or of a tag RELEASE=
	$(PYTHON) ci/job_matrix.py

ci: .venv/installed ## run the steps of a GitHub workflow on this machine: WORKFLOW= (default: test), TASK= (one of its matrix)
	$(VENV) ci/walk_workflows.py "$${WORKFLOW:-test}"

demo: ## the platform from end to end: start, register, run a chain of two tasks, fetch the result, stop
	gbdx-platform/demo.sh

##@ Tidy up
clean: ## remove built images, stopped containers and the tools' environment; runs/ stays
	ci/clean.sh

.venv/installed: ci/requirements.txt
	ci/install_tools.sh
