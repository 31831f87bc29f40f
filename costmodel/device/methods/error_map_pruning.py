"""Work of the kernels of refimpl.methods.error_map_pruning."""

from ..stated import states_work


@states_work("error_map_pruning.rank")
def ranked(launch, threads):
    """Each channel is compared with each."""
    return {"pair": launch.covers[0].sizes["K"] ** 2}


@states_work("error_map_pruning.keep")
def chosen(launch, threads):
    """Each kept channel is looked for among all."""
    sizes = launch.covers[0].sizes
    return {"pair": sizes["L"] * sizes["K"]}
