"""S5: block-diagonal normal parts of LegS for a layer with many inputs and outputs; LRU: modes drawn in a ring."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from ssmtheory.errors import InputError
from ssmtheory.inits import hippo
from ssmtheory.inits.base import (
    Initialization,
    LayerParameters,
    Realization,
    complex_normal,
    generators,
    lecun_normal,
    log_steps,
)
from ssmtheory.inits.closed_form import legs_family
from ssmtheory.inits.legs import legs_modes
from ssmtheory.lti import DiagonalStateSpace
from ssmtheory.typing import Array

__all__ = ["LRU", "S5", "block_diagonal", "block_size", "blocks_layer"]


def block_size(N: int, blocks: int) -> int:
    """States of one of several equal blocks.

    Args:
        N: number of states.
        blocks: number of blocks.

    Returns:
        N / blocks.

    Raises:
        InputError: blocks that do not divide N.
    """
    size, count = hippo.check_size(N), hippo.check_size(blocks, 1, "blocks")
    if size % count:
        raise InputError(f"blocks={blocks}, N={N}: the number of blocks must divide N")
    return size // count


def block_diagonal(block: Array, count: int) -> Array:
    """`count` copies of a matrix along the diagonal.

    Args:
        block: (p, q).
        count: number of copies.

    Returns:
        (count p, count q).
    """
    return np.kron(np.eye(count), block)


def blocks_layer(
    block: tuple[Array, Array, Array],
    blocks: int,
    features: int,
    N: int,
    seed: int,
    dt_min: float,
    dt_max: float,
    *,
    readout: Literal["pairs", "real"],
    C_init: str = "lecun",
    diagnostics: dict[str, Any] | None = None,
) -> LayerParameters:
    """A layer of equal diagonalised blocks, all features in and out: B = V^{-1} LeCun-normal, C = LeCun-normal V.

    Args:
        block: (poles (q,), V (N/blocks, q), V^{-1} (q, N/blocks)) of one block.
        blocks: number of blocks.
        features: number of features.
        N: number of states.
        seed: of B, C, D and the steps.
        dt_min: smallest step in seconds.
        dt_max: largest step in seconds.
        readout: "pairs" or "real".
        C_init: "lecun" or "complex_normal".
        diagnostics: kept with the layer.

    Returns:
        The parameters, scope "layer".

    Raises:
        InputError: sizes or steps that cannot be.
    """
    count = hippo.check_size(features, 1, "features")
    poles, V, inverse = block
    rng_b, rng_c, rng_d, rng_dt = generators(seed, "B", "C", "D", "steps")
    B = lecun_normal(rng_b, (N, count))
    if C_init == "lecun":
        C = lecun_normal(rng_c, (count, N)) @ block_diagonal(V, blocks)
    else:
        C = complex_normal(rng_c, (count, poles.size * blocks), 0.5)
    modes = np.tile(poles, blocks)
    return LayerParameters(
        modes,
        block_diagonal(inverse, blocks) @ B,
        C,
        log_steps(rng_dt, modes.size, dt_min, dt_max),
        readout=readout,
        D=rng_d.standard_normal(count),
        scope="layer",
        diagnostics=diagnostics or {},
    )


@dataclass(frozen=True)
class S5(Initialization):
    """S5 (arXiv 2208.04933): the normal part of LegS, repeated in blocks, one system for all features.

    Attributes:
        blocks: number J of blocks of N/J states each.
        C_init: law of C before V: "lecun" or "complex_normal" (variance 1/2, drawn in the modes' own basis).
        conjugate_pairs: store one mode of each pair, of negative imaginary part, as the code does.
        name: "s5".
    """

    name: ClassVar[str] = "s5"
    blocks: int = 1
    C_init: Literal["lecun", "complex_normal"] = "lecun"
    conjugate_pairs: bool = True

    def __post_init__(self) -> None:
        hippo.check_size(self.blocks, 1, "blocks")
        hippo.check_choice("C_init", self.C_init, ("lecun", "complex_normal"))

    def build(self, N: int, seed: int = 0) -> Realization:
        """Build the system that one HiPPO input drives through all blocks: each block is S4D-LegS with input B/2.

        Args:
            N: number of states.
            seed: not used.

        Returns:
            The realisation; with one block the closed form of S4D-LegS. Diagnostics: kappa (1), spectral_abscissa.

        Raises:
            InputError: blocks that do not divide N.
        """
        size = block_size(N, self.blocks)
        poles, V, b = legs_modes(size)
        closed = legs_family(size, 1.0, poles) if self.blocks == 1 else None
        basis = block_diagonal(V, self.blocks)
        system = DiagonalStateSpace(np.tile(poles, self.blocks), np.tile(b / 2, self.blocks), basis, closed_form=closed)
        return Realization(system, basis, {"kappa": 1.0, "spectral_abscissa": -0.5})

    def layer(
        self, features: int, N: int, seed: int = 0, dt_min: float = 1e-3, dt_max: float = 1e-1
    ) -> LayerParameters:
        """Draw a layer: B = V^{-1} times a LeCun-normal matrix, C times V, a step for each state, ZOH, D normal.

        Args:
            features: number of features, all of them inputs and outputs of one system.
            N: number of states, both members of a pair counted.
            seed: of B, C, D and the steps.
            dt_min: smallest step in seconds.
            dt_max: largest step in seconds.

        Returns:
            The parameters, scope "layer".

        Raises:
            InputError: sizes or steps that cannot be.
        """
        size = block_size(N, self.blocks)
        poles, V, _ = legs_modes(size)
        if self.conjugate_pairs:
            if size % 2:
                raise InputError(f"blocks of {size} states: half of the modes are stored, so their number must be even")
            poles, V = poles[size // 2 :], V[:, size // 2 :]
        return blocks_layer(
            (poles, V, V.conj().T), self.blocks, features, N, seed, dt_min, dt_max, C_init=self.C_init,
            readout="pairs" if self.conjugate_pairs else "real",
        )  # fmt: skip


@dataclass(frozen=True)
class LRU(Initialization):
    """LRU (arXiv 2303.06349): discrete modes drawn uniformly, by area, from a ring sector of the unit disc.

    Each mode's input is scaled by sqrt(1 - |lambda|^2), so that white noise gives every mode unit variance.

    Attributes:
        r_min: inner radius.
        r_max: outer radius, below 1.
        max_phase: largest phase in radians.
        name: "lru".
    """

    name: ClassVar[str] = "lru"
    r_min: float = 0.9
    r_max: float = 0.999
    max_phase: float = 2 * math.pi

    def __post_init__(self) -> None:
        if not 0 <= self.r_min <= self.r_max < 1:
            raise InputError(f"r_min={self.r_min!r}, r_max={self.r_max!r}: must satisfy 0 <= r_min <= r_max < 1")
        if not 0 <= self.max_phase <= 2 * math.pi:
            raise InputError(f"max_phase={self.max_phase!r}: must lie in [0, 2 pi]")

    def _modes(self, N: int, seed: int) -> Array:
        (rng,) = generators(seed, "modes")
        radius = np.sqrt(rng.uniform(self.r_min**2, self.r_max**2, hippo.check_size(N)))
        return radius * np.exp(1j * rng.uniform(0, self.max_phase, N))

    def build(self, N: int, seed: int = 0) -> Realization:
        """Draw N modes as one discrete system, each mode an output.

        Args:
            N: number of modes.
            seed: of the modes.

        Returns:
            The realisation, dt = 1; B holds the normalisation, C is the identity. Diagnostics: spectral_radius.

        Raises:
            InputError: an N that cannot be.
        """
        modes = self._modes(N, seed)
        eye = np.eye(modes.size)
        system = DiagonalStateSpace(modes, np.sqrt(1 - np.abs(modes) ** 2), eye, dt=1.0)
        return Realization(system, eye, {"spectral_radius": float(np.abs(modes).max())})

    def layer(
        self, features: int, N: int, seed: int = 0, dt_min: float = 1e-3, dt_max: float = 1e-1
    ) -> LayerParameters:
        """Draw a layer: B of variance 1/features, C of variance 1/N, both complex normal, D normal, y = Re(C x).

        Args:
            features: number of features, all of them inputs and outputs of one system.
            N: number of modes.
            seed: of everything.
            dt_min: not used; the modes are discrete.
            dt_max: not used.

        Returns:
            The parameters: scope "layer", no steps, `gain` the normalisation.

        Raises:
            InputError: sizes that cannot be.
        """
        count = hippo.check_size(features, 1, "features")
        modes = self._modes(N, seed)
        rng_b, rng_c, rng_d = generators(seed, "B", "C", "D")
        return LayerParameters(
            modes,
            complex_normal(rng_b, (N, count), 1 / count),
            complex_normal(rng_c, (count, N), 1 / N),
            None,
            readout="real",
            D=rng_d.standard_normal(count),
            scope="layer",
            discretization="none",
            gain=np.sqrt(1 - np.abs(modes) ** 2),
        )
