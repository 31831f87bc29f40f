"""Proposition 1 of gradient filtering (arXiv 2301.00330): what the patch means of dy lose, and what dx then loses.

Signal-to-noise ratios are of energies, SNR(ã) = ‖a‖² / ‖a − ã‖². For a map g with the spectrum G the paper states

    SNR(g̃) = (1 − (2r²−1)/r⁴ · G²[0,0] / ΣG²)⁻¹                                   (closed form)
    SNR(dx̃) ≥ SNR(g̃) where Θ²[0,0] ≥ max Θ²[u,v], Θ the kernel's spectrum          (the spectral condition)

with G² for |G|². When they hold:
  [ours] Both follow, in one line each, from this model: the spectrum of g̃ is G[0,0]/r² at the DC component and zero
         elsewhere; and dx = g∗θ for one kernel on a circular map, so that the spectrum of dx is ΘG. The error then has
         the energy ΣG² − (1 − (1 − 1/r²)²)·G²[0,0], which is the closed form, and Θ²[0,0] only weighs the part that
         is saved more. With several channels, with borders and with eq. (3) in place of g̃∗θ nothing is promised.
  [ours] Our reading of G is the r×r DFT of one patch: G[0,0]/r² is its mean, as the factor says. But a patch filled
         with its mean has G[0,0] at the DC component, not G[0,0]/r². So what the method does is the projection on maps
         that are constant in patches, with SNR(g̃) = (1 − G²[0,0]/ΣG²)⁻¹, and the closed form, equal at r = 1 alone,
         is a lower bound: it cannot exceed (1 − 1/r²)⁻², 1.78 for r = 2, however smooth the map.
  [ours] r² stands for the number of elements of a patch: a border patch, or a map of one row, has fewer.
  [ours] Energies are summed over samples, patches and channels before they are divided.
  [ours] The spectrum of a kernel is its DFT at its own size, R×S, for each pair (c,k) of channels. Table 5's energy
         ratio is read as Σ DC energy / Σ largest other energy over the kernels of a layer; a net's is the mean over
         its layers wider than 1×1. (The mean of the kernels' own ratios belongs to the few whose divisor is near 0.)
"""

from dataclasses import dataclass

import numpy as np

from refimpl.compiler.program import Program
from refimpl.methods import gradient_filter

TABLE_5 = {"ResNet": 1.462, "VGG": 1.497, "DenseNet": 2.278, "EfficientNet": 1.240}  # energy ratio of published nets


@dataclass
class Energies:
    """Sums of squares over the maps seen so far for Proposition 1: of dy, of dy − g̃, the same by the closed form."""

    signal: float = 0.0
    error: float = 0.0
    closed_form_error: float = 0.0

    def add(self, dy: np.ndarray, patch: tuple[int, int], align: int) -> None:
        """Add the maps dy (N, P, Q, K) under a filter's `patch` and `align`, as its passes take them."""
        dy = np.asarray(dy, np.float64)
        mean = patch_means(dy, patch, align)
        elements = patch_elements(dy.shape[1:3], patch, align)[None, :, :, None]
        self.signal += float(np.vdot(dy, dy))
        self.error += float(np.vdot(dy - mean, dy - mean))
        # G[0,0] of a patch is elements·mean and ΣG² is elements·Σdy²: each element saves (2r²−1)/r⁴·r²·mean²/r².
        kept = (2 * elements - 1) / elements**2 * mean**2
        self.closed_form_error += float(np.vdot(dy, dy) - kept.sum())

    @property
    def snr(self) -> float | None:
        """Measured SNR(g̃); None where nothing is lost."""
        return ratio(self.signal, self.error)

    @property
    def closed_form(self) -> float | None:
        """SNR(g̃) by the closed form; None where it says that nothing is lost."""
        return ratio(self.signal, self.closed_form_error)


def ratio(signal: float, error: float) -> float | None:
    """SNR of Proposition 1, of energies: signal / error; None where the error is zero, or rounding of float64."""
    return signal / error if error > 1e-14 * signal else None


def filter_of(program: Program, node: str) -> tuple[tuple[int, int], int] | None:
    """`patch` and `align` of the filter of a convolution's gradients, None where there is none."""
    pool = next((c for c in program.step if c.node == node and c.passed is gradient_filter.pool_dy), None)
    return pool and (pool.attrs["patch"], pool.attrs["align"])


def patch_means(dy: np.ndarray, patch: tuple[int, int], align: int) -> np.ndarray:
    """g̃ (N, P, Q, K), eq. (2): each element of dy (N, P, Q, K) as the mean of its patch."""
    mean = gradient_filter.pool_dy(dy, patch=patch, align=align)
    return gradient_filter.expand(mean, H=dy.shape[1], W=dy.shape[2], patch=patch, align=align)


def patch_elements(size: tuple[int, int], patch: tuple[int, int], align: int) -> np.ndarray:
    """(P, Q): how many elements of a map of `size` the patch of each has."""
    ones = np.ones((1, *size, 1))
    count = gradient_filter.pool_x(ones, U=-(-size[0] // patch[0]), V=-(-size[1] // patch[1]), patch=patch, align=align)
    return gradient_filter.expand(count, H=size[0], W=size[1], patch=patch, align=align)[0, :, :, 0]


def kernel_energies(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """DC energy Θ²[0,0] and largest other energy of each kernel of w (R, S, C/G, K): two arrays (C/G, K).

    The DFT has the kernel's own size R×S; a 1×1 kernel has no other component, and its largest is 0.
    """
    energy = np.abs(np.fft.fft2(np.asarray(w, np.float64), axes=(0, 1))) ** 2
    energy = energy.reshape(-1, *w.shape[2:])
    return energy[0], energy[1:].max(0, initial=0.0)


def spectral_condition(w: np.ndarray) -> dict:
    """The condition of Proposition 1 on w (R, S, C/G, K).

    condition: share of its kernels for which it holds; energy_ratio: as we read Table 5, None for 1×1 kernels.
    """
    dc, other = kernel_energies(w)
    total = float(other.sum())
    return {"condition": float(np.mean(dc >= other)), "energy_ratio": float(dc.sum()) / total if total else None}
