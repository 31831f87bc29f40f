"""Read option values: methods, sizes, byte counts."""

import re

import numba

from refimpl.methods.gradient_filter import ALIGN, GradientFilter

from .errors import Malformed, unknown

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
METHODS = {
    "backprop": (None, {}),
    "gradient-filter": (GradientFilter, {"patch": int, "align": tuple(ALIGN)}),
}


def methods(texts: list[str]) -> tuple[list, str]:
    """Rules of `NAME[:key=value,…]` texts, and their text in full; Malformed names the part that is wrong."""
    rules, full = [], []
    for text in texts:
        name, _, rest = text.partition(":")
        if name not in METHODS:
            raise unknown("method", name, METHODS)
        make, keys = METHODS[name]
        values = {}
        for part in filter(None, rest.split(",")):
            key, equals, value = part.partition("=")
            if key not in keys:
                if not keys:
                    raise Malformed(f"{name} takes no settings, got {part!r}")
                raise unknown(f"setting of {name}", key, keys)
            if not equals or not value:
                raise Malformed(f"the setting {part!r} of {name} must be {key}=VALUE")
            if isinstance(keys[key], tuple):
                if value not in keys[key]:
                    raise unknown(f"{key} of {name}", value, keys[key])
                values[key] = value
                continue
            try:
                values[key] = keys[key](value)
            except ValueError:
                raise Malformed(f"{key} of {name} must be a whole number, got {value!r}") from None
        if make is None:
            full.append(name)
            continue
        try:
            rule = make(**values)
        except ValueError as e:
            raise Malformed(f"method {name}: {e}") from None
        rules.append(rule)
        full.append(describe(rule))
    if len(texts) > 1 and "backprop" in full:
        raise Malformed("backprop is the plain method and combines with no other: name it alone")
    operators = [r.operator for r in rules]
    if len(set(operators)) != len(operators):
        raise Malformed(f"the methods {' and '.join(full)} replace the same gradients: name one of them")
    return rules, " + ".join(full)


def describe(rule) -> str:
    """A rule as `--method` takes it, with every setting."""
    name, keys = next((name, keys) for name, (make, keys) in METHODS.items() if make is type(rule))
    values = {k: getattr(rule, k) for k in keys}
    if "patch" in values and values["patch"][0] == values["patch"][1]:
        values["patch"] = values["patch"][0]
    return f"{name}:" + ",".join(f"{k}={v}" for k, v in values.items())


def train_last(text: str) -> int | str:
    """`all` or a number of convolutions."""
    if text == "all":
        return "all"
    if not text.isdigit():
        raise Malformed(f"--train-last must be 'all' or a number of convolutions from 0 up, got {text!r}")
    return int(text)


def at_least_1(name: str, value: int | None) -> None:
    """Malformed where the option `name` is given and below 1."""
    if value is not None and value < 1:
        raise Malformed(f"--{name} must be at least 1, got {value}")


def threads(count: int | None) -> None:
    """Malformed where this process cannot have so many threads."""
    most = numba.config.NUMBA_NUM_THREADS
    if count is not None and not 1 <= count <= most:
        raise Malformed(f"--threads must be from 1 to {most}, the threads of this machine, got {count}")


def seed(value: int) -> None:
    """Malformed where the generators cannot take it."""
    if not 0 <= value < 2**63:
        raise Malformed(f"--seed must be from 0 to {2**63 - 1}, got {value}")


def size(text: str | None) -> tuple[int, int] | None:
    """`HxW` or one number for both."""
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?", text)
    if not match:
        raise Malformed(f"--size must be HxW in pixels, such as 128x128, got {text!r}")
    return int(match[1]), int(match[2] or match[1])


def byte_count(text: str | None) -> int | None:
    """`262144`, `256KiB`, `1.5MB`."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text)
    if not match or match[2].upper() not in UNITS:
        raise Malformed(f"--memory-limit must be a number of bytes or one with KiB, MiB, GiB, KB, MB, GB, got {text!r}")
    return int(float(match[1]) * UNITS[match[2].upper()])
