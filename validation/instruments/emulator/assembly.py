"""PTX, NVIDIA's assembly for no particular GPU, read into numbered instructions that `machine` runs.

What is read is what Numba's compilers write: one kernel a text, functions that it calls (they are put in the place of
each call), predicates before any instruction, shared and local memory of fixed sizes. Source: NVIDIA, PTX ISA 8.8.
"""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

SPECIAL = {  # registers that the machine sets before a thread starts: its place, its block's, and their numbers
    f"%{name}.{axis}": 3 * i + j
    for i, name in enumerate(("tid", "ntid", "ctaid", "nctaid"))
    for j, axis in enumerate("xyz")
}
EXIT, BARRIER, BRANCH, UNLESS = range(4)  # that end, wait or jump; `machine` numbers its own behind them
FIELDS = 6  # of an instruction: its number, the register written, three that are read, and a number of its own
POINTER = r"(?:\.ptr\s+(?:\.[a-z]+\s+)?(?:\.align\s+\d+\s+)?)?"
PARAMETER = rf"\.param\s[^,]*?\.[bsuf](\d+)\s+{POINTER}([\w$.]+)(?=\s*(?:,|$|\)))"  # its bits and name
FIRST_BYTE = 16  # of shared and local memory: none lies at 0


PART = " of "  # before the text of what is no instruction of its own


class PtxError(ValueError):
    """PTX that this reader does not know, or that a GPU would refuse or run wrongly; the message names the place."""


class Instruction(NamedTuple):
    """One statement: `@predicate op to, of`. predicate: "" or a register, with a "!" before it where it must be 0."""

    predicate: str
    op: str
    operands: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.op} {', '.join(self.operands)}".strip()


class Assembled(NamedTuple):
    """What the machine runs.

    code (instructions, FIELDS) int64; text: each instruction as it was written, a vector's with its numbers behind it,
    each PART of it; registers: how many a thread has;
    constants: register and the 64 bits that it holds from the start; parameters: register and bytes of each argument;
    special: register and which of SPECIAL it holds; shared, local: bytes of a block and of a thread.
    """

    name: str
    code: np.ndarray
    text: list[str]
    registers: int
    constants: list[tuple[int, int]]
    parameters: list[tuple[int, int]]
    special: list[tuple[int, int]]
    shared: int
    local: int


class Body(NamedTuple):
    """A kernel or a function as written: bytes of its results and parameters, labels and instructions in order."""

    name: str
    results: dict[str, int]
    parameters: dict[str, int]
    lines: list[str | Instruction]
    local: dict[str, tuple[int, int]]


def read(text: str, numbers: dict[str, int]) -> Assembled:
    """The kernel of a text. numbers: of each operation that the machine knows. PtxError where it does not know one."""
    text = re.sub(r"//[^\n]*", "", text)
    shared = dict(_memory(text, "shared"))
    bodies = {body.name: body for body in _bodies(text)}
    entry = re.search(r"\.entry\s+([\w$.]+)", text)
    if entry is None:
        raise PtxError("this PTX has no kernel (.entry)")
    return Assembly(bodies, shared, numbers).kernel(bodies[entry[1]])


def _memory(text: str, space: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Name, alignment and bytes of each array of a memory space."""
    pattern = rf"\.{space}\s+\.align\s+(\d+)\s+\.[bsuf](\d+)\s+([\w$.]+)(?:\[(\d+)\])?"
    for align, bits, name, many in re.findall(pattern, text):
        yield name, (int(align), int(bits) // 8 * int(many or 1))


def _laid(arrays: dict[str, tuple[int, int]]) -> tuple[dict[str, int], int]:
    """The address of each array, one behind the other, and where the last one ends."""
    end, found = FIRST_BYTE, {}
    for name, (align, nbytes) in arrays.items():
        found[name] = -(-end // align) * align
        end = found[name] + nbytes
    return found, end


def _bodies(text: str) -> Iterator[Body]:
    """Every kernel and function that is written out."""
    head = r"\.(?:entry|func)\b\s*(\([^)]*\))?\s*([\w$.]+)\s*\(([^)]*)\)[^;{]*([;{])"
    for match in re.finditer(head, text):
        results, name, parameters, opens = match.groups()
        if opens == "{":
            body = text[match.end() : _closed(text, match.end())]
            found = [re.findall(PARAMETER, part or "") for part in (results, parameters)]
            sizes = [{one: int(bits) // 8 for bits, one in part} for part in found]
            yield Body(name, *sizes, list(_lines(body)), dict(_memory(body, "local")))


def _closed(text: str, start: int) -> int:
    """Where the brace that was opened before `start` closes."""
    depth = 1
    for match in re.compile(r"[{}]").finditer(text, start):
        depth += 1 if match[0] == "{" else -1
        if not depth:
            return match.start()
    raise PtxError("a brace does not close")


def _lines(body: str) -> Iterator[str | Instruction]:
    """Labels, as text with a colon, and instructions; declarations are left out."""
    statement = ""
    for raw in body.splitlines():
        line = raw.strip()
        if line in ("", "{", "}") and not statement:
            continue
        if not statement and (label := re.match(r"^([\w$]+:)\s*(.*)$", line)):
            yield label[1]
            line = label[2]
        statement = f"{statement} {line}".strip()
        while ";" in statement:
            one, statement = statement.split(";", 1)
            statement = statement.strip()
            if one.strip() and not one.strip().startswith("."):
                yield _instruction(one.strip())


def _instruction(statement: str) -> Instruction:
    match = re.match(r"^(?:@(!?)(%\w+)\s+)?([a-z][\w.]*(?:::\w+)?[\w.]*)\s*(.*)$", statement, re.DOTALL)
    if match is None:
        raise PtxError(f"not an instruction: {statement!r}")
    inverse, predicate, op, rest = match.groups()
    operands = re.findall(r"\{[^}]*\}|\([^)]*\)|\[[^\]]*\]|[^,\s]+", rest)
    return Instruction((inverse or "") + (predicate or ""), op, tuple(operands))


class Assembly:
    """Instructions in numbers, of a kernel and of the functions that it calls."""

    def __init__(self, bodies: dict[str, Body], shared: dict[str, tuple[int, int]], numbers: dict[str, int]):
        self.bodies, self.numbers = bodies, numbers
        self.shared, self.shared_end = _laid(shared)
        self.registers: dict[str, int] = {}
        self.constants: dict[int, int] = {}  # bits → register
        self.code: list[list] = []
        self.text: list[str] = []
        self.local_end, self.calls = FIRST_BYTE, 0

    def kernel(self, body: Body) -> Assembled:
        """All of it. A parameter is a register that holds the argument."""
        self.put(body, "")
        self.add("exit", EXIT)
        code = np.array(self.code, np.int64).reshape(-1, FIELDS)
        parameters = [(self.register(name, ""), size) for name, size in body.parameters.items()]
        special = [(number, SPECIAL[name]) for name, number in self.registers.items() if name in SPECIAL]
        constants = [(register, bits) for bits, register in self.constants.items()]
        many = len(self.registers) + len(self.constants)
        return Assembled(
            body.name, code, self.text, many, constants, parameters, special, self.shared_end, self.local_end
        )

    def put(self, body: Body, scope: str) -> None:
        """Append a body; scope: what is put before the names of its own registers."""
        local, end = _laid(body.local)
        names = self.shared | {name: at - FIRST_BYTE + self.local_end for name, at in local.items()}
        self.local_end += -(-(end - FIRST_BYTE) // 16) * 16
        labels: dict[str, int] = {}
        jumps: list[tuple[int, str]] = []
        for line in body.lines:
            if isinstance(line, str):
                labels[line[:-1]] = len(self.code)
                continue
            skipped = None
            if line.predicate and not line.op.startswith("bra"):  # over what is not to be done
                skipped = len(self.code)
                self._jump(line.predicate, scope, names, inverse=True)
            if line.op.startswith("bra"):
                jumps.append((len(self.code), line.operands[-1]))
                self._jump(line.predicate, scope, names, text=str(line))
            elif line.op in ("ret", "exit"):
                jumps.append((len(self.code), ""))
                self.add(line.op, BRANCH, read=(self.constant(1),))
            elif line.op.startswith("call"):
                self._call(line, scope)
            else:
                self._plain(line, scope, names)
            if skipped is not None:
                self.code[skipped][5] = len(self.code)
        labels[""] = len(self.code)
        for at, label in jumps:
            self.code[at][5] = labels[label]

    def _jump(self, predicate: str, scope: str, names: dict[str, int], inverse: bool = False, text: str = "") -> None:
        unless = predicate.startswith("!") != inverse
        register = self.operand(predicate.lstrip("!"), scope, names) if predicate else self.constant(1)
        self.add(text or f"unless {predicate}", UNLESS if unless else BRANCH, read=(register,))

    def _call(self, line: Instruction, scope: str) -> None:
        """A function in the place of its call: arguments and results are registers of their own."""
        results, name, given = line.operands[0], line.operands[-2], line.operands[-1]
        if name not in self.bodies:
            raise PtxError(f"{name} is called and not written out")
        self.calls += 1
        inside, body = f"{scope}{name} {self.calls} ", self.bodies[name]
        copy = self.numbers["mov.b64"]
        for mine, theirs in zip(_names(given), body.parameters, strict=True):
            source = self.register(mine, scope)
            self.add(str(line), copy, self.register(theirs, inside), (source,))
        self.put(body, inside)
        for mine, theirs in zip(_names(results), body.results, strict=True):
            source = self.register(theirs, inside)
            self.add(str(line), copy, self.register(mine, scope), (source,))

    def _plain(self, line: Instruction, scope: str, names: dict[str, int]) -> None:
        """An instruction that goes on to the next one."""
        op, operands, text = line.op.replace(".volatile", ""), list(line.operands), str(line)
        if op.startswith("bar.") or op.startswith("barrier."):
            self.add(text, BARRIER)
        elif op.startswith(("ld.param", "st.param")):
            of = 1 if op.startswith("ld") else 0
            operands[of] = self._parameter(operands[of])
            to, source = (self.operand(o, scope, names) for o in operands)
            self.add(text, self.numbers["mov.b64"], to, (source,))
        elif op.startswith(("ld.", "st.")):
            self._memory(op, operands, text, scope, names)
        elif any(o.startswith("{") for o in operands):
            self._halves(op, operands, text, scope, names)
        else:
            found = [self.operand(o, scope, names) for o in operands]
            self.add(text, self.number(op, text), found[0], tuple(found[1:4]), *found[4:5])

    def _parameter(self, operand: str) -> str:
        """The name in `[name+0]`."""
        match = re.match(r"\[([\w$.]+)(?:\+0)?\]$", operand)
        if match is None:
            raise PtxError(f"a part of a parameter is read: {operand}")
        return match[1]

    def _memory(self, op: str, operands: list[str], text: str, scope: str, names: dict[str, int]) -> None:
        """A load or store of one number, or of each of a vector."""
        loads, step = op.startswith("ld"), 0
        place, values = (operands[1], operands[0]) if loads else (operands[0], operands[1])
        match = re.match(r"\[([%\w$.]+)\s*(?:\+\s*(-?\d+))?\]$", place)
        if match is None:
            raise PtxError(f"no address: {text}")
        base, offset = self.operand(match[1], scope, names), int(match[2] or 0)
        kind, size = re.sub(r"\.v[24]\b", "", op), int(re.search(r"\d+$", op)[0]) // 8
        parts = _names(values) if values.startswith("{") else [values]
        if len(parts) > 1:
            self.add(text, self.number(f"aligned.{size * len(parts)}", text), 0, (base,), offset)
            text = PART + text
        for part in parts:
            register = self.operand(part, scope, names)
            to, of = (register, (base,)) if loads else (0, (base, register))
            self.add(text, self.number(kind, text), to, of, offset + step)
            step += size

    def _halves(self, op: str, operands: list[str], text: str, scope: str, names: dict[str, int]) -> None:
        """`mov.b64 {low, high}, whole`, or the other way round."""
        wide = int(op[-2:])
        if not op.startswith("mov.b"):
            raise PtxError(f"unknown: {text}")
        if operands[0].startswith("{"):
            whole, copied = self.operand(operands[1], scope, names), self.register("whole", "")
            self.add(text, self.numbers["mov.b64"], copied, (whole,))
            for number, part in enumerate(_names(operands[0])):
                self.add(text, self.number(f"half.{wide}.{number}", text), self.operand(part, scope, names), (copied,))
        else:
            of = tuple(self.operand(part, scope, names) for part in _names(operands[1]))
            self.add(text, self.number(f"join.{wide}", text), self.operand(operands[0], scope, names), of)

    def number(self, op: str, text: str) -> int:
        """Of an operation."""
        if op not in self.numbers:
            raise PtxError(f"unknown: {text}")
        return self.numbers[op]

    def add(self, text: str, number: int, to: int = 0, read: tuple[int, ...] = (), own: int = 0) -> None:
        """One instruction."""
        self.text.append(text)
        self.code.append([number, to, *read, *(0,) * (3 - len(read)), own])

    def operand(self, name: str, scope: str, names: dict[str, int]) -> int:
        """The register of an operand: a register, a number, or the address of an array."""
        name = name.strip("[]")  # of an address without an offset
        if name in SPECIAL:
            return self.register(name, "")
        if name in names:
            return self.constant(names[name])
        if name.startswith("%") or re.match(r"[A-Za-z_$]", name):
            return self.register(name, scope)
        return self.constant(_bits(name))

    def register(self, name: str, scope: str) -> int:
        """The number of a register."""
        return self.registers.setdefault(scope + name, len(self.registers) + len(self.constants))

    def constant(self, bits: int) -> int:
        """The register that holds these 64 bits."""
        return self.constants.setdefault(bits, len(self.registers) + len(self.constants))


def _names(group: str) -> list[str]:
    return [name for name in re.split(r"[\s,]+", group.strip("{}()")) if name]


def _bits(literal: str) -> int:
    """Of a number: -3, 0x7F, 0f3F800000 (float32), 0d3FF0000000000000 (float64), as int64."""
    if literal[:2] in ("0f", "0F"):
        return int(literal[2:], 16)
    if literal[:2] in ("0d", "0D"):
        return struct.unpack("<q", struct.pack("<Q", int(literal[2:], 16)))[0]
    value = int(literal.rstrip("U"), 0)
    return value - (1 << 64) if value >= 1 << 63 else value
