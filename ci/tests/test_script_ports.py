"""Port names are followed from the calls in a script back to the literals that they come from."""

import ast
import textwrap

import pytest
from script_ports import port_calls


def names(*sources):
    scripts = {f"script{number}.py": ast.parse(textwrap.dedent(source)) for number, source in enumerate(sources)}
    return [call.name for call in port_calls(scripts)]


def in_invoke(body, top=""):
    return f"{top}\nclass T:\n    A = 'of_class'\n    def invoke(self):\n" + textwrap.indent(
        textwrap.dedent(body), " " * 8
    )


FOLLOWED = {
    "a literal": ("self.get_input_string_port('a')", ["a"]),
    "a named argument": ("self.get_input_string_port(default='x', port_name='a')", ["a"]),
    "a variable": ("port = 'a'\nself.get_input_string_port(port)", ["a"]),
    "an annotated variable": ("port: str = 'a'\nself.get_input_string_port(port)", ["a"]),
    "a class constant": ("self.get_input_string_port(self.A)", ["of_class"]),
    "one of two": ("self.get_input_string_port('a' if self else 'b')", ["a", "b"]),
    "a loop over a tuple": ("for port in ('a', 'b'):\n    self.get_input_string_port(port)", ["a", "b"]),
    "a loop over pairs": ("for p, d in [('a', 1), ('b', 2)]:\n    self.get_input_string_port(p, d)", ["a", "b"]),
    "a loop over nested pairs": ("for i, (p, d) in enumerate([('a', 1)]):\n    self.get_input_string_port(p)", ["a"]),
    "a loop over a dict": ("for port in {'a': 1, 'b': 2}:\n    self.get_input_string_port(port)", ["a", "b"]),
    "a loop over items": ("for p, d in {'a': 1}.items():\n    self.get_input_string_port(p, d)", ["a"]),
    "a loop over values": ("for p in {1: 'a'}.values():\n    self.get_input_string_port(p)", ["a"]),
    "a loop over a zip": ("for d, p in zip((1, 2), ('a', 'b')):\n    self.get_input_string_port(p)", ["a", "b"]),
    "a loop over a sorted set": ("for p in sorted({'a', 'b'}):\n    self.get_input_string_port(p)", ["a", "b"]),
    "a loop over a sum": ("for p in ('a',) + ('b',):\n    self.get_input_string_port(p)", ["a", "b"]),
    "a comprehension": ("return {p: self.get_input_string_port(p) for p in ('a', 'b')}", ["a", "b"]),
    "an element": ("ports = ('a', 'b')\nself.get_input_string_port(ports[1])", ["b"]),
    "a dict's value": ("ports = {'one': 'a', 'two': 'b'}\nself.get_input_string_port(ports['one'])", ["a"]),
    "an f-string": ("for n in ('1', '2'):\n    self.get_input_string_port(f'a{n}')", ["a1", "a2"]),
    "a sum": ("self.get_input_string_port('a' + '_' + 'b')", ["a_b"]),
    "the beginning of an f-string": ("self.get_output_data_port(f'a_{len(self)}_b')", ["a_*"]),
    "the beginning of a sum": ("self.get_output_data_port('a_' + str(1))", ["a_*"]),
    "a method in a variable": ("read = self.get_input_string_port\nread('a')", ["a"]),
    "two in a tuple": ("p, q = 'a', 'b'\nself.get_input_string_port(q)", ["b"]),
}


@pytest.mark.parametrize(("body", "found"), FOLLOWED.values(), ids=FOLLOWED)
def test_a_port_name_is_followed_within_a_method(body, found):
    assert names(in_invoke(body)) == found


NOT_FOLLOWED = {
    "the result of a call": "self.get_input_string_port(choose())",
    "a parameter that nobody gives": "def helper(port):\n    self.get_input_string_port(port)",
    "a name that is nowhere": "self.get_input_string_port(port)",
    "no argument": "self.get_input_string_port()",
    "a starred argument": "self.get_input_string_port(*ports)",
    "a method given away": "list(map(self.get_input_string_port, ('a', 'b')))",
    "a loop over a dict with a spread": "for p in {'a': 1, **more}:\n    self.get_input_string_port(p)",
    "a number": "self.get_input_string_port(3)",
    "an f-string that begins with a value": "self.get_input_string_port(f'{self}_a')",
    "a variable with one unknown value": "port = 'a'\nport = choose()\nself.get_input_string_port(port)",
}


@pytest.mark.parametrize("body", NOT_FOLLOWED.values(), ids=NOT_FOLLOWED)
def test_a_port_name_that_cannot_be_followed_is_none(body):
    assert names(in_invoke(body)) == [None]


def test_module_constants_are_followed_also_from_another_file():
    script = "from settings import PORTS\nimport settings\n" + in_invoke(
        "for port, default in PORTS.items():\n    self.get_input_string_port(port, default)\n"
        "self.get_input_data_port(settings.IMAGES)"
    )
    assert names(script, "PORTS = {'a': '1', 'b': '2'}\nIMAGES = 'images'") == ["a", "b", "images"]


def test_helper_functions_are_followed_to_their_callers():
    script = """
        def number(task, port, default="1"):
            return int(text(task, port=port) or default)

        def text(task, port):
            return task.get_input_string_port(port)

        class T:
            def invoke(self):
                self.read("c")
                return number(self, "a"), number(self, default="2", port="b")

            def read(self, port, *, method=None):
                self.get_input_data_port(port)

            @staticmethod
            def load(task, port="d"):
                task.get_input_data_port(port)

            def more(self):
                self.load(self)
    """
    assert sorted(names(script)) == ["a", "b", "c", "d"]


def test_a_librarys_function_of_the_same_name_is_no_caller():
    script = """
        import numpy

        def load(task, port):
            numpy.load(3)
            return task.get_input_data_port(port)

        def invoke(task):
            load(task, "a")
    """
    assert names(script) == ["a"]


def test_a_method_given_to_a_helper_is_followed():
    helper = "def read(method, port):\n    return method(port)\n"
    assert names(helper + "def invoke(task):\n    read(task.get_input_data_port, 'a')") == ["a"]


def test_several_methods_given_to_a_helper_leave_open_which_name_goes_with_which():
    helper = "def read(method, port):\n    return method(port)\n"
    calls = "def invoke(task):\n    read(task.get_input_data_port, 'a')\n    read(task.get_input_string_port, 'b')"
    assert names(helper + calls) == [None, None]


def test_a_loop_variable_hides_a_module_constant_of_the_same_name():
    assert names(in_invoke("for port in ('a',):\n    self.get_input_string_port(port)", top="port = 'b'")) == ["a"]


@pytest.mark.parametrize(
    "script",
    [
        "def f(t, p):\n    t.get_input_data_port(p)\n    f(t, p)\nf(t, 'a')",
        "def f(t, p):\n    t.get_input_data_port(p)\n    g(t, p)\ndef g(t, p):\n    f(t, p)\nf(t, 'a')",
        "a = 'a'\na = a\nt.get_input_data_port(a)",
        "a, b = b, a\na = 'a'\nt.get_input_data_port(a)",
    ],
)
def test_names_that_lead_back_to_themselves_end(script):
    assert names(script) == ["a"]


def test_a_call_knows_its_file_line_method_and_default():
    (call,) = port_calls({"s.py": ast.parse("x = 1\nt.get_input_string_port('a', default='b')")})
    assert (call.file, call.line, call.method, call.name, call.default) == (
        "s.py",
        2,
        "get_input_string_port",
        "a",
        "b",
    )


def test_the_constant_of_a_default_is_not_followed():
    (call,) = port_calls({"s.py": ast.parse("D = 'b'\nt.get_input_string_port('a', D)")})
    assert call.default is None
