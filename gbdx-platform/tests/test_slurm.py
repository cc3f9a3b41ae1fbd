"""Workflows on a real Slurm cluster on this machine, through the live service."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from example_runs import example, launch, outcome
from gbdx_platform import toil_engine
from gbdx_platform.settings import Settings
from live_service import API, Service, Session, definition, port, script, serving, states, task
from slurm_cluster import Cluster, cluster

SLURM = "--engine-argument=--batchSystem=slurm"


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster."""
    with cluster(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture(scope="module")
def on_slurm(slurm: Cluster, hello_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that runs tasks there."""
    with serving(tmp_path_factory.mktemp("on-slurm"), "--engine", "toil", SLURM, **slurm.environment) as running:
        yield running


@pytest.fixture(scope="module")
def there(on_slurm: Service) -> Session:
    """The default account, with a task that joins strings, once its gate is open when it has one."""
    found = Session(on_slurm.client())
    join = (
        "given = json.load(open(work + 'input/ports.json'))\n"
        "while os.path.exists(work + 'input/gate/gate') and not os.path.exists(work + 'input/gate/open'):\n"
        "    time.sleep(1)\n"
        "strings['sum'] = '+'.join(value for key, value in sorted(given.items()))"
    )
    inputs = [port("gate", required=False), *(port(name, "string", required=False) for name in ("a", "b"))]
    found.register(definition("join", inputs, [port("sum", "string")], script(join)))
    return found


def open_gates(service: Service, workflow: str) -> None:
    """Lets the tasks of a workflow go on that wait for a file in an input: the nodes mount it from this machine."""
    for folder in (service.state / "runs" / workflow / "inputs").glob("*/input"):
        (folder / "open").touch()


def jobs(slurm: Cluster, workflow: str) -> dict[str, dict[str, Any]]:
    """Slurm's record of a workflow's tasks: task name -> job."""
    mine = [job for job in slurm.jobs() if job["WorkDir"].endswith(workflow)]
    return {job["Name"].rsplit(".", 1)[1].removesuffix("-tool"): job for job in mine}


def wait_for(session: Session, workflow: str, *wanted: tuple[str, str]) -> dict[str, str]:
    """The states of a workflow's tasks once each pair of task and state was seen at the same time."""
    for _ in range(3000):
        found = states(session.http.get(f"{API}/workflows/{workflow}").json())
        if all(found[name] == state for name, state in wanted):
            return found
        assert set(found.values()) != {"complete/failed"}, found
        time.sleep(0.1)
    pytest.fail(f"{wanted} were not seen: {found}")


@pytest.fixture(scope="module")
def launched(there: Session) -> dict[str, str]:
    """Workflows that run at the same time: name -> id."""
    gpu, gate = [{"properties": {"domain": "nvidiagpu"}}], there.put("gate/gate")
    return {
        "slow": there.launch(task("slow", "join", {"gate": gate}, timeout=3600)),
        "diamond": there.launch(
            task("top", "join", {"a": "1"}),
            task("left", "join", {"a": ("top:sum",), "b": "2", "gate": gate}, timeout=3600),
            task("right", "join", {"a": ("top:sum",), "b": "3", "gate": gate}, timeout=3600),
            task("bottom", "join", {"a": ("left:sum",), "b": ("right:sum",)}),
        ),
        "gpu": there.launch(task("trains", "join", {"a": "1"}, containerDescriptors=gpu)),
        "chain": launch(there, example("hello_chain")),
    }


def test_branches_of_a_diamond_run_at_the_same_time_on_two_nodes_and_are_shown_live(
    slurm: Cluster, there: Session, on_slurm: Service, launched: dict[str, str]
) -> None:
    both = (("top", "complete/succeeded"), ("left", "running/started"), ("right", "running/started"))
    assert wait_for(there, launched["diamond"], *both)["bottom"] == "pending/scheduled"
    open_gates(on_slurm, launched["diamond"])
    ended = there.wait(launched["diamond"], 600)
    assert [one["outputs"][0]["value"] for one in ended["tasks"]] == ["1", "1+2", "1+3", "1+2+1+3"], ended
    left, right = (jobs(slurm, launched["diamond"])[name] for name in ("left", "right"))
    assert left["NodeList"] != right["NodeList"]
    assert max(left["StartTime"], right["StartTime"]) < min(left["EndTime"], right["EndTime"])


def test_a_chain_runs_as_jobs_of_slurm_and_comes_to_the_same_as_with_cwltool(
    slurm: Cluster, there: Session, launched: dict[str, str], session: Session, hello: str
) -> None:
    found = outcome(there, launched["chain"])
    done = {name: job["JobState"] for name, job in jobs(slurm, launched["chain"]).items()}
    assert done == {"first": "COMPLETED", "second": "COMPLETED"}
    assert found == outcome(session, launch(session, example("hello_chain")))


def test_a_canceled_workflow_leaves_neither_a_job_nor_a_container(
    slurm: Cluster, there: Session, on_slurm: Service, launched: dict[str, str]
) -> None:
    workflow = launched["slow"]
    wait_for(there, workflow, ("slow", "running/started"))
    assert len(on_slurm.mounting(workflow)) == 1
    there.http.post(f"{API}/workflows/{workflow}/cancel")
    assert states(there.wait(workflow, 600)) == {"slow": "complete/canceled"}
    assert "slow-tool" not in slurm.ask("squeue", "--noheader", "--format=%j %T", "--states=PENDING,RUNNING")
    assert on_slurm.mounting(workflow) == []


def test_a_gpu_task_is_sent_to_the_partition_with_gpus(
    slurm: Cluster, there: Session, launched: dict[str, str]
) -> None:
    found = there.wait(launched["gpu"], 600)
    assert jobs(slurm, launched["gpu"])["trains"]["NodeList"] == "card1"
    # The card is make-believe, so that CWL's own look at the node finds none.
    assert states(found) == {"trains": "complete/failed"}
    assert found["tasks"][0]["note"].endswith(": Could not satisfy CUDARequirement")


def test_a_gpu_task_fails_at_once_where_no_partition_has_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(tmp_path, "", "", engine="toil", engine_arguments=("--batchSystem=slurm",))
    with cluster(tmp_path / "slurm", gpus=False) as without:
        monkeypatch.setenv("SLURM_CONF", without.environment["SLURM_CONF"])
        assert toil_engine.no_gpu(settings) == "in Slurm's partitions (sinfo)"
    with cluster(tmp_path / "with", gpus=True) as offering:
        monkeypatch.setenv("SLURM_CONF", offering.environment["SLURM_CONF"])
        assert toil_engine.no_gpu(settings) is None
