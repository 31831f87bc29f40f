"""What a recipe did, in sentences, from the `course` of a record."""


def sentences(record: dict) -> list[str]:
    """A line for each part of the recipe; none for a plain run."""
    course, lr = record["course"], record["settings"]["lr"]
    if not course.get("looks"):
        return []
    held, looks, best, found = record["samples"]["validation"], course["looks"], course["best"], []
    if first := course["first"]:
        gain = f"accuracy {share(first['before']['measure'])} to {share(first['after']['measure'])}"
        how = f"at a rate of {first['rate']:g}" if first["rate"] else "no rate improved it"
        if passes := first["again"]:
            how += f"; once more, {passes} passes over all samples, for when the probes are over"
        found.append(f"the classifier first, alone: {gain} on the {held} samples held out, {how}")
    if direct := course["direct"]:
        least = min((look[1] for look in direct if look[1] is not None), default=None)
        end = "that is the run" if course["at_once"] else "the run begins with the classifier"
        found.append(
            "all layers at once, with the classifier as it was: loss on the samples held out "
            f"{shown(least)}, of the classifier alone {shown(looks[0][1])}: {end}"
        )
    if tried := course["tried"]:
        losses = ", ".join(f"{factor * lr:.3g} → {shown(loss)}" for factor, loss in tried)
        found.append(f"learning rates tried, and the loss on samples held out, {shown(looks[0][1])} before: {losses}")
    lowered = f", lowered {times(course['lowered'])}" if course["lowered"] else ""
    if again := course.get("again"):
        if not again["made"]:
            stays = "the weights stay as they were"
            if first and first["again"]:
                stays = "only the classifier, which trained on all samples, is new"
            return [*found, f"no rate was better than what it began with: {stays}"]
        end = "its weights are kept" if again["kept"] else "it ended worse, the best weights seen before are kept"
        return [*found, f"then all samples, {again['made']} steps at {course['factor'] * lr:.3g}: {end}"]
    if course["at_once"]:
        step, _, right = min((look for look in direct if look[1] is not None), key=lambda look: look[1])
        found.append(f"the best of {len(direct)} looks in the run, after {step} steps: accuracy {share(right)}")
        return found
    if best == 0:
        found.append(f"the run found nothing better than it began with, and ended after {looks[-1][0]} steps{lowered}")
        return found
    seen = f"loss {looks[0][1]:.3g} to {looks[best][1]:.3g}, accuracy {share(looks[0][2])} to {share(looks[best][2])}"
    found.append(f"the best of {len(looks)} looks in the run, after {looks[best][0]} steps{lowered}: {seen}")
    return found


def shown(loss: float | None) -> str:
    """A loss; None is one that was not finite."""
    return "not finite" if loss is None else f"{loss:.3g}"


def share(value: float) -> str:
    """In percent."""
    return f"{100 * value:.1f} %"


def times(count: int) -> str:
    """Once, or how often."""
    return "once" if count == 1 else f"{count} times"
