"""Read option values: methods, sizes, byte counts."""

import math
import re
from dataclasses import dataclass, replace

import numba

from costmodel.device import device as devices
from costmodel.device import gpu
from refimpl.backends import best
from refimpl.compiler.lower import BACKENDS
from refimpl.data.pixels import IMAGENET, Level
from refimpl.kernels.cuda import CudaError
from refimpl.methods.optim import CLIP_NORM, MOMENTUM, SGD, Schedule
from refimpl.methods.registry import LAYERS, fitted, known
from refimpl.models import MOST_PIXELS, MOST_SIDE
from refimpl.plan.combinations import check_combination
from refimpl.plan.plan import Backprop, Plan

from . import recipe
from .errors import Malformed, unknown

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
KINDS = {int: "a whole number", float: "a number"}
MOST = 10**9  # that a count may be; the products of the largest values stay within 64 bits
MOST_OF = {"batch": 10**5, "threads": devices.MOST_CORES}  # where it is less
MOST_BYTES = 2**63 - 1


@dataclass(frozen=True)
class Methods:
    """What the texts `NAME[:key=value,…]` of `--method` say.

    given: method → its settings as they were given. rules, instances, depth, step: for a Plan, None where no method is
    of that kind. text: the methods with every setting.
    """

    given: dict[str, dict]
    rules: list
    instances: object
    depth: object
    step: object
    text: str

    @property
    def layers(self) -> int | None:
        """The convolutions that a method is to train, where its settings say so."""
        return self.given[self.layered][LAYERS] if self.layered else None

    @property
    def layered(self) -> str | None:
        """The method whose settings say how many convolutions train, if there is one."""
        return next((name for name, values in self.given.items() if LAYERS in values), None)


def methods(texts: list[str]) -> Methods:
    """Read the texts; Malformed names the part that is wrong, or why two methods do not combine."""
    found = [method(text) for text in texts]
    try:
        check_combination([name for name, _, _ in found])
    except ValueError as e:
        raise Malformed(str(e)) from None
    given = {name: values for name, values, _ in found}
    full = []
    for name, values, rule in found:
        layers = f",{LAYERS}={values[LAYERS]}" if LAYERS in values else ""
        full.append(name if rule is None else describe(rule) + layers)
    made = [rule for _, _, rule in found if rule is not None]
    by_kind = {rule.states.kind: rule for rule in made}
    rules = [rule for rule in made if rule.states.kind == "rule"]
    of_kind = (by_kind.get(kind) for kind in ("instances", "depth", "step"))
    return Methods(given, rules, *of_kind, " + ".join(full))


def help_text() -> str:
    """The help of `--method`: each method's own."""
    *most, last = (found.states.help for found in known().values())
    return f"{', '.join(most)} or {last}; repeatable, they combine."


def layers_rule() -> str:
    """The layers that train where `--train-last` is not given."""
    stated = {name: found.states.at_most for name, found in known().items()}
    return "all" + "".join(f", with {name} at most the last {most[0]}" for name, most in stated.items() if most)


def words() -> dict[str, str]:
    """What the help of options takes from the methods: word → text."""
    return {
        "methods": help_text(), "plain_sgd": plain_sgd(), "layers_rule": layers_rule(), "fitted": " or ".join(fitted())
    }  # fmt: skip


def plain_sgd() -> str:
    """Names of the methods that take no momentum."""
    return ", ".join(name for name, found in known().items() if found.states.plain_sgd)


def method(text: str) -> tuple[str, dict, object | None]:
    """Name, given settings and rule of one `NAME[:key=value,…]`."""
    name, _, rest = text.partition(":")
    every = known()
    if name not in every:
        raise unknown("method", name, every)
    make, keys = every[name], every[name].states.settings
    values = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if key not in keys:
            if not keys:
                raise Malformed(f"{name} takes no settings, got {part!r}")
            raise unknown(f"setting of {name}", key, keys)
        if not equals or not value:
            raise Malformed(f"the setting {part!r} of {name} must be {key}=VALUE")
        if key in values:
            raise Malformed(f"{name} is given {key} twice: give it once")
        values[key] = setting(name, key, keys[key], value)
    if values.get(LAYERS, 1) < 1:
        raise Malformed(f"{LAYERS} of {name} must be at least 1, got {values[LAYERS]}")
    if make.states.kind in ("plain", "bias"):
        return name, values, None
    try:
        return name, values, make(**{key: v for key, v in values.items() if key != LAYERS})
    except ValueError as e:
        raise Malformed(f"method {name}: {e}") from None


def setting(name: str, key: str, kind, text: str):
    """The value of a setting: one of a tuple of words, or a number."""
    if isinstance(kind, tuple):
        if text not in kind:
            raise unknown(f"{key} of {name}", text, kind)
        return text
    try:
        return kind(text)
    except ValueError:
        raise Malformed(f"{key} of {name} must be {KINDS[kind]}, got {text!r}") from None


def plan(
    chosen: Methods, train_last: str | None, momentum: float | None, lr: float = 0.01, schedule: Schedule | None = None
) -> Plan:
    """The plan of a command: its methods, layers and optimizer; None is an option that was not given."""
    try:
        optimizer = SGD(lr, momentum_of(chosen, momentum), schedule=schedule or Schedule())
        step = replace(chosen.step, optimizer=optimizer) if chosen.step else Backprop(optimizer, CLIP_NORM)
        return Plan(
            layers(chosen, train_last), chosen.rules, step, instances=chosen.instances,
            depth=chosen.depth, bias_only=any(known()[name].states.kind == "bias" for name in chosen.given),
        )  # fmt: skip
    except ValueError as e:
        raise e if isinstance(e, Malformed) else Malformed(str(e)) from None


def layers(chosen: Methods, text: str | None) -> int | str:
    """Convolutions to train, from `--train-last` or a method's own setting; Malformed where they disagree."""
    given = train_last(text or "all")
    if chosen.layers is None:
        return given
    if text is not None and given != chosen.layers:
        raise Malformed(
            f"--train-last {text} and {LAYERS}={chosen.layers} of {chosen.layered} disagree: give one of them"
        )
    return chosen.layers


def momentum_of(chosen: Methods, value: float | None) -> float:
    """Momentum of SGD: as given, else 0 where a method takes no other, else as a method states, else 0.9."""
    if value is not None:
        return value
    states = [known()[name].states for name in chosen.given]
    if any(stated.plain_sgd for stated in states):
        return 0.0
    return next((stated.momentum for stated in states if stated.momentum is not None), MOMENTUM)


def plain_of(momentum: float | None, whole: bool) -> float | None:
    """Momentum as it was given, else 0 for whole numbers, which plain SGD trains alone."""
    return 0.0 if whole and momentum is None else momentum


def rate_of(chosen: Methods) -> float:
    """What a method's default learning rate is, as a factor on that of back-propagation."""
    return min((known()[name].states.rate for name in chosen.given), default=1.0)


def describe(rule) -> str:
    """A rule as `--method` takes it, with every setting that it has a value for."""
    name, keys = rule.method, rule.states.settings
    values = {k: getattr(rule, k) for k in keys if k != LAYERS and getattr(rule, k) is not None}
    if "patch" in values and values["patch"][0] == values["patch"][1]:
        values["patch"] = values["patch"][0]
    return f"{name}:" + ",".join(f"{k}={v}" for k, v in values.items())


def train_last(text: str) -> int | str:
    """`all` or a number of convolutions."""
    if text == "all":
        return "all"
    if not re.fullmatch("[0-9]{1,9}", text):
        raise Malformed(f"--train-last must be 'all' or a number of convolutions from 0 up, got {text!r}")
    return int(text)


def at_least_1(name: str, value: int | None) -> None:
    """Malformed where the option `name` is given and below 1, or larger than can be reckoned with."""
    if value is None:
        return
    if value < 1:
        raise Malformed(f"--{name} must be at least 1, got {value}")
    most = MOST_OF.get(name, MOST)
    if value > most:
        raise Malformed(f"--{name} must be from 1 to {most:,}, got {value}")


def parts(clip: float | None, warmup: int) -> None:
    """Malformed for a norm or a number of steps that is none."""
    if clip is not None and not 0 <= clip < math.inf:
        raise Malformed(f"--clip must be the most that the norm of the gradient may be, or 0 for none, got {clip:g}")
    if not 0 <= warmup <= MOST:
        raise Malformed(f"--warmup must be a number of steps from 0 to {MOST:,}, got {warmup}")


def threads(count: int | None) -> None:
    """Malformed where this process cannot have so many threads."""
    most = numba.config.NUMBA_NUM_THREADS
    if count is not None and not 1 <= count <= most:
        raise Malformed(f"--threads must be from 1 to {most}, the threads of this machine, got {count}")


def threads_of(name: str, device: devices.Device, count: int | None) -> int | None:
    """The threads of a step on the device that was asked for by name: as given, else its cores, here the default.

    Malformed where they are more than the cores of a device that is not at hand.
    """
    elsewhere = device.name not in (devices.HERE, devices.REFERENCE)
    if count is not None and elsewhere and not 1 <= count <= device.cores:
        raise Malformed(f"--threads must be from 1 to {device.cores}, the cores of {device.name}, got {count}")
    return count or (None if devices.key(name) == devices.key(devices.HERE) else device.cores)


def seed(value: int) -> None:
    """Malformed where the generators cannot take it."""
    if not 0 <= value < 2**63:
        raise Malformed(f"--seed must be from 0 to {2**63 - 1}, got {value}")


def size(text: str | None) -> tuple[int, int] | None:
    """`HxW` or one number for both."""
    if text is None:
        return None
    match = re.fullmatch("([1-9][0-9]*)(?:x([1-9][0-9]*))?", text)
    if not match:
        raise Malformed(f"--size must be HxW in pixels, such as 128x128, got {text!r}")
    height, width = (float(side) for side in (match[1], match[2] or match[1]))
    if max(height, width) > MOST_SIDE or height * width > MOST_PIXELS:
        raise Malformed(f"--size must be at most {MOST_SIDE:,} pixels a side and {MOST_PIXELS:,} in all, got {text!r}")
    return int(height), int(width)


def pixels(text: str | None) -> tuple[Level, Level] | None:
    """What a net takes for pixels of 0 and of 255: `imagenet`, or `LOW,HIGH`."""
    if text is None or text == "imagenet":
        return text and IMAGENET
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low = high = 0.0
    if not -MOST <= low < high <= MOST:
        raise Malformed(
            "--pixels must be imagenet, or what the net takes for pixels of 0 and of 255, the lower number first, such "
            f"as 0,1 or -1,1 or 0,255, got {text!r}"
        )
    return low, high


def backend(name: str) -> str:
    """The backend of that name; recipe.BACKEND: what is best on this machine."""
    if name == recipe.BACKEND:
        return best()
    if name not in BACKENDS:
        raise unknown("--backend", name, [recipe.BACKEND, *BACKENDS])
    return name


def priced_on(name: str, asked: str) -> tuple[devices.Device, str]:
    """The device of a name, and the backend of a step that it prices: as asked, else that of the device's rates.

    This machine stands for its GPU where that is what runs the step. Malformed where the rates are of another backend.
    """
    here = devices.key(name) == devices.key(devices.HERE)
    if here and backend(asked) == gpu.BACKEND:
        return device(gpu.THERE), gpu.BACKEND
    on = device(name)
    chosen = on.backend if asked == recipe.BACKEND else backend(asked)
    if (chosen == gpu.BACKEND) != (on.backend == gpu.BACKEND):
        raise Malformed(
            f"--device {name} has rates of --backend {on.backend}: leave --backend {chosen} out, or name another device"
        )
    return on, chosen


def device(name: str) -> devices.Device:
    """The device of that name, or of a profile in a file; Malformed where there is none."""
    try:
        return devices.find(name)
    except KeyError:
        raise unknown("device", name, devices.names(), devices.nearest(name)) from None
    except (devices.ProfileError, CudaError) as e:
        raise Malformed(str(e)) from None


def byte_count(text: str | None) -> int | None:
    """`262144`, `256KiB`, `1.5MB`."""
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)", text)
    if not match or match[2].upper() not in UNITS:
        raise Malformed(f"--memory-limit must be a number of bytes or one with KiB, MiB, GiB, KB, MB, GB, got {text!r}")
    found = float(match[1]) * UNITS[match[2].upper()]
    if not 1 <= found <= MOST_BYTES:
        raise Malformed(f"--memory-limit must be from 1 byte to {MOST_BYTES:,} bytes, got {text!r}")
    return int(found)
