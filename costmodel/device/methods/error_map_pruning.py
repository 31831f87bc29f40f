"""Work of the kernels of refimpl.methods.error_map_pruning."""

from ..stated import states_work


@states_work("error_map_pruning.rank")
def ranked(sizes):
    """Each channel is compared with each."""
    return {"pair": sizes["K"] ** 2}


@states_work("error_map_pruning.keep")
def chosen(sizes):
    """Each kept channel is looked for among all."""
    return {"pair": sizes["L"] * sizes["K"]}
