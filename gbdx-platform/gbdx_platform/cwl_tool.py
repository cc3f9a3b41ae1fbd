"""A task definition as a CWL v1.2 CommandLineTool, and back.

The layout is the worker's of old: one directory, mounted at /mnt/work, holds input/, output/ and status.json. A failing
task is data, not an error of the engine: every exit code is a success to CWL, every output is optional, and
`gbdx_status` says what became of the task, so that logs survive and dependants can be skipped on any engine.
"""

from __future__ import annotations

import copy
import glob
import json
import re
import shlex
from typing import Any

from gbdx_platform.task_definition import GPU_DOMAINS, container, container_properties

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

# Runs "$@" and records its end. `timeout` is PID 1 around it, so that a signal to the container ends it.
RECORDER = (
    f'trap "late=1" TERM; "$@"; code=$?; [ -z "$late" ] || code={TIMED_OUT}; '
    f"printf '{{\"exit_code\": %s}}' $code >{EXIT_FILE}; exit $code"
)

# gbdx_status in ES5: the exit code, the status word and the declared outputs together, as task_verdict.judge has them.
# A command that had to be killed after its time leaves no record; `timeout` ends with 137 then.
STATUS_EXPRESSION = """${
  var code = runtime.exitCode === 137 ? 124 : runtime.exitCode, word = null, strings = {}, found = {};
  for (var i = 0; i < self.length; i++) {
    found[self[i].basename] = true;
    try {
      if (self[i].basename === "gbdx_exit.json") { code = JSON.parse(self[i].contents).exit_code; }
      if (self[i].basename === "status.json") { word = String(JSON.parse(self[i].contents).status).toLowerCase(); }
      if (self[i].basename === "ports.json") { strings = Object(JSON.parse(self[i].contents)); }
    } catch (error) { strings = {}; }
  }
  if (code === 124) { return "timedout"; }
  if (word === "fail" || word === "failed") { return "failed"; }
  if (word !== "success") { return code === 0 ? "broken contract" : "failed"; }
  if (code !== 0) { return "failed"; }
  var folders = %s, texts = %s;
  for (var f = 0; f < folders.length; f++) { if (!found[folders[f]]) { return "broken contract"; } }
  for (var s = 0; s < texts.length; s++) { if (!strings.hasOwnProperty(texts[s])) { return "broken contract"; } }
  return "success";
}"""

# A string output in ES5: the types that are kept, and what is found in the values of output/ports.json.
STRING_EXPRESSION = """${
  var values = {};
  function kept(value) {
    return value == null ? null : %s.indexOf(typeof value) < 0 ? String(value) : value;
  }
  try { values = Object(JSON.parse(self[0].contents)); } catch (error) { }
  return %s;
}"""


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


def timeout_of(definition: Cwl) -> int:
    """Seconds that a task may take."""
    return int((definition.get("properties") or {}).get("timeout") or 7200)


def member_definition(definition: Cwl, inputs: list[str], outputs: list[str]) -> Cwl:
    """The definition with each multiplex port replaced by the members that a workflow names."""
    special = copy.deepcopy(definition)
    for key, names in (("inputPortDescriptors", inputs), ("outputPortDescriptors", outputs)):
        members = []
        for port in special.get(key) or []:
            if not port.get("multiplex"):
                members.append(port)
                continue
            others = {other["name"] for other in special[key]}
            for name in names:
                if name.startswith(port["name"]) and name != port["name"] and name not in others:
                    members.append({**port, "name": name, "multiplex": False, "required": False})
        special[key] = list({port["name"]: port for port in members}.values())
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


def input_entries(definition: Cwl, work: str = "") -> list[Any]:
    """What a task finds when it starts: the directories and strings of its inputs. work: stands before the paths."""
    inputs, _ = port_ids(definition)
    folders = [port for port in input_ports(definition) if not is_string(port)]
    strings = {port["name"]: inputs[port["name"]] for port in input_ports(definition) if is_string(port)}
    return [
        *(input_entry(port, inputs[port["name"]], work) for port in folders),
        {"entryname": f"{work}input/ports.json", "entry": strings_expression(strings)},
        {"entryname": f"{work}gbdx_runtime.json", "entry": "{}\n"},
    ]


def work_directory(definition: Cwl) -> list[Any]:
    """What /mnt/work holds when a task starts."""
    return [
        *input_entries(definition),
        # Not writable, the empty directory would silently never be made.
        {
            "entryname": "output",
            "entry": '$({"class": "Directory", "basename": "output", "listing": []})',
            "writable": True,
        },
    ]


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
        "outputEval": STRING_EXPRESSION % (json.dumps(kinds), found),
    }
    return {"type": ["null", *types], "outputBinding": binding, **described(port)}


def folder_pattern(name: str) -> str:
    """The glob of an output directory, in which neither a wildcard nor an expression of CWL is found."""
    return "output/" + escaped(glob.escape(name))


def output_parameter(port: dict[str, Any], basename: str, kinds: tuple[str, ...] = ("string", "boolean")) -> Cwl:
    """An output port as an optional CWL output parameter. kinds: see string_output."""
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
    binding = {"glob": pattern}
    if basename != port["name"]:
        # Equal names of two steps' outputs would collide in the folder of results.
        named = json.dumps(basename)
        binding["outputEval"] = f"${{ if (self.length) {{ self[0].basename = {named}; }} return self[0] || null; }}"
    return {"type": ["null", "Directory"], "outputBinding": binding, **described(port)}


def record_outputs(definition: Cwl, prefix: str) -> Cwl:
    """The outputs that every task has: what became of it, its exit code and logs."""
    expected = [port for port in output_ports(definition) if not port.get("multiplex") and port.get("required", True)]
    folders = [port["name"] for port in expected if not is_string(port)]
    texts = [port["name"] for port in expected if is_string(port)]
    globs = [EXIT_FILE, "status.json", "output/ports.json", *map(folder_pattern, folders)]
    expression = STATUS_EXPRESSION % (json.dumps(folders), json.dumps(texts))

    def file(pattern: str, name: str) -> Cwl:
        named = json.dumps(prefix + name)
        evaluated = f"${{ if (self.length) {{ self[0].basename = {named}; }} return self[0] || null; }}"
        return {"type": ["null", "File"], "outputBinding": {"glob": pattern, "outputEval": evaluated}}

    return {
        STATUS: {"type": "string", "outputBinding": {"glob": globs, "loadContents": True, "outputEval": expression}},
        EXIT_CODE: {"type": "int", "outputBinding": {"outputEval": "$(runtime.exitCode)"}},
        STATUS_FILE: file("status.json", "status.json"),
        STRINGS_FILE: file("output/ports.json", "ports.json"),
        STDOUT: file(prefix + STDOUT_FILE, "stdout.txt"),
        STDERR: file(prefix + STDERR_FILE, "stderr.txt"),
    }


def limited_command(definition: Cwl, timeout: int, own_command: list[str] | None, bare: bool) -> list[str]:
    """The command behind `timeout`, which ends it inside its container; an engine's own limit ends only the client.

    own_command is the image's CMD, for a definition without a command; None when the command can't be prefixed,
    because the image has an entry point that would take `timeout` for an argument. bare: without a record of its end.
    """
    command = shlex.split(container(definition).get("command") or "") or own_command or []
    if own_command is None or not command:
        return shlex.split(container(definition).get("command") or "")
    recorder = [] if bare else ["sh", "-c", RECORDER, "task"]
    return ["timeout", "-k", str(GRACE), str(timeout), *recorder, *command]


def tool(
    definition: Cwl,
    image: str | None = None,
    timeout: int | None = None,
    own_command: list[str] | None = None,
    prefix: str = "",
    domain: str | None = None,
    bare: bool = False,
) -> Cwl:
    """A definition as a CommandLineTool in the "run" layout.

    Args:
        definition: a definition without errors.
        image: what is run, for example an image id; the definition's when not given.
        timeout: seconds; the definition's when not given.
        own_command: see limited_command.
        prefix: stands before the names of outputs, so that those of two steps don't collide.
        domain: of the workflow's task, in place of the definition's.
        bare: without what the engine in this process judges and collects itself; it loads many times faster.
    """
    seconds = timeout or timeout_of(definition)
    inputs, outputs = port_ids(definition)
    requirements: Cwl = {
        "DockerRequirement": {
            "dockerPull": image or container_properties(definition)["image"],
            "dockerOutputDirectory": WORK,
        },
        "InitialWorkDirRequirement": {"listing": work_directory(definition)},
        "InlineJavascriptRequirement": {},
        "ToolTimeLimit": {"timelimit": seconds + MARGIN},
    }
    command = limited_command(definition, seconds, own_command, bare)
    document = {
        "cwlVersion": "v1.2",
        "class": "CommandLineTool",
        "id": cwl_ids([definition["name"]])[definition["name"]],
        "label": definition["name"],
        "doc": definition.get("description") or definition["name"],
        "$namespaces": NAMESPACES,
        "gbdx:definition": json.dumps(definition),
        "requirements": requirements,
        "hints": CUDA if wants_gpu(definition, domain) else {},
        "baseCommand": [],
        "arguments": [{"valueFrom": escaped(word)} for word in command],
        "successCodes": list(range(256)),
        "stdout": prefix + STDOUT_FILE,
        "stderr": prefix + STDERR_FILE,
        "inputs": {inputs[port["name"]]: input_parameter(port) for port in input_ports(definition)},
        "outputs": {
            **{
                outputs[port["name"]]: output_parameter(port, prefix + port["name"])
                for port in output_ports(definition)
            },
            **record_outputs(definition, prefix),
        },
    }
    return without_record(document) if bare else document


def without_record(document: Cwl) -> Cwl:
    """The tool with types only: what runs it makes output/, knows where outputs lie and what they are worth."""
    work = document["requirements"]["InitialWorkDirRequirement"]
    work["listing"] = [entry for entry in work["listing"] if not (isinstance(entry, dict) and entry.get("writable"))]
    for key in ("successCodes", "stdout", "stderr", "label", "doc", "hints"):
        document.pop(key)
    for key in ("inputs", "outputs"):
        document[key] = {name: {"type": port["type"]} for name, port in document[key].items()}
    document["outputs"] = {name: port for name, port in document["outputs"].items() if name not in RESERVED[1:]}
    return document


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
