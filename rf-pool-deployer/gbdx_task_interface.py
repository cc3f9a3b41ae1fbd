"""The GBDX task contract in one class: read the input ports, write the output ports, report how it ended.

The worker lays out one folder for each run, /mnt/work/ unless GBDX_WORK_DIR or an argument names another:

    /mnt/work/input/<port>/       a folder for each directory input port
    /mnt/work/input/ports.json    the string input ports, {"message": "Hi"}
    /mnt/work/gbdx_runtime.json   facts about this run
    /mnt/work/output/<port>/      a folder for each directory output port; the task creates it
    /mnt/work/output/ports.json   the string output ports; written here at the end
    /mnt/work/status.json         {"status": "success" or "failed", "reason": "..."}; written here

A task is a class with an invoke method, and three lines that run it:

    class MyTask(GbdxTaskInterface):
        def invoke(self):
            print(self.get_input_string_port("message", default="No message!"))

    with MyTask() as task:
        task.invoke()
"""

import json
import numbers
import os
import re
import signal
import sys
from abc import ABCMeta

SUCCESS, FAILED = "success", "failed"
STATUS_WORDS = {"success": SUCCESS, "failed": FAILED, "fail": FAILED}
UNFINISHED = "the task did not finish: it was killed, ran out of memory or left without a report"
TERMINATED = "terminated by the worker (SIGTERM), for example at its timeout"
LONGEST_REASON = 2000  # characters


class _ReportsItsConstructor(ABCMeta):
    """Writes status.json when a task's constructor fails, before or after it calls ours.

    It is an ABCMeta so that a task may also inherit from an abstract class.
    """

    def __call__(cls, *args, **kwargs):
        task = None
        try:
            task = cls.__new__(cls, *args, **kwargs)
            cls.__init__(task, *args, **kwargs)
            if not hasattr(task, "_base_path"):
                raise TypeError(f"{cls.__name__}.__init__: expected a call of super().__init__(), found none")
        except BaseException as error:
            work_path = getattr(task, "_base_path", None) or _work_path(kwargs.get("work_path"))
            if os.path.isdir(work_path):
                _write_status(os.path.join(work_path, "status.json"), FAILED, _reason_of(error))
            raise
        return task


class GbdxTaskInterface(metaclass=_ReportsItsConstructor):
    """One run of one task. A subclass defines invoke; `with` reports the end, whatever it is.

    work_path: the run's folder, which must exist; when not given, the environment variable GBDX_WORK_DIR, else
    /mnt/work/. FileNotFoundError when there is none, ValueError when its ports.json isn't a JSON object.

    When exactly one *_definition.json lies next to the task's script, its required input ports are enforced.
    """

    def __init__(self, work_path=None):
        self._base_path = _work_path(work_path)
        if not os.path.isdir(self._base_path):
            raise FileNotFoundError(
                f"work_path: expected a directory at {self._base_path}, found none; "
                "GBDX_WORK_DIR=<directory> runs a task on another one"
            )
        self._process = os.getpid()
        self._terminated = False
        self._previous_sigterm = None
        # Absolute, because a task may change its working directory.
        self._status_file = os.path.abspath(os.path.join(self._base_path, "status.json"))
        self._output_ports_file = os.path.abspath(os.path.join(self.output_path, "ports.json"))
        # True until something better is known: nothing can be written after SIGKILL or os._exit.
        _write_status(self._status_file, FAILED, UNFINISHED)
        self._status, self._reason = SUCCESS, ""
        self._string_inputs = _read_json_object(os.path.join(self.input_path, "ports.json"))
        self._string_outputs = {}
        self._declared = _declared_input_ports(type(self))

    @property
    def base_path(self):
        """The run's folder, spelled as it was given."""
        return self._base_path

    @property
    def input_path(self):
        """The folder that holds the input ports."""
        return os.path.join(self._base_path, "input")

    @property
    def output_path(self):
        """The folder that holds the output ports."""
        return os.path.join(self._base_path, "output")

    @property
    def status(self):
        """How the task ends when no exception leaves it: "success" (the default) or "failed"."""
        return self._status

    @status.setter
    def status(self, word):
        status = STATUS_WORDS.get(str(word).lower())
        if status is None:
            self._status, self._reason = FAILED, f"status: expected 'success' or 'failed', found {word!r}"
            _write_status(self._status_file, self._status, self._reason)
            raise ValueError(self._reason)
        self._status = status

    @property
    def reason(self):
        """The sentence that goes with the status; the platform shows it as the task's note."""
        return self._reason

    @reason.setter
    def reason(self, sentence):
        self._reason = str(sentence)

    def get_input_string_port(self, port_name, default=None):
        """The value of a string input port as ports.json has it (a string; true and false come as bool), else default.

        ValueError when the port is absent, declared as required, and no default is given.
        """
        _check_port_name(port_name)
        if port_name not in self._string_inputs and default is None and self._is_required(port_name):
            found = ", ".join(sorted(self._string_inputs)) or "no string port"
            raise ValueError(
                f"input port {port_name!r}: expected a value in {self.input_path}/ports.json, found: {found}"
            )
        return self._string_inputs.get(port_name, default)

    def get_input_data_port(self, port_name, default=None):
        """The path of a directory input port when it is a directory, else default.

        FileNotFoundError when it is not, the port is declared as required, and no default is given.
        """
        _check_port_name(port_name)
        path = os.path.join(self.input_path, port_name)
        if os.path.isdir(path):
            return path
        if default is None and self._is_required(port_name):
            found = "a file with that name" if os.path.lexists(path) else _names_in(self.input_path)
            raise FileNotFoundError(f"input port {port_name!r}: expected a directory at {path}, found: {found}")
        return default

    def get_multiplex_input_data_port(self, port_name_prefix):
        """The directories of a multiplex input port: a list of paths in natural order (data2 before data10).

        A directory counts when its name is the prefix and something more. Where the definition declares the prefix,
        anything may follow, but the declared name of another port or a longer multiplex prefix that fits takes
        precedence. Where it does not, only a number may follow (data1, data_2, data-03), as data_mask may well be
        another port. FileNotFoundError when there is none and the port is declared as required.
        """
        prefix = _check_port_name(port_name_prefix)
        names = os.listdir(self.input_path) if os.path.isdir(self.input_path) else []
        members = sorted((name for name in names if self._is_multiplex_member(name, prefix)), key=_natural_order)
        paths = [os.path.join(self.input_path, name) for name in members]
        folders = [path for path in paths if os.path.isdir(path)]
        if not folders and self._is_required(prefix):
            raise FileNotFoundError(
                f"input port {prefix!r}: expected one or more directories named {self.input_path}/{prefix}..., "
                f"found: {_names_in(self.input_path)}"
            )
        return folders

    def get_output_data_port(self, port_name):
        """The path of a directory output port. The task creates the directory."""
        return os.path.join(self.output_path, _check_port_name(port_name))

    def set_output_string_port(self, port_name, value):
        """Keeps a value for output/ports.json: a string or a bool as it is, a number as a string, else TypeError."""
        _check_port_name(port_name)
        if not isinstance(value, (str, bool, numbers.Number)):
            raise TypeError(
                f"output port {port_name!r}: expected a string, a boolean or a number, found {type(value).__name__}"
            )
        self._string_outputs[port_name] = value if isinstance(value, (str, bool)) else str(value)

    def get_runtime_info(self, runtime_attr, default=None):
        """A value of gbdx_runtime.json (for example user_token), else default. ValueError when the file is corrupt."""
        return _read_json_object(os.path.join(self._base_path, "gbdx_runtime.json")).get(runtime_attr, default)

    def invoke(self):
        """What the task does; every task defines its own."""
        raise NotImplementedError(f"{type(self).__name__}: expected an invoke method, found none")

    def finalize(self, success_or_fail, message=""):
        """Writes output/ports.json when there are string outputs, then status.json. The context manager calls this."""
        if os.getpid() != self._process:
            return  # a forked child's end is not the task's
        self.status = success_or_fail
        self.reason = message
        try:
            if self._string_outputs:
                os.makedirs(os.path.dirname(self._output_ports_file), exist_ok=True)
                _write_json(self._output_ports_file, self._string_outputs)
        except OSError as error:
            if self._status == SUCCESS:
                _write_status(self._status_file, FAILED, f"string output ports: {_reason_of(error)}")
                raise
        _write_status(self._status_file, self._status, self._reason)

    def __enter__(self):
        try:
            self._previous_sigterm = signal.signal(signal.SIGTERM, self._terminate)
        except ValueError:
            self._previous_sigterm = None  # only the main thread may handle signals
        return self

    def __exit__(self, error_type, error, traceback):
        if self._previous_sigterm is not None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the report must not be interrupted
        try:
            self._report(error)
        finally:
            if self._previous_sigterm is not None:
                signal.signal(signal.SIGTERM, self._previous_sigterm)
        if self._terminated and error is None:  # the task caught the SystemExit and went on
            raise SystemExit(128 + signal.SIGTERM)

    def _report(self, error):
        if self._terminated:
            self.finalize(FAILED, TERMINATED)
            print(f"{type(self).__name__}: {TERMINATED}", file=sys.stderr)
        elif error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
            self.finalize(self._status, self._reason)
        else:
            self.finalize(FAILED, _reason_of(error))  # it goes on from here; Python prints the traceback

    def _terminate(self, signal_number, frame):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not break into the task's own clean-up
        self._terminated = True
        raise SystemExit(128 + signal_number)

    def _is_required(self, port_name):
        return self._declared.get(port_name, {}).get("required") is True

    def _is_multiplex_member(self, name, prefix):
        if not name.startswith(prefix) or name in self._declared:
            return False
        prefixes = [port for port, facts in self._declared.items() if facts.get("multiplex") is True]
        if prefix not in prefixes:
            return name[len(prefix) :].lstrip("_-").isdecimal()
        return max((port for port in prefixes if name.startswith(port)), key=len) == prefix


def _work_path(given):
    return os.fspath(given or os.environ.get("GBDX_WORK_DIR") or "/mnt/work/")


def _check_port_name(name):
    if not isinstance(name, str) or name in {"", ".", ".."} or re.search(r"[/\\\0]", name):
        raise ValueError(f"port {name!r}: expected a name without a path separator")
    return name


def _declared_input_ports(task_class):
    """{port name: port} of the one *_definition.json next to the script that defines the task, else {}."""
    script = getattr(sys.modules.get(task_class.__module__), "__file__", None)
    folder = os.path.dirname(os.path.abspath(script)) if script else ""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    definitions = [name for name in names if name.endswith("_definition.json") and not name.startswith(".")]
    if len(definitions) != 1:
        return {}
    ports = _read_json_object(os.path.join(folder, definitions[0])).get("inputPortDescriptors") or []
    return {port["name"]: port for port in ports if isinstance(port, dict) and "name" in port}


def _names_in(folder):
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    return ", ".join(names) or "nothing"


def _natural_order(name):
    """A sorting key: 'data10' -> (['data', 10, ''], 'data10'), so that 2 comes before 10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)], name


def _reason_of(error):
    """What the last line of the traceback says, for example "KeyError: 'data_in'"; sentences for an early exit."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, SystemExit):
        text = error.code if isinstance(error.code, str) else ""
        return text or f"the task called sys.exit({'' if error.code is None else repr(error.code)})"
    module, name = type(error).__module__, type(error).__qualname__
    if module not in ("builtins", "__main__"):
        name = f"{module}.{name}"
    try:
        text = str(error)
    except Exception:
        text = "<its text cannot be printed>"
    return f"{name}: {text}" if text else name


def _read_json_object(path):
    """The JSON object in a file, {} when there is no file. ValueError says why it isn't an object."""
    if not os.path.exists(path):
        return {}
    try:
        with open(path, encoding="utf-8-sig") as file:  # -sig: some editors put a byte order mark first
            content = json.load(file)
    except (ValueError, RecursionError) as error:  # their texts give line and column, or the byte that isn't UTF-8
        raise ValueError(f"{path}: expected a JSON object in UTF-8, found: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object, found: {type(content).__name__}")
    return content


def _write_status(path, status, reason):
    """Writes a status.json that any reader of UTF-8 can take, also when the reason holds a name that isn't UTF-8."""
    if len(reason) > LONGEST_REASON:
        reason = reason[: LONGEST_REASON - 3] + "..."
    _write_json(path, {"status": status, "reason": reason.encode("utf-8", "backslashreplace").decode("utf-8")})


def _write_json(path, content):
    """Replaces a file in one step. Where no second file can be made (full disk) it overwrites the one that is there."""
    text = (json.dumps(content, indent=4, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
    temporary = path + ".tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError:
        if not os.path.isfile(path):
            raise
        with open(path, "r+b") as file:  # r+b keeps the file's blocks, which "wb" would give back to a full disk
            file.write(text)
            file.truncate()
    finally:
        if os.path.isfile(temporary):
            os.remove(temporary)
