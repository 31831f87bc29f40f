"""What a recipe did, in sentences, from the `course` of a record."""


def sentences(record: dict) -> list[str]:
    """A line for each part of the recipe; none for a plain run."""
    course, lr = record["course"], record["settings"]["lr"]
    if not course.get("looks"):
        return []
    held, found = record["samples"]["validation"], []
    if first := course["first"]:
        gain = f"accuracy {share(first['before']['measure'])} to {share(first['after']['measure'])}"
        how = f"at a rate of {first['rate']:g}" if first["rate"] else "no rate improved it"
        found.append(f"the classifier first, alone: {gain} on the {held} samples held out, {how}")
    if len(course["probed"]) > 1:
        losses = ", ".join("not finite" if loss is None else f"{loss:.3g}" for _, loss, _ in course["probed"])
        found.append(f"rates tried, the default and less: loss {losses} on the samples held out")
    looks, best = course["looks"], course["best"]
    lowered = f", lowered {times(course['lowered'])}" if course["lowered"] else ""
    again = course.get("again")
    run = "the rehearsal" if again else "the run"
    if best == 0:
        found.append(f"{run} found nothing better than it began with, and ended after {looks[-1][0]} steps{lowered}")
        return found
    seen = f"loss {looks[0][1]:.3g} to {looks[best][1]:.3g}, accuracy {share(looks[0][2])} to {share(looks[best][2])}"
    found.append(f"the best of {len(looks)} looks in {run}, after {looks[best][0]} steps{lowered}: {seen}")
    if again:
        rate = f"at {course['factor'] * lr:g}" if again["begun"] else ""
        end = "its weights are kept" if again["kept"] else "it ended worse, the rehearsal's weights are kept"
        found.append(f"then all samples, {again['made']} steps {rate}: {end}")
    return found


def share(value: float) -> str:
    """In percent."""
    return f"{100 * value:.1f} %"


def times(count: int) -> str:
    """Once, or how often."""
    return "once" if count == 1 else f"{count} times"
