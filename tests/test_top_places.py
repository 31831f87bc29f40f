from node_cases import any_shape

import oracles
from checks import Case, Subject, rng_of


def case(pick):
    shape = any_shape(pick)
    x = rng_of(pick).integers(0, 5, shape).astype(float)  # some of which are equal
    return Case({"x": x}, {"count": pick(1, shape[-1]), "smallest": bool(pick(0, 1))})


def by_torch(F, t, attrs):
    found = t["x"].sort(dim=-1, descending=not attrs["smallest"], stable=True).indices
    return found[..., : attrs["count"]].to(t["x"])


subject = Subject("top_places", case, oracles.top_places, by_torch)
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()
