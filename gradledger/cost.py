"""`gradledger cost`: price a training step, and the run that it belongs to, before any run."""

from collections import Counter
from dataclasses import dataclass, replace

import refimpl as ri
from costmodel import predict
from costmodel.advice import budget, energy, integers
from costmodel.device import device, process
from costmodel.device.device import HERE
from costmodel.formulas import paper
from refimpl.methods import registry
from refimpl.plan.plan import of_kind
from refimpl.surgery.for_step import outlined_for, weights_that_train

from . import called, options, recipe, smaller, whole_run
from .errors import Malformed, Refused, unknown
from .job import checked, planned
from .settings import AdaptSettings

called.can_be(__name__)
CONVENTIONS = ("macs", "flops", "paper")
ARITHMETIC = ("mul", "add")


@dataclass
class CostSettings(AdaptSettings):
    """What decides a price: what decides the run of `adapt`, with its defaults, and how and where it is priced.

    data: None prices a step alone, unless `samples` says how many would train.
    """

    data: str | None = None
    samples: int | None = None
    device: str = HERE
    convention: str = "macs"
    fit: str | None = None
    integer_ratio: str = "width"


def run(settings: CostSettings) -> dict:
    """Price a training step of `adapt` with the same settings and, with data, the whole run; returns the record.

    Runs no kernel and compiles none. Raises Malformed for a bad value, Refused where the memory limit does not hold.
    """
    if settings.convention not in CONVENTIONS:
        raise unknown("convention", settings.convention, CONVENTIONS)
    if settings.integer_ratio not in integers.RATIOS:
        raise unknown("value of --integer-ratio", settings.integer_ratio, tuple(integers.RATIOS))
    for name in ("samples", "threads"):
        options.at_least_1(name, getattr(settings, name))
    if settings.samples is not None and settings.data is not None:
        raise Malformed("--samples and --data both tell how many samples train: give one of them")
    checked(settings)
    methods, limit = options.methods(settings.method), options.byte_count(settings.memory_limit)
    if settings.fit is not None:
        check_fit(settings, methods)
    on, backend = options.priced_on(settings.device, settings.backend)
    threads = options.threads_of(settings.device, on, settings.threads)
    settings = replace(settings, threads=threads, backend=backend)
    settings, given, samples = whole_run.read(settings)
    batch = settings.batch if samples is None else min(settings.batch, samples.part)
    plan, method = planned(settings)
    fitted = {}
    try:
        plan = recipe.with_layers(with_weights(plan, settings, given, samples), given, settings.train_last)
        if settings.fit is None:
            program = smaller.compiled(settings, given, plan, batch)
        else:
            graph = outlined_for(plan.step, given, weights_that_train(plan, given))
            program, fitted = fit(settings, graph, methods, plan, limit, batch)
            plan = program.plan
            made = [rule for rule in (plan.instances, *plan.rules, plan.depth) if rule]
            method = " + ".join(map(options.describe, made))
    except ri.ShapeError:
        raise
    except ri.MemoryLimitError as e:
        about = {"model": settings.model, "batch": batch, "method": method, "fit": {"weights": settings.fit}}
        bounds = {"memory_limit": limit, "lower_bound_bytes": e.lower_bound, "smallest_limit_bytes": e.needed}
        raise Refused(str(e), about | bounds) from None
    except ValueError as e:
        raise Malformed(str(e)) from None
    record = {
        "model": settings.model,
        "classes": program.step.host_reads["output"].shape[1],
        "size": list(program.size),
        "batch": batch,
        "method": method,
        "train_last": plan.train_last,
        "counted": of_kind(program.graph),
        "optimizer": settings.optimizer,
        "momentum": getattr(plan.step.optimizer, "momentum", None),
        "batch_norm": plan.batch_norm,
        "threads": program.threads,
        "backend": program.backend,
        "convention": settings.convention,
        "peak_bytes": program.peak_bytes,
        "state_bytes": program.state_bytes,
        "constant_bytes": program.constant_bytes,
        "memory": budget.terms(program),
        **fitted,
    }
    if limit is not None:
        record["memory_limit"] = limit
        if settings.fit is None:
            smaller.check_limit(settings, given, plan, program, limit, record)
    estimate = predict.estimate(program, device=on)
    record |= priced(estimate) | {"integers": whole_numbers(estimate, settings.integer_ratio)}
    resident = process.with_a_batch(program, on.base)
    peak = resident and sum(resident.values())
    record |= {"resident_bytes": peak, "resident": resident, "fits": budget.fits(program, on, peak)}
    if record["fits"]["ok"] is False:
        record["would_fit"] = smaller.SmallerSearch(settings, given, plan, batch, lambda p, n: on_device(p, on)).found()
    record |= {"energy": energy.joules(estimate)}
    if settings.convention == "paper":
        record |= counted_as_paper(program)
    if samples is not None:
        record["run"] = whole_run.priced(settings, given, estimate, samples)
        if record["fits"]["ok"] and record["run"]["ok"] is False:

            def need(p: ri.Program, n: int) -> tuple[int, bool]:
                return of_fits(whole_run.fits(settings, given, p, samples, on)[1])

            record["would_fit"] = smaller.SmallerSearch(settings, given, plan, batch, need).found()
    return {"ok": True, **record}


def on_device(program: ri.Program, on: device.Device) -> tuple[int, bool]:
    """The bytes of the scarcest memory of a device that a step needs, and whether all of them suffice."""
    resident = process.with_a_batch(program, on.base)
    return of_fits(budget.fits(program, on, resident and sum(resident.values())))


def of_fits(fits: dict) -> tuple[int, bool]:
    """The bytes that are needed of the scarcest memory, and whether they are there as far as it is known."""
    scarcest = max(fits["needs"], key=lambda kind: fits["needs"][kind] / (fits["has"][kind] or 1))
    return fits["needs"][scarcest], fits["ok"] is not False


def with_weights(plan: ri.Plan, settings: CostSettings, graph, samples: whole_run.SampleCounts | None) -> ri.Plan:
    """The plan with weights of classes where they are asked for: of the data, else 1 for each."""
    if settings.class_weights != recipe.BALANCED:
        return plan
    classes = graph.shape(graph.output)[-1]
    known = samples is not None and samples.labels is not None
    return replace(plan, class_weights=recipe.balanced(samples.labels, classes) if known else (1.0,) * classes)


def check_fit(settings: CostSettings, methods: options.Methods) -> None:
    """Malformed where --fit lacks what it needs."""
    if settings.fit not in budget.WEIGHTS:
        raise unknown("value of --fit", settings.fit, budget.WEIGHTS)
    if settings.memory_limit is None:
        raise Malformed("--fit chooses what fits into --memory-limit: give one, as --memory-limit 256KiB")
    names = registry.fitted()
    if not set(names) & methods.given.keys():
        raise Malformed(f"--fit chooses layers and ratio of {' or '.join(names)}: name it, as --method {names[0]}")


def fit(
    settings: CostSettings, graph, methods: options.Methods, plan: ri.Plan, limit: int, batch: int
) -> tuple[ri.Program, dict]:
    """The program that fits, and what was chosen. A ratio that was given stays; layers given are the most to take."""
    chosen = budget.fitted_rule(plan)
    assert chosen, "check_fit asks for one"
    given, setting = methods.given[chosen.method], chosen.states.fitted
    ratios = (given[setting],) if setting in given else budget.RATIOS
    most = None if plan.train_last == "all" else plan.train_last
    found = budget.fit(
        graph, limit, batch, ratios=ratios, max_layers=most, plan=plan, weights=settings.fit,
        backend=settings.backend, threads=settings.threads,
    )  # fmt: skip
    share = getattr(budget.fitted_rule(found.plan), setting)
    fitted = {"weights": settings.fit, "layers": found.plan.train_last, "ratio": share, "needed": found.needed}
    return found.program, {"fit": fitted}


def priced(estimate: predict.Estimate) -> dict:
    """Operations, bytes and seconds of a step and of each of its layers."""
    program = estimate.program
    sections = {name: operations(units) for name, units in estimate.sections.items()}
    others = {
        name: {u: n for u, n in units.items() if u not in ARITHMETIC} for name, units in estimate.sections.items()
    }
    saved, weights = saved_by_node(program), weights_by_node(program)
    known = nodes(program)
    layers = []
    for layer in estimate.layers:
        by_section = {name: operations(units) for name, units in layer.sections.items()}
        kept = {"saved_bytes": saved.get(layer.name, 0), "weight_bytes": weights.get(layer.name, 0)}
        about = known.get(layer.name) or {"name": layer.name, "op": layer.name, "shape": [], "rule": ""}
        done = {"flops": layer.flops, "executed_flops": layer.executed.mul + layer.executed.add}
        layers.append(about | by_section | done | kept)
    chosen = {}
    if program.plan.instances:
        all_three = [estimate, *estimate.bounds.values()]
        entering = [entered(one) for one in all_three]
        for end, of in (("_low", min), ("_high", max)):
            chosen[f"samples{end}"] = {s: of(one[s] for one in entering) for s in sections}
            chosen[f"macs{end}"] = of(one.macs for one in all_three)
        chosen["samples"] = entering[0]
    for phase in sorted({"forward", "backward"} - sections.keys()):  # of a step whose sections are called otherwise
        of_phase = [units for call, units in estimate.calls.items() if call.phase == phase]
        sections[phase] = operations(sum(of_phase, Counter()))
    return {
        **sections,
        **chosen,
        "other_units": others,
        "flops": estimate.flops,
        "macs": estimate.macs,
        "executed": executed(estimate),
        "saved_bytes": program.saved_bytes,
        "traffic_bytes": estimate.traffic_bytes,
        "weight_bytes": sum(weights.values()),
        "device": estimate.device.name,
        "device_measured": estimate.device.measured,
        "device_note": estimate.device.note,
        "seconds": estimate.seconds,
        "layers": layers,
    }


def whole_numbers(estimate: predict.Estimate, ratio: str) -> dict:
    """Product-accumulates of whole numbers by the bits of their factors, and the macs of the step with them."""
    found = integers.products(estimate)
    imacs = {f"{a}x{b}": n for (a, b), n in found.items()}
    return {
        "imacs": imacs,
        "ratio": ratio,
        "as_macs": integers.as_macs(found, ratio),
        "macs": integers.weighed_macs(estimate, ratio),
    }


def executed(estimate: predict.Estimate) -> dict:
    """What the kernels execute on their own geometry: of each section, and of the step."""
    flops = estimate.executed_flops
    sections = {name: {"mul": ops.mul, "add": ops.add} for name, ops in estimate.executed.items()}
    return {"sections": sections, "flops": flops, "macs": predict.as_macs(flops)}


def entered(estimate: predict.Estimate) -> dict[str, float]:
    """Samples of each section that are expected in a step."""
    return {turn.section: turn.samples * turn.times for turn in estimate.turns.values()}


def counted_as_paper(program: ri.Program) -> dict:
    """What replaces the totals and the layers under `--convention paper`."""
    try:
        price = paper.price(program.graph, program.plan, program.batch, program.size)
    except ValueError as e:
        raise Malformed(str(e)) from None
    weights, known = weights_by_node(program), nodes(program)
    layers = [
        known[layer.name]
        | {"flops": layer.flops, "terms": dict(layer.terms), "saved_bytes": layer.saved_bytes}
        | {"weight_bytes": weights.get(layer.name, 0)}
        for layer in price.layers
    ]
    totals = {"flops": price.flops, "macs": predict.as_macs(price.flops), "saved_bytes": price.saved_bytes}
    return totals | {"layers": layers}


def operations(units) -> dict[str, int]:
    """Multiplications and additions."""
    return {u: units[u] for u in ARITHMETIC}


def nodes(program: ri.Program) -> dict[str, dict]:
    """Name, operator, output shape and rule of each node."""
    shapes = program.graph.shapes(program.batch, program.size)
    trained = program.plan.trained(program.graph)
    found = {}
    for node in program.graph.nodes:
        rule = ""
        if node.params:
            chosen = " + ".join(options.describe(r) for r in program.plan.rules_of(node))
            rule = "frozen" if node.name not in trained else chosen or "dense"
        found[node.name] = {"name": node.name, "op": node.op, "shape": list(shapes[node.name]), "rule": rule}
    return found


def saved_by_node(program: ri.Program) -> dict[str, int]:
    """Bytes kept from forward to backward, by the node that makes them; what the host fills, by its first reader."""
    maker: dict = {}
    for call in program.step:
        for b in (*call.writes, *call.reads):
            maker.setdefault(b.root, call.node)
    found: dict[str, int] = {}
    for b, nbytes in program.saved.items():
        node = maker.get(b) or b.name.rsplit(".", 1)[0]  # what lowering adds is named after its node
        found[node] = found.get(node, 0) + nbytes
    return found


def weights_by_node(program: ri.Program) -> dict[str, int]:
    """Bytes of the parameters and running statistics of each node."""
    found: dict[str, int] = {}
    for name, b in program.step.parameters.items():
        node = name.rsplit(".", 1)[0]
        found[node] = found.get(node, 0) + b.nbytes
    return found
