"""Work of refimpl.backends.cpu.niti: products of whole numbers, taps in the padding left out."""

from refimpl.compiler.executed import executed

from ..stated import states_work


@states_work("niti.sums", "niti.grad_x", "niti.grad_w")
def product(launch, threads):
    """A product each."""
    samples = max(b.shape[0] // b.batched for b in launch.buffers if b.batched)
    return {"mac": executed(launch, samples, lambda call, n: {}).imul}
