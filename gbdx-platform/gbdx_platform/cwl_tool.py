"""A task definition as a CWL v1.2 CommandLineTool, and back.

The layout is the worker's of old: one directory, mounted at /mnt/work, holds input/, output/ and status.json. A failing
task is data, not an error of the engine: every exit code is a success to CWL, every output is optional, and
`gbdx_status` says what became of the task, so that logs survive and dependants can be skipped on any engine.
"""

from __future__ import annotations

import glob
import json
import re
import shlex
from dataclasses import dataclass, field
from typing import Any

from gbdx_platform.task_definition import GPU_DOMAINS, container, container_properties
from gbdx_platform.task_verdict import owner_of

Cwl = dict[str, Any]

WORK = "/mnt/work"
STATUS, EXIT_CODE, STDOUT, STDERR = "gbdx_status", "gbdx_exit_code", "gbdx_stdout", "gbdx_stderr"
STATUS_FILE, STRINGS_FILE = "gbdx_status_file", "gbdx_strings_file"
RESERVED = (STATUS, EXIT_CODE, STDOUT, STDERR, STATUS_FILE, STRINGS_FILE)
NAMESPACES = {"gbdx": "urn:gbdx:", "s": "https://schema.org/", "cwltool": "http://commonwl.org/cwltool#"}
# A hint, as a runner without this extension refuses the requirement; Toil heeds both alike.
CUDA = {"cwltool:CUDARequirement": {"cudaVersionMin": "10.0", "cudaComputeCapability": "3.0"}}
# Seconds between SIGTERM and SIGKILL, and between the command's own limit and the engine's.
GRACE, MARGIN = 30, 60

# Left in /mnt/work when a command has ended: what it ended with, or TIMED_OUT when it was told to end.
EXIT_FILE = "gbdx_exit.json"
STDOUT_FILE, STDERR_FILE = "gbdx_stdout.txt", "gbdx_stderr.txt"
TIMED_OUT = 124

# Runs the words that follow and records their end. `timeout` is PID 1 around it, so that a signal to the container
# ends it.
RECORDER = (
    "sh",
    "-c",
    f'trap "late=1" TERM; "$@"; code=$?; [ -z "$late" ] || code={TIMED_OUT}; '
    f"printf '{{\"exit_code\": %s}}' $code >{EXIT_FILE}; exit $code",
    "task",
)

# Half a surrogate pair in ES5: text that no output of CWL can hold, as no UTF-8 can.
HALF_PAIR = r"/[\ud800-\udbff](?![\udc00-\udfff])|(^|[^\ud800-\udbff])[\udc00-\udfff]/"

# gbdx_status in ES5: the exit code, the status word and the declared outputs together, as task_verdict.judge has them.
# A command that had to be killed after its time leaves no record; `timeout` ends with 137 then.
STATUS_EXPRESSION = """${
  var code = runtime.exitCode === 137 ? 124 : runtime.exitCode, word = null, strings = {}, found = {};
  var halfPair = %s, isString = %s;
  function text(key, value) {
    if (halfPair.test(key) || (typeof value === "string" && halfPair.test(value))) { throw key; }
    return value;
  }
  for (var i = 0; i < self.length; i++) {
    found[self[i].basename] = true;
    try {
      if (self[i].basename === "gbdx_exit.json") { code = JSON.parse(self[i].contents).exit_code; }
      if (self[i].basename === "status.json") { word = String(JSON.parse(self[i].contents).status).toLowerCase(); }
      if (self[i].basename === "ports.json") { strings = Object(JSON.parse(self[i].contents, text)); }
    } catch (error) { strings = null; }
  }
  if (code === 124) { return "timedout"; }
  if (word === "fail" || word === "failed") { return "failed"; }
  if (word !== "success") { return code === 0 ? "broken contract" : "failed"; }
  if (code !== 0) { return "failed"; }
  if (strings === null) { return "broken contract"; }
  for (var port in isString) {
    if (!(isString[port] ? strings : found).hasOwnProperty(port)) { return "broken contract"; }
  }
  return "success";
}"""

# A string output in ES5: the types that are kept, and what is found in the values of output/ports.json.
STRING_EXPRESSION = """${
  var values = {};
  function kept(value) {
    return value == null || %s.test(value) ? null : %s.indexOf(typeof value) < 0 ? JSON.stringify(value) : value;
  }
  try { values = Object(JSON.parse(self[0].contents)); } catch (error) { }
  return %s;
}"""


@dataclass
class Step:
    """One task of a workflow, bound to what will run. special: its definition, with members for multiplex ports."""

    name: str
    definition: Cwl
    request: dict[str, Any]
    image: str
    timeout: int
    domain: str = "default"
    own_command: list[str] | None = None
    special: Cwl = field(default_factory=dict)

    @property
    def persisted(self) -> set[str]:
        """The names of the outputs that are kept."""
        return {output["name"] for output in self.request["outputs"] if output.get("persist")}


def alone(definition: Cwl, own_command: list[str] | None) -> Step:
    """A task without a workflow. own_command: see limited_command."""
    image, timeout = container_properties(definition)["image"], timeout_of(definition)
    return Step(definition["name"], definition, {}, image, timeout, "", own_command, definition)


def cwl_ids(names: list[str], taken: tuple[str, ...] = ()) -> dict[str, str]:
    """A CWL identifier for each name: itself where that is allowed, else with underscores; no two are equal.

    A dot is not allowed: it joins step and port in a workflow's ids, which so are no step's and no other port's.
    """
    ids: dict[str, str] = {}
    used = set(taken)
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9_-]", "_", name)
        plain = plain if re.match(r"[A-Za-z_]", plain) else f"_{plain}"
        candidate, number = plain, 2
        while candidate in used:
            candidate, number = f"{plain}_{number}", number + 1
        used.add(candidate)
        ids[name] = candidate
    return ids


def is_string(port: dict[str, Any]) -> bool:
    """Whether a port carries a string; everything else is a directory (old tasks say `image`)."""
    return port.get("type") == "string"


def input_ports(definition: Cwl) -> list[dict[str, Any]]:
    """The declared input ports."""
    return list(definition.get("inputPortDescriptors") or [])


def output_ports(definition: Cwl) -> list[dict[str, Any]]:
    """The declared output ports."""
    return list(definition.get("outputPortDescriptors") or [])


def port_ids(definition: Cwl) -> tuple[dict[str, str], dict[str, str]]:
    """CWL identifiers of the input ports and of the output ports: port name -> id."""
    inputs = cwl_ids([port["name"] for port in input_ports(definition)], RESERVED)
    outputs = cwl_ids([port["name"] for port in output_ports(definition)], (*RESERVED, *inputs.values()))
    return inputs, outputs


def wants_gpu(definition: Cwl, domain: str | None = None) -> bool:
    """Whether a task asks for a GPU, by its container's type or by the domain it runs in."""
    chosen = domain or container_properties(definition).get("domain")
    return container(definition).get("type") == "GPUDOCKER" or chosen in GPU_DOMAINS


def gpu_hint(step: Step) -> Cwl:
    """The hints of a task's tool."""
    return CUDA if wants_gpu(step.definition, step.domain) else {}


def timeout_of(definition: Cwl) -> int:
    """Seconds that a task may take."""
    return int((definition.get("properties") or {}).get("timeout") or 7200)


def member_definition(definition: Cwl, inputs: list[str], outputs: list[str]) -> Cwl:
    """The definition with each multiplex port replaced by the members that a workflow names."""
    special = dict(definition)
    for key, names in (("inputPortDescriptors", inputs), ("outputPortDescriptors", outputs)):
        ports = definition.get(key) or []
        owners = {name: owner_of(name, ports) or {} for name in names}
        special[key] = [port for port in ports if not port.get("multiplex")] + [
            {**port, "name": name, "multiplex": False, "required": False}
            for name, port in owners.items()
            if port.get("multiplex")
        ]
    return special


def input_entry(port: dict[str, Any], identifier: str, work: str) -> Any:
    """How a directory input port is laid out below `work`input, read-only as in the local worker."""
    reference = f'inputs["{identifier}"]'
    if port.get("multiplex"):
        name = json.dumps(f"{work}input/{port['name']}")
        return (
            f"${{ return ({reference} || []).map(function (folder, index) "
            f"{{ return {{entryname: {name} + (index + 1), entry: folder}}; }}); }}"
        )
    return {"entryname": escaped(f"{work}input/{port['name']}"), "entry": f"$({reference})"}


def strings_expression(strings: dict[str, str]) -> str:
    """The content of input/ports.json, without the ports that were not given. strings: port name -> CWL id.

    The values of a multiplex port are numbered from 1, as its directories are.
    """
    pairs = json.dumps(list(strings.items()))
    return (
        f"${{ var values = {{}}; {pairs}.forEach(function (pair) {{ var given = inputs[pair[1]]; "
        "if (Array.isArray(given)) { given.forEach(function (one, index) { values[pair[0] + (index + 1)] = one; }); } "
        "else if (given !== null && given !== undefined) { values[pair[0]] = given; } }); "
        "return JSON.stringify(values); }"
    )


def input_entries(definition: Cwl, work: str = "", strings: str | None = None) -> list[Any]:
    """What a task finds when it starts: the directories and strings of its inputs.

    work: stands before the paths; strings: the content of input/ports.json, where it is known before the start.
    """
    inputs, _ = port_ids(definition)
    folders = [port for port in input_ports(definition) if not is_string(port)]
    texts = {port["name"]: inputs[port["name"]] for port in input_ports(definition) if is_string(port)}
    return [
        *(input_entry(port, inputs[port["name"]], work) for port in folders),
        {"entryname": f"{work}input/ports.json", "entry": escaped(strings) if strings else strings_expression(texts)},
        {"entryname": f"{work}gbdx_runtime.json", "entry": "{}\n"},
    ]


def empty_folder(path: str) -> Cwl:
    """An entry for a folder that a task fills; not writable, it would silently never be made."""
    literal = json.dumps({"class": "Directory", "basename": path.rsplit("/", 1)[-1], "listing": []})
    return {"entryname": path, "entry": f"$({literal})", "writable": True}


def described(port: dict[str, Any]) -> Cwl:
    """Label and documentation of a port."""
    return {"label": port["name"], "doc": port.get("description") or f"The port {port['name']}."}


def input_parameter(port: dict[str, Any]) -> Cwl:
    """An input port as a CWL input parameter."""
    kinds: list[Any] = ["string", "boolean"] if is_string(port) else ["Directory"]
    if port.get("multiplex"):
        kinds = [{"type": "array", "items": kinds}]
    if not port.get("required"):
        kinds = ["null", *kinds]
    return {"type": kinds if len(kinds) > 1 else kinds[0], **described(port)}


def string_output(port: dict[str, Any], kinds: tuple[str, ...]) -> Cwl:
    """A string output port: its value in output/ports.json, all values in the order of their names when multiplex.

    kinds: the types of CWL that it may have; a value of another type becomes a string.
    """
    name = json.dumps(port["name"])
    types: list[Any] = list(kinds)
    found = f"kept(values[{name}])"
    if port.get("multiplex"):
        types = [{"type": "array", "items": types}]
        member = f"name.indexOf({name}) === 0 && name !== {name}"
        found = f"Object.keys(values).filter(function (name) {{ return {member}; }}).sort()"
        found += ".map(function (name) { return kept(values[name]); })"
    binding = {
        "glob": "output/ports.json",
        "loadContents": True,
        "outputEval": STRING_EXPRESSION % (HALF_PAIR, json.dumps(kinds), found),
    }
    return {"type": ["null", *types], "outputBinding": binding, **described(port)}


def collected(kind: str, pattern: str, basename: str) -> Cwl:
    """A file or folder that may be there; renamed, as equal names of two steps' outputs would collide."""
    named = f"${{ if (self.length) {{ self[0].basename = {json.dumps(basename)}; }} return self[0] || null; }}"
    return {"type": ["null", kind], "outputBinding": {"glob": pattern, "outputEval": named}}


def folder_pattern(name: str) -> str:
    """The glob of an output directory, in which neither a wildcard nor an expression of CWL is found."""
    return "output/" + escaped(glob.escape(name))


def output_parameter(port: dict[str, Any], prefix: str, kinds: tuple[str, ...] = ("string", "boolean")) -> Cwl:
    """An output port as an optional CWL output parameter. prefix: see run_tool; kinds: see string_output."""
    if is_string(port):
        return string_output(port, kinds)
    pattern = folder_pattern(port["name"])
    if port.get("multiplex"):
        # Of what begins with the name: a port called `p` doesn't mean the file ports.json.
        folders = '$(self.filter(function (one) { return one.class === "Directory"; }))'
        return {
            "type": ["null", {"type": "array", "items": "Directory"}],
            "outputBinding": {"glob": pattern + "?*", "outputEval": folders},
            **described(port),
        }
    return collected("Directory", pattern, prefix + port["name"]) | described(port)


def record_outputs(definition: Cwl, prefix: str) -> Cwl:
    """The outputs that every task has: what became of it, its exit code and logs."""
    expected = [port for port in output_ports(definition) if not port.get("multiplex") and port.get("required", True)]
    folders = [folder_pattern(port["name"]) for port in expected if not is_string(port)]
    globs = [EXIT_FILE, "status.json", "output/ports.json", *folders]
    expression = STATUS_EXPRESSION % (HALF_PAIR, json.dumps({port["name"]: is_string(port) for port in expected}))
    return {
        STATUS: {"type": "string", "outputBinding": {"glob": globs, "loadContents": True, "outputEval": expression}},
        EXIT_CODE: {"type": "int", "outputBinding": {"outputEval": "$(runtime.exitCode)"}},
        STATUS_FILE: collected("File", "status.json", f"{prefix}status.json"),
        STRINGS_FILE: collected("File", "output/ports.json", f"{prefix}ports.json"),
        STDOUT: collected("File", prefix + STDOUT_FILE, f"{prefix}stdout.txt"),
        STDERR: collected("File", prefix + STDERR_FILE, f"{prefix}stderr.txt"),
    }


def command_of(step: Step) -> list[str]:
    """The words of a task's command, without one those of its image's CMD."""
    return shlex.split(container(step.definition).get("command") or "") or step.own_command or []


def limited_command(step: Step) -> list[str]:
    """The command behind `timeout`, which ends it inside its container; an engine's own limit ends only the client.

    The step's own_command is the image's CMD, for a definition without a command; None when the command can't be
    prefixed, because the image has an entry point that would take `timeout` for an argument.
    """
    command = command_of(step)
    if step.own_command is None or not command:
        return command
    return ["timeout", "-k", str(GRACE), str(step.timeout), *RECORDER, *command]


def known_strings(step: Step) -> str | None:
    """The content of input/ports.json, where no task feeds it: an expression would cost a process of node."""
    strings = {port["name"] for port in input_ports(step.special) if is_string(port)}
    given = [entry for entry in step.request["inputs"] if entry["name"] in strings]
    if any("source" in entry for entry in given):
        return None
    return json.dumps({entry["name"]: entry["value"] for entry in given})


def skeleton(step: Step, identifier: str, listing: list[Any], words: list[str], **docker: str) -> Cwl:
    """What a task's CommandLineTool has in every layout.

    listing: what lies there when it starts; words: the command line; docker: more of the DockerRequirement.
    """
    return {
        "class": "CommandLineTool",
        "id": identifier,
        "label": step.definition["name"],
        "doc": step.definition.get("description") or step.definition["name"],
        "requirements": {
            "DockerRequirement": {"dockerPull": step.image, **docker},
            "InitialWorkDirRequirement": {"listing": listing},
            "InlineJavascriptRequirement": {},
            "ToolTimeLimit": {"timelimit": step.timeout + MARGIN},
        },
        "baseCommand": [],
        "arguments": [{"valueFrom": escaped(word)} for word in words],
    }


def run_tool(step: Step, identifier: str, prefix: str = "") -> Cwl:
    """A task in the "run" layout, for any engine.

    prefix: stands before the names of outputs, so that those of two steps don't collide.
    """
    inputs, outputs = port_ids(step.special)
    listing = [*input_entries(step.special), empty_folder("output")]
    ports = {outputs[port["name"]]: output_parameter(port, prefix) for port in output_ports(step.special)}
    return {
        **skeleton(step, identifier, listing, limited_command(step), dockerOutputDirectory=WORK),
        "hints": gpu_hint(step),
        "successCodes": list(range(256)),
        "stdout": prefix + STDOUT_FILE,
        "stderr": prefix + STDERR_FILE,
        "inputs": {inputs[port["name"]]: input_parameter(port) for port in input_ports(step.special)},
        "outputs": ports | record_outputs(step.special, prefix),
    }


def bare_tool(step: Step, identifier: str) -> Cwl:
    """The same for the engine in this process, which makes output/, watches the time, collects and judges itself.

    It has types only, and loads many times faster.
    """
    listing = input_entries(step.special, strings=known_strings(step))
    full = run_tool(step, identifier)
    types = {
        key: {name: {"type": port["type"]} for name, port in full[key].items() if name not in RESERVED[1:]}
        for key in ("inputs", "outputs")
    }
    return skeleton(step, identifier, listing, command_of(step), dockerOutputDirectory=WORK) | types


def tool(definition: Cwl, own_command: list[str] | None = None) -> Cwl:
    """A definition as a document that stands alone. own_command: see limited_command."""
    [identifier] = cwl_ids([definition["name"]]).values()
    return {
        "cwlVersion": "v1.2",
        "$namespaces": NAMESPACES,
        "gbdx:definition": json.dumps(definition),
        **run_tool(alone(definition, own_command), identifier),
    }


def escaped(word: str) -> str:
    """A word of a command in which CWL finds no expression; without a dollar it is taken as it stands."""
    if "$(" not in word and "${" not in word:
        return word
    return word.replace("\\", "\\\\").replace("$(", "\\$(").replace("${", "\\${")


def definition_of(document: Cwl) -> Cwl:
    """The definition that a tool was made of: the identity on what `tool` returns.

    Raises:
        ValueError: the document was not made here.
    """
    text = document.get("gbdx:definition")
    if not isinstance(text, str):
        raise ValueError("gbdx:definition: expected the definition that the tool was made of, found none")
    found: Cwl = json.loads(text)
    return found
