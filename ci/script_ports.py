"""Find the ports that a task's scripts read and write, without running them.

A port's name is often not written in the call itself: it may be a constant, the variable of a loop over a literal
tuple or dict, or the argument of a helper function. `port_calls` follows these back to the literals; what it cannot
follow comes back with the name None.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, Union


class PortMethod(NamedTuple):
    """What a method of GbdxTaskInterface says about the port that it is called with."""

    direction: Literal["input", "output"]
    type: Literal["directory", "string"]
    multiplex: bool = False


METHODS = {
    "get_input_data_port": PortMethod("input", "directory"),
    "get_input_string_port": PortMethod("input", "string"),
    "get_multiplex_input_data_port": PortMethod("input", "directory", multiplex=True),
    "get_output_data_port": PortMethod("output", "directory"),
    "set_output_string_port": PortMethod("output", "string"),
}
ANY_END = "*"  # ends a name of which only the beginning is known, as in f"result_{index}"

_Function = (ast.FunctionDef, ast.AsyncFunctionDef)
_Comprehension = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_Sequence = (ast.Tuple, ast.List, ast.Set)
_SAME_ELEMENTS = ("sorted", "list", "tuple", "set", "reversed", "iter", "frozenset")
_FunctionNode = Union[ast.FunctionDef, ast.AsyncFunctionDef]
_Origins = Union[list[ast.expr], None]  # None: cannot be followed
_Path = tuple[int, ...]  # which element of a tuple, of a tuple in it, ...


@dataclass(frozen=True)
class PortCall:
    """One port that one call of a port method names. `default` is the call's literal default, None when not known."""

    file: str
    line: int
    method: str
    name: str | None
    default: object = None


def port_calls(scripts: dict[str, ast.Module]) -> list[PortCall]:
    """List the port calls of {file name: parsed script}, in the order of files and lines."""
    program = _Program(scripts)
    calls = [call for file, tree in scripts.items() for call in program.calls_in(file, tree)]
    return sorted(set(calls), key=lambda call: (call.file, call.line, call.name or ""))


class _Program:
    """The scripts of one folder, indexed so that a name can be followed to the expressions it may stand for."""

    def __init__(self, scripts: dict[str, ast.Module]) -> None:
        self.parents: dict[ast.AST, ast.AST] = {}
        self.calls: dict[str, list[ast.Call]] = {}
        self.functions: set[str] = set()
        self.files = {file.rsplit(".", 1)[0] for file in scripts}
        self.modules = list(scripts.values())
        for tree in self.modules:
            for node in ast.walk(tree):
                self.parents.update((child, node) for child in ast.iter_child_nodes(node))
                if isinstance(node, ast.Call):
                    self.calls.setdefault(_called_name(node), []).append(node)
                elif isinstance(node, _Function):
                    self.functions.add(node.name)

    def calls_in(self, file: str, tree: ast.Module) -> Iterator[PortCall]:
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                methods = self.methods_of(node)
                default = _literal(_argument(node, 1, "default"))
                for method in methods:
                    # Where a variable may hold several methods, which name goes with which is not known.
                    names = self.names(_argument(node, 0, _name_parameter(method))) if len(methods) == 1 else [None]
                    for name in names:
                        yield PortCall(file, node.lineno, method, name, default)
            elif isinstance(node, ast.Attribute) and node.attr in METHODS and not self.is_followed(node):
                yield PortCall(file, node.lineno, node.attr, None)

    def methods_of(self, call: ast.Call) -> set[str]:
        """Return the port methods that a call may reach: by its name, or through a variable that holds the method."""
        if isinstance(call.func, ast.Attribute):
            return {call.func.attr} & METHODS.keys()
        if isinstance(call.func, ast.Name):
            origins = self.origins(call.func) or []
            return {origin.attr for origin in origins if isinstance(origin, ast.Attribute)} & METHODS.keys()
        return set()

    def is_followed(self, method: ast.Attribute) -> bool:
        """Say whether a mention of a port method is a call, or leads to one through a variable or a helper."""
        parent = self.parents[method]
        if isinstance(parent, ast.Call) and parent.func is not method:
            return _called_name(parent) in self.functions
        return isinstance(parent, (ast.Call, ast.Assign))

    def names(self, node: ast.expr | None) -> list[str | None]:
        found = self.strings(node, frozenset()) if node is not None else None
        return [None] if found is None else [*sorted(found)]

    def strings(self, node: ast.expr, seen: frozenset[ast.AST]) -> set[str] | None:
        """Return every string that an expression may be, or None."""
        origins = self.origins(node, seen)
        if origins is None:
            return None
        found: set[str] = set()
        for origin in origins:
            strings = self.written(origin, seen | {node})
            if strings is None:
                return None
            found |= strings
        return found

    def written(self, node: ast.expr, seen: frozenset[ast.AST]) -> set[str] | None:
        """Return the strings that a literal, an f-string or a sum of strings may be, or None."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return {node.value}
        if isinstance(node, ast.FormattedValue):
            return self.strings(node.value, seen) if node.conversion == -1 and node.format_spec is None else None
        if isinstance(node, ast.JoinedStr):
            parts = node.values
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            parts = [node.left, node.right]
        else:
            return None
        begun = {""}
        for part in parts:
            ends = self.strings(part, seen)
            begun = {begin + end for begin in begun for end in ends or {ANY_END} if not begin.endswith(ANY_END)} | {
                begin for begin in begun if begin.endswith(ANY_END)
            }
        return None if ANY_END in begun else begun

    def origins(self, node: ast.expr, seen: frozenset[ast.AST] = frozenset()) -> _Origins:
        """Return the expressions that a name, attribute or subscript may stand for; other expressions are their own."""
        if node in seen:
            return []
        seen |= {node}
        if isinstance(node, ast.Name):
            return self.bound(node, seen)
        if isinstance(node, ast.Attribute) and node.attr not in METHODS:
            return self.union([self.origins(value, seen) for value in self.attribute_values(node.attr)])
        if isinstance(node, ast.Subscript):
            return self.subscripted(node, seen)
        if isinstance(node, ast.IfExp):
            return self.union([self.origins(node.body, seen), self.origins(node.orelse, seen)])
        return [node]

    @staticmethod
    def union(several: list[_Origins]) -> _Origins:
        known = [origins for origins in several if origins is not None]
        return [node for origins in known for node in origins] if several and len(known) == len(several) else None

    def attribute_values(self, name: str) -> list[ast.expr]:
        """Return what is assigned to `self.<name>`, or to <name> in a class or at the top of a module."""
        return [
            value
            for module in self.modules
            for target, value in _assignments(module)
            if (isinstance(target, ast.Attribute) and target.attr == name)
            or (isinstance(target, ast.Name) and target.id == name and self.function_of(target) is None)
        ]

    def subscripted(self, node: ast.Subscript, seen: frozenset[ast.AST]) -> _Origins:
        key = _literal(node.slice)
        found: list[_Origins] = []
        for holder in self.origins(node.value, seen) or [node]:
            if isinstance(holder, ast.Dict) and key is not None:
                found += [
                    self.origins(value, seen)
                    for name, value in zip(holder.keys, holder.values)
                    if name is not None and _literal(name) == key
                ]
            elif isinstance(holder, (ast.Tuple, ast.List)) and isinstance(key, int):
                found.append(self.picked(holder, (key,), seen))
            else:
                return None
        return self.union(found)

    def bound(self, name: ast.Name, seen: frozenset[ast.AST]) -> _Origins:
        """Follow a variable through the scopes around it: comprehension, function, module, the other modules."""
        scope: ast.AST | None = name
        while scope is not None:
            scope = self.parents.get(scope)
            if isinstance(scope, _Comprehension):
                found = [
                    self.elements(loop.iter, path, seen)
                    for loop in scope.generators
                    for path in _paths(loop.target, name.id)
                ]
            elif isinstance(scope, _Function):
                found = self.bound_in(scope, name.id, seen) + self.arguments(scope, name.id, seen)
            elif isinstance(scope, ast.Module):
                found = self.bound_in(scope, name.id, seen)
            else:
                continue
            if found:
                return self.union(found)
        return self.union([found for module in self.modules for found in self.bound_in(module, name.id, seen)])

    def bound_in(self, scope: ast.AST, name: str, seen: frozenset[ast.AST]) -> list[_Origins]:
        """Return what assignments and loops of a scope, functions within left out, bind to a name."""
        owner = scope if isinstance(scope, _Function) else None
        found: list[_Origins] = []
        for target, value in _assignments(scope):
            if self.function_of(target) is owner:
                found += [self.picked(value, path, seen) for path in _paths(target, name)]
        for node in ast.walk(scope):
            if isinstance(node, ast.For) and self.function_of(node) is owner:
                found += [self.elements(node.iter, path, seen) for path in _paths(node.target, name)]
        return found

    def function_of(self, node: ast.AST) -> _FunctionNode | None:
        while node in self.parents:
            node = self.parents[node]
            if isinstance(node, _Function):
                return node
        return None

    def arguments(self, function: _FunctionNode, name: str, seen: frozenset[ast.AST]) -> list[_Origins]:
        """Return what the calls of a function give for one of its parameters, by place, by name or by default."""
        places = [parameter.arg for parameter in function.args.posonlyargs + function.args.args]
        named = [parameter.arg for parameter in function.args.kwonlyargs]
        if name not in places + named:
            return []
        fallback = _defaults(function).get(name)
        place = places.index(name) if name in places else None
        if place is not None and isinstance(self.parents.get(function), ast.ClassDef) and not _is_static(function):
            place -= 1
        found: list[_Origins] = []
        for call in self.calls_of(function):
            given = _argument(call, place, name) or fallback
            found.append(None if given is None or _has_star(call) else self.origins(given, seen))
        return found or [None]

    def calls_of(self, function: _FunctionNode) -> list[ast.Call]:
        """Return the calls of a function as `helper()` or `module.helper()`, of a method as `self.helper()`."""
        is_method = isinstance(self.parents.get(function), ast.ClassDef)
        owners = {"self", "cls", "task"} if is_method else self.files
        found = []
        for call in self.calls.get(function.name, []):
            owner = call.func.value if isinstance(call.func, ast.Attribute) else None
            if (owner is None and not is_method) or (isinstance(owner, ast.Name) and owner.id in owners):
                found.append(call)
        return found

    def picked(self, node: ast.expr, path: _Path, seen: frozenset[ast.AST]) -> _Origins:
        """Return the element of a tuple that a path leads to; the empty path is the expression itself."""
        origins = self.origins(node, seen)
        if not path or origins is None:
            return origins
        found: list[_Origins] = []
        for origin in origins:
            is_long_enough = isinstance(origin, (ast.Tuple, ast.List)) and len(origin.elts) > path[0]
            found.append(self.picked(origin.elts[path[0]], path[1:], seen) if is_long_enough else None)  # type: ignore[attr-defined]
        return self.union(found)

    def elements(self, node: ast.expr, path: _Path, seen: frozenset[ast.AST]) -> _Origins:
        """Return what a loop over an expression gives to the variable at a path of the loop's target."""
        origins = self.origins(node, seen)
        if origins is None:
            return None
        return self.union([self.elements_of(origin, path, seen) for origin in origins])

    def elements_of(self, node: ast.expr, path: _Path, seen: frozenset[ast.AST]) -> _Origins:
        if isinstance(node, _Sequence):
            return self.union([self.picked(element, path, seen) for element in node.elts])
        if isinstance(node, ast.Dict):
            return self.elements_of_dict(node, "keys", path, seen)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return self.union([self.elements(node.left, path, seen), self.elements(node.right, path, seen)])
        if isinstance(node, ast.Call):
            return self.elements_of_call(node, path, seen)
        return None

    def elements_of_call(self, call: ast.Call, path: _Path, seen: frozenset[ast.AST]) -> _Origins:
        name = _called_name(call)
        if isinstance(call.func, ast.Attribute) and name in ("items", "keys", "values") and not call.args:
            return self.elements_of_dict(call.func.value, name, path, seen)
        if name in _SAME_ELEMENTS and call.args:
            return self.elements(call.args[0], path, seen)
        if name == "enumerate" and call.args and path[:1] == (1,):
            return self.elements(call.args[0], path[1:], seen)
        if name == "zip" and path and len(call.args) > path[0]:
            return self.elements(call.args[path[0]], path[1:], seen)
        return None

    def elements_of_dict(self, node: ast.expr, view: str, path: _Path, seen: frozenset[ast.AST]) -> _Origins:
        wants_values = view == "values" or (view == "items" and path[:1] == (1,))
        path = path[1:] if view == "items" else path
        found: list[_Origins] = []
        for holder in self.origins(node, seen) or [node]:
            if not isinstance(holder, ast.Dict) or None in holder.keys:
                return None
            members = holder.values if wants_values else [key for key in holder.keys if key is not None]
            found += [self.picked(member, path, seen) for member in members]
        return self.union(found)


def _called_name(call: ast.Call) -> str:
    func = call.func
    return func.id if isinstance(func, ast.Name) else func.attr if isinstance(func, ast.Attribute) else ""


def _name_parameter(method: str) -> str:
    return "port_name_prefix" if METHODS[method].multiplex else "port_name"


def _argument(call: ast.Call, place: int | None, name: str) -> ast.expr | None:
    """Return the argument of a call at a place or with a name; None when it isn't given or comes from a * argument."""
    if place is not None and place < len(call.args):
        return None if _has_star(call) else call.args[place]
    return next((keyword.value for keyword in call.keywords if keyword.arg == name), None)


def _has_star(call: ast.Call) -> bool:
    return any(isinstance(argument, ast.Starred) for argument in call.args)


def _literal(node: ast.expr | None) -> object:
    return node.value if isinstance(node, ast.Constant) else None


def _assignments(scope: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Yield (target, value) of each assignment below a node."""
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign):
            yield from ((target, node.value) for target in node.targets)
        elif isinstance(node, (ast.AnnAssign, ast.AugAssign, ast.NamedExpr)) and node.value is not None:
            yield node.target, node.value


def _paths(target: ast.expr, name: str) -> Iterator[_Path]:
    """Yield where a name stands in a target: () for `name`, (0,) for `name, x`, (1, 0) for `x, (name, y)`."""
    if isinstance(target, ast.Name) and target.id == name:
        yield ()
    elif isinstance(target, (ast.Tuple, ast.List)):
        for index, element in enumerate(target.elts):
            yield from ((index, *path) for path in _paths(element, name))


def _defaults(function: _FunctionNode) -> dict[str, ast.expr]:
    arguments = function.args
    places = [parameter.arg for parameter in arguments.posonlyargs + arguments.args]
    named = {
        parameter.arg: value
        for parameter, value in zip(arguments.kwonlyargs, arguments.kw_defaults)
        if value is not None
    }
    return {**dict(zip(reversed(places), reversed(arguments.defaults))), **named}


def _is_static(function: _FunctionNode) -> bool:
    return any(isinstance(mark, ast.Name) and mark.id == "staticmethod" for mark in function.decorator_list)
