"""What pages take from the code: where a thing lies, a method's words and settings, a command's options, names."""

import dataclasses
import importlib
import inspect
import pkgutil
import re
from functools import cache
from pathlib import Path

import typer

from gradledger import cli, options
from gradledger.command import told
from refimpl.formats.onnx.importing import converters
from refimpl.methods.registry import known
from refimpl.plan import combinations as pairs
from validation.instruments.counted_numbers import UNITS

ROOT = Path(__file__).parents[2]
PACKAGES = ("refimpl", "costmodel", "validation", "gradledger")
DEFINITION = re.compile(r"^(?:class|def) (\w+)", re.MULTILINE)


def table(head: list[str], rows: list[list], right: int = 99) -> str:
    """A Markdown table; columns from number `right` on are numbers and stand to the right."""
    lines = [head, ["---:" if i >= right else "---" for i in range(len(head))], *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def find(name: str):
    """The object of a dotted name, such as `refimpl.Plan`; AttributeError or ImportError where there is none."""
    head, *rest = name.split(".")
    found, path = importlib.import_module(head), head
    for part in rest:
        path += f".{part}"
        if not hasattr(found, part) and inspect.ismodule(found):
            importlib.import_module(path)
        found = getattr(found, part)
    return found


@cache
def definitions() -> dict[str, list[str]]:
    """Every function and class that stands at the top level of a file of the packages, with those files."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for name in DEFINITION.findall(path.read_text(encoding="utf-8")):
                found.setdefault(name, []).append(path.relative_to(ROOT).as_posix())
    return found


def home(name: str, under: str = "") -> str:
    """The one file that defines a function or class, wherever it lies today; KeyError where it is none or several.

    under: what the file's path begins with, where several packages have one of that name.
    """
    found = [path for path in definitions().get(name, ()) if path.startswith(under)]
    if len(found) != 1:
        raise KeyError(f"{name} is defined in {', '.join(found) or 'no file'}, one was expected")
    return found[0]


def file(name: str, under: str = "") -> str:
    """The file that defines a function or class, as code."""
    return f"`{home(name, under)}`"


def beside(name: str, under: str = "") -> str:
    """The folder of the file that defines a function or class, as code."""
    return f"`{Path(home(name, under)).parent.as_posix()}/`"


def code(path: str) -> str:
    """A file of the repository as code. Pages show files that the tests run, so what a reader copies works."""
    text = (ROOT / path).read_text(encoding="utf-8")
    return f'```python title="{path}"\n{text}```'


def rooms(package: str) -> str:
    """The folders of a package, each with the first line of its own words."""
    found = [m.name for m in pkgutil.iter_modules(find(package).__path__) if m.ispkg]
    rows = [
        [f"`{package}/{name}/`", inspect.getdoc(importlib.import_module(f"{package}.{name}")).split("\n")[0]]
        for name in found
    ]
    return table(["folder", ""], rows)


def functions() -> str:
    """The functions of numbers that a kernel's body may call, each with its unit of cost where that is another word."""
    return ", ".join(f"`{name}`" if name == unit else f"`{name}` (as `{unit}`)" for name, unit in UNITS.items())


def rule(name: str):
    """The class of a method as `--method` names it, and its settings: setting → kind or words."""
    found = known()[name]
    return found, found.states.settings


def equations(name: str) -> str:
    """What the file of a method says of it: equations, and how the paper was read."""
    return f"```text\n{inspect.getdoc(inspect.getmodule(rule(name)[0]))}\n```"


def settings(name: str) -> str:
    """The settings of a method on the command line, with their defaults, and what its class says of them."""
    made, kinds = rule(name)
    defaults = {f.name: f.default for f in dataclasses.fields(made)}
    rows = []
    for key, kind in kinds.items():
        values = ", ".join(f"`{word}`" for word in kind) if isinstance(kind, tuple) else options.KINDS[kind]
        default = defaults.get(key, "that of `--train-last`")
        rows.append([f"`{key}`", values, default[0] if isinstance(default, tuple) else default])
    doc = inspect.getdoc(made)
    return f"{table(['setting', 'values', 'default'], rows)}\n\n```text\n{doc}\n```"


def combines(name: str) -> str:
    """What a method combines with, and why not."""
    rows = []
    for (a, b), found in pairs.COMBINATIONS.items():
        if name in (a, b) and a != b:
            other = b if name == a else a
            rows.append([f"[`{other}`]({other}.md)", "yes" if found.supported else "no", found.text])
    return table(["with", "", ""], rows)


def method_links() -> str:
    """Every method, each linked to its page from the first page."""
    return ", ".join(f"[`{name}`](methods/{name}.md)" for name in known() if name != "backprop")


def combinations() -> str:
    """The table of every pair of methods."""
    return pairs.combinations_table()


def onnx() -> str:
    """A table of the operators of ONNX that are read, and of what is made of them."""
    rows = [[f"`{op}`", inspect.getdoc(module).split("\n\n")[0].replace("\n", " ")] for op, module in
            sorted(converters().items())]  # fmt: skip
    return table(["operator", "is read as"], rows)


@cache
def commands() -> dict:
    """The commands that a user is shown, by name."""
    found = typer.main.get_command(cli.app).commands
    return {name: told(command) for name, command in found.items() if not command.hidden}


def command_list() -> str:
    """A table of the commands, each linked to its page."""
    found = commands().items()
    rows = [[f"[`gradledger {name}`]({name}.md)", inspect.cleandoc(c.help).split("\n")[0]] for name, c in found]
    return table(["command", "what it does"], rows)


def arguments(name: str) -> str:
    """A command's own help: what it does, its arguments and options with their defaults."""
    command = commands()[name]
    rows = []
    for param in command.params:
        given = param.opts[0] if param.opts[0].startswith("-") else param.name.upper()
        default = param.default() if callable(param.default) else param.default
        default = ", ".join(map(str, default)) if isinstance(default, (list, tuple)) else default
        rows.append([f"`{given}`", param.help or "", "" if default in (None, False, "") else f"`{default}`"])
    return f"{inspect.cleandoc(command.help)}\n\n{table(['option', '', 'default'], rows)}"


def api(package: str) -> str:
    """The public names of a package (`__all__`), each with its docstring."""
    shown = []
    for name in sorted(find(package).__all__, key=str.lower):
        found = find(f"{package}.{name}")
        if not inspect.ismodule(found):
            shown.append(reference(f"{found.__module__}.{found.__qualname__}", f"{package}.{name}"))
    return "\n\n".join(shown)


def modules(package: str) -> str:
    """Every module of a folder with its docstring and its members."""
    found = [m.name for m in pkgutil.iter_modules(find(package).__path__)]
    return "\n\n".join(reference(f"{package}.{name}", f"{package}.{name}") for name in found)


def reference(path: str, heading: str) -> str:
    """What mkdocstrings shows of an object under a heading."""
    return f"::: {path}\n    options:\n      heading: {heading}\n      toc_label: {heading.rsplit('.', 1)[-1]}"


def module(name: str, under: str = "") -> str:
    """The module that defines a function or class, with its docstring and its members."""
    dotted = home(name, under).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return reference(dotted, dotted)


def devices() -> str:
    """The device profiles that come with the package."""
    from costmodel.device import device, gpu

    rows = []
    for name in device.names():
        if name in (device.HERE, gpu.THERE):
            continue  # others on each machine
        found = device.find(name)
        memory = f"{found.ram_bytes / 2**20:,.3g} MiB"
        flash = f" and {found.flash_bytes / 2**20:,.3g} MiB flash" if found.flash_bytes else ""
        rates = "measured" if found.measured else "from data sheets"
        rows.append([f"`{name}`", ", ".join(found.names), found.cores, memory + flash, rates])
    return table(["`--device`", "or", "cores", "RAM", "rates"], rows)


def experiments() -> str:
    """The experiments that `gradledger reproduce` knows."""
    from gradledger import reproduce

    return ", ".join(f"`{name}`" for name in sorted(reproduce.EXPERIMENTS))


DIRECTIVES = {
    "file": file, "beside": beside, "code": code, "rooms": rooms, "equations": equations, "settings": settings,
    "combines": combines,
    "method_links": method_links, "combinations": combinations, "commands": command_list, "arguments": arguments,
    "api": api, "modules": modules, "module": module, "devices": devices, "experiments": experiments,
    "functions": functions, "onnx": onnx,
}  # fmt: skip
