"""What the papers state, one row a statement, in the letters of this library (`instruments.equations` uses it).

A key is the number of an equation, the name of a numbered statement, or, where a paper has no number for it, a name of
ours. `source` says where a row is from: the paper, second-hand (somebody's summary of it), or our reading. Letters:
N batch; H W and P Q rows and columns of input x and output y; C and K their channels; R S those of the kernel w; dy =
∂L/∂y; U V patches along rows and columns.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class PaperStatement:
    """One row. home: the file, from the repository's root, that is to hold it; once that exists, it must."""

    key: str
    text: str
    source: str
    home: str

    @property
    def label(self) -> str:
        """How docstrings cite it."""
        return f"eq. ({self.key})" if self.key.isdecimal() else self.key

    @property
    def slug(self) -> str:
        """How the names of its tests begin, after `test_`."""
        return re.sub(r"\W+", "_", self.label.lower()).strip("_")


@dataclass(frozen=True)
class Paper:
    """A paper and its statements. later: the reason why none of them is implemented yet; empty where they are."""

    number: str
    title: str
    statements: tuple[PaperStatement, ...]
    later: str = ""


def rows(home: str, source: str, texts: dict[str, str]) -> tuple[PaperStatement, ...]:
    """Statements with one home and one source."""
    return tuple(PaperStatement(key, text, source, home) for key, text in texts.items())


FILTER = "refimpl/methods/instance_filter.py"
PRUNING = "refimpl/methods/error_map_pruning.py"
SPARSE = "refimpl/methods/sparse_update.py"
QUANTIZED = "refimpl/methods/quantized.py"

PAPERS = (
    Paper(
        "2301.00330",
        "Efficient On-device Training via Gradient Filtering",
        rows(
            "refimpl/methods/gradient_filter.py",
            "paper",
            {
                "2": "g̃[n,u,v,k] = mean of dy[n,·,·,k] over the r×r patch (u,v)",
                "3": "dx on all of patch (u,v) = Σ_k g̃[n,u,v,k]·w̃[c,k], w̃[c,k] = Σ_{r,s} w[r,s,c,k]",
                "5": "dw[r,s,c,k] = Σ_{n,u,v} x̃[n,u,v,c]·g̃[n,u,v,k] for every (r,s), x̃ = sum of x over the patch",
                "supplement B.4": "each patch is treated as if it extended far enough: no mixing at its border",
            },
        )
        + rows("costmodel/formulas/paper.py", "paper", {"15": "operations of dx: ⌈P/r⌉·⌈Q/r⌉·C·(2K − 1) + o(PQ)"})
        + rows(
            "validation/instruments/gradient_filter_spectrum.py",
            "paper",
            {
                "Proposition 1": "if Θ²[0,0] ≥ Θ²[u,v] in the kernel's spectrum Θ, then SNR(dx̃) ≥ SNR(g̃) = "
                "(1 − (2r²−1)/r⁴·G²[0,0]/ΣG²)⁻¹, G the spectrum of dy"
            },
        ),
    ),
    Paper(
        "2007.03213",
        "Enabling On-Device CNN Training by Self-Supervised Instance Filtering and Error Map Pruning",
        rows(
            FILTER,
            "paper",
            {
                "1": "y_i = H where loss_i ≥ T, else L",
                "2": "R_TH = 1/(m·n)·Σ 1[pred_i = H]·1[y_i = H] over the last n mini-batches of m instances",
                "3": "T ← α₁·T where R_TH ≥ R_set, else α₂·T; α₁ > 1 > α₂",
            },
        )
        + rows(
            FILTER,
            "paper; numbers within a pair: our reading",
            {
                "4": "entropy of the filter's prediction: −Σ_c p_c·log p_c",
                "5": "a dropped instance whose entropy exceeds a threshold is run forward, for its loss and label",
                "6": "weights of instances labelled H, 1/R_set, and labelled L, 1/(1 − R_set)",
                "7": "the filter's loss: cross-entropy with these weights, normalised so that they sum to 1",
            },
        )
        + rows(PRUNING, "paper", {"8": "dx = Σ over the kept channels k alone of dy_k convolved with the rotated w_k"})
        + rows(
            PRUNING,
            "paper; which of (11), (14): our reading",
            {"11": "score of channel k for one instance: s_k = γ₁·‖w_k‖₁ + γ₂·‖dy_k‖₁"},
        )
        + rows(PRUNING, "paper", {"12": "dw_k for the kept channels k alone, 0 for the others"})
        + rows(
            PRUNING,
            "paper; which of (11), (14): our reading",
            {"14": "score for the mini-batch: S_k = Σ of s_k over its instances; the α·K largest are kept"},
        ),
    ),
    Paper(
        "2503.17959",
        "Dynamic Gradient Sparse Update for Edge Training",
        rows(
            SPARSE,
            "our reading of the abstract",
            {
                "input-channel selection": "a convolution updates max(1, round(ratio·C)) input channels and stores "
                "these alone: dw[·,·,c,·] needs x[…,c] only",
                "cyclic traversal": "the selection walks through a permutation of the channels in blocks: each is "
                "visited at least once in ⌈C/kept⌉ iterations",
            },
        )
        + rows(
            SPARSE,
            "second-hand; borders: our reading",
            {"stages": "the selection is fixed, then dynamic, then fixed again"},
        )
        + rows(
            "costmodel/advice/budget.py",
            "second-hand; terms: our reading",
            {"memory budget": "as many layers as fit into the bytes given, late ones first, a small ratio in each"},
        )
        + rows(
            "refimpl/ops/block_prune.py",
            "second-hand",
            {"block activation pruning": "a block whose activations all lie below a threshold is zeroed"},
        )
        + rows(
            "refimpl/surgery/prune.py",
            "second-hand",
            {"dependency graph": "channels that depend on each other are removed together, before training"},
        ),
    ),
    Paper(
        "2010.14298",
        "A Statistical Framework for Low-bitwidth Training of Deep Neural Networks",
        rows(
            QUANTIZED,
            "second-hand; scales without a zero point: our reading",
            {
                "per-tensor quantizer": "dy is quantized with one scale for all of it",
                "per-sample quantizer": "dy is quantized with a scale for each sample",
                "unbiased rounding": "dy is rounded at random to one of its two neighbours, so that E[s·q] = dy",
            },
        ),
    ),
    Paper(
        "1805.11046",
        "Scalable Methods for 8-bit Training of Neural Networks",
        rows(
            QUANTIZED,
            "second-hand",
            {"gradient bifurcation": "dy is quantized with 16 bits for dw and with 8 bits for dx"},
        )
        + rows(
            "refimpl/methods/quantized_norm.py",
            "second-hand; ε and running statistics: our reading",
            {"range batch norm": "σ = (max x − min x)/(2·√(2·ln M)) in place of the deviation of M values"},
        ),
    ),
    Paper(
        "2009.13108",
        "NITI: Training Integer Neural Networks Using Integer-only Arithmetic",
        rows(
            "refimpl/ops/shared_exponent.py",
            "second-hand",
            {"range by the highest bit": "the highest bit of the largest sum tells by how many bits all are shifted"},
        )
        + rows(
            "refimpl/kernels/shared_exponent.py",
            "second-hand; which bits are compared: as in its author's public code",
            {"pseudo-stochastic rounding": "the bits that are cut off decide whether a number is rounded up"},
        )
        + rows(
            "refimpl/ops/niti_cross_entropy.py",
            "second-hand; the approximation: our reading",
            {"integer cross-entropy": "the error of the last layer, softmax less one-hot, in whole numbers"},
        )
        + rows(
            "refimpl/ops/niti_update.py",
            "second-hand; how a rate says the bits: our reading",
            {"integer update": "w ← w − dw shifted to few bits"},
        )
        + rows(
            "refimpl/methods/niti.py",
            "second-hand",
            {"integer-only step": "forward, loss, backward and update in whole numbers that share exponents"},
        ),
    ),
    Paper(
        "2206.15472",
        "On-Device Training Under 256KB Memory",
        rows(
            "refimpl/ops/quantized_sgd.py",
            "second-hand; rounding at random: our reading",
            {
                "quantization-aware scaling": "the gradient of whole weights is multiplied by w_scale⁻², that of "
                "biases by w_scale⁻²·x_scale⁻²"
            },
        )
        + rows(
            "refimpl/methods/sparse_update_whole.py",
            "second-hand; which channels: our reading",
            {"sparse update in whole numbers": "chosen channels of int8 maps are kept, chosen int8 weights updated"},
        ),
    ),
    Paper(
        "2411.04036",
        "Stepping Forward on the Last Mile",
        rows(
            "refimpl/methods/forward_gradient.py",
            "paper",
            {
                "1": "g = (∇f·z)·z; z independent, zero mean, unit variance",
                "2": "ĝ = [L(w + ε·z) − L(w − ε·z)]/(2ε)·z, z ~ N(0, I)",
                "3": "ĝ = 1/m·Σ_i sign(L(w + ε·z_i) − L(w − ε·z_i))·z_i",
                "4": "w ← w − η·ĝ",
                "5": "w_q = round(w/Δw), Δw = ‖w‖_∞/(2^(b−1) − 1): one scale a tensor, b bits",
                "6": "perturbed weights Δw·Δz·(w_q·1_q ± ε_q·z_q), requantized by Δw; 1_q = round(1/Δz), "
                "ε_q = round(ε/Δw)",
                "7": "ĝ ≈ Δz·g_q, g_q = 1/m·Σ_i sign(·)·z_q",
                "8": "w_q ← w_q − round(η·Δz/Δw·g_q)",
                "9": "kernel-wise normalization of layer i: ĝ(wⁱ) = sign(·)·zⁱ/‖zⁱ‖·‖wⁱ‖",
                "10": "products of 16×8 bits summed in 32, requantized by (·)·M >> k, M/2^k ≈ Δz",
                "momentum-guided sampling": "z_{t+1} = β·z₁ + (1−β)·z₂, z₁ ~ N(0, √α·I), z₂ ~ N(z_t, √(1−α)·I)",
                "sharpness-aware perturbation": "one more ascent step by perturbation before the estimate",
                "sparse perturbation": "a subset of the weights alone is perturbed and updated",
                "binomial perturbation": "z of ±1 in place of a normal z",
            },
        ),
        later="not implemented yet",
    ),
)
