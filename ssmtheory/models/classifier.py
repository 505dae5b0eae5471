"""A network of linear time-invariant layers that maps a sequence to a few numbers: classes, or the values to regress.

encoder -> blocks -> pooling over time -> decoder, each block (S4, arXiv 2111.00396, and S4D, 2206.11893, their code)

    x  ->  x + dropout(GLU(W dropout(GELU(layer(x)))))  ->  norm

with the residual path, the gate and the normalisation optional: the PTD authors' robustness experiment has no residual.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ssmtheory.errors import InputError
from ssmtheory.models.lti_layers import LTILayer, _choice, make_layer

__all__ = ["NORMS", "POOLS", "Disturbance", "SequenceModel", "make_model"]

#: Where layer normalisation stands: after the block, before the layer, nowhere.
NORMS = ("layer", "pre", "none")
#: From a sequence to one vector.
POOLS = ("mean", "last")

#: (index of the layer, x (batch, length, d_model)) -> x of the same shape; index -1 is the input of the network.
Disturbance = Callable[[int, Tensor], Tensor]


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A linear map with the law of torch's own, uniform in +-1/sqrt(inputs), from a generator of its own."""
    made: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
    bound = inputs**-0.5
    with torch.no_grad():
        for weight in (made.weight, made.bias):
            weight.uniform_(-bound, bound, generator=generator)
    return made


class _Block(nn.Module):
    def __init__(self, layer: LTILayer, generator: torch.Generator, *, residual: bool, norm: str, glu: bool) -> None:
        super().__init__()
        width = layer.features
        self.layer = layer
        self.residual, self.norm_place, self.glu = residual, norm, glu
        self.norm = None if norm == "none" else nn.LayerNorm(width)
        self.mix = _linear(width, 2 * width if glu else width, generator)

    def forward(self, x: Tensor, index: int, disturb: Disturbance | None, drop: Callable[[Tensor], Tensor]) -> Tensor:
        z = self.norm(x) if self.norm is not None and self.norm_place == "pre" else x
        if disturb is not None:
            z = disturb(index, z)
        y = self.mix(drop(functional.gelu(self.layer(z))))
        y = drop(functional.glu(y, dim=-1) if self.glu else y)
        if self.residual:
            y = x + y
        return self.norm(y) if self.norm is not None and self.norm_place == "layer" else y


class SequenceModel(nn.Module):
    """Sequences to vectors of logits or of regressed values.

    Args:
        inputs: numbers at each step of the input.
        outputs: classes, or values to regress.
        layers: the layers, in order: `LTILayer` or functions without arguments that make one.
        d_model: width, the number of features of every layer.
        dropout: probability; a dropped feature is dropped at all steps of its sequence.
        residual: whether a block adds its input to its output.
        norm: layer normalisation: "layer" (after the block), "pre" or "none".
        glu: whether the mixing of features is gated.
        pool: "mean" over time, or the "last" step.
        seed: of the encoder, the mixing matrices, the decoder and the dropout.

    Raises:
        InputError: layers of another width, or unknown names.

    >>> model = make_model("s4d", 1, 3, d_model=4, depth=2, N=8)
    >>> model(torch.zeros(5, 16, 1)).shape
    torch.Size([5, 3])
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        layers: Sequence[LTILayer | Callable[[], LTILayer]],
        d_model: int,
        *,
        dropout: float = 0.0,
        residual: bool = True,
        norm: str = "layer",
        glu: bool = True,
        pool: str = "mean",
        seed: int = 0,
    ) -> None:
        super().__init__()
        _choice("norm", norm, NORMS)
        self.pool = _choice("pool", pool, POOLS)
        if not 0 <= dropout < 1:
            raise InputError(f"dropout={dropout!r}: must lie in [0, 1)")
        made = [layer if isinstance(layer, LTILayer) else layer() for layer in layers]
        if not made:
            raise InputError("layers is empty: the model needs at least one layer")
        for i, layer in enumerate(made):
            if layer.features != d_model:
                raise InputError(f"layer {i} has {layer.features} features: must have d_model={d_model}")
        self.dropout = dropout
        self.seed = seed
        self._draws = 0
        generator = torch.Generator().manual_seed(seed)
        self.encoder = _linear(inputs, d_model, generator)
        self.blocks = nn.ModuleList(
            _Block(layer, generator, residual=residual, norm=norm, glu=glu) for layer in made
        )  # fmt: skip
        self.decoder = _linear(d_model, outputs, generator)

    @property
    def layers(self) -> list[LTILayer]:
        """The linear layers, in order."""
        return [block.layer for block in self.blocks]  # type: ignore[misc]

    def reseed(self, step: int) -> None:
        """Let the next dropout masks be those of a step, so that a step is a function of (seed, step).

        Args:
            step: number of the step.
        """
        self._draws = step

    def _dropper(self, device: Any) -> Callable[[Tensor], Tensor]:
        if not self.training or not self.dropout:
            return lambda x: x
        generator = torch.Generator(device=device)
        state = np.random.SeedSequence([self.seed, self._draws]).generate_state(1, np.uint64)[0]
        generator.manual_seed(int(state >> np.uint64(1)))
        self._draws += 1
        keep = 1 - self.dropout

        def drop(x: Tensor) -> Tensor:
            mask = torch.empty(x.shape[0], 1, x.shape[2], dtype=x.dtype, device=x.device)
            return x * mask.bernoulli_(keep, generator=generator).div_(keep)

        return drop

    def forward(self, u: Tensor, disturb: Disturbance | None = None) -> Tensor:
        """Apply the network.

        Args:
            u: (batch, length, inputs).
            disturb: (index, x) -> x, applied to the input of each linear layer, index 0 and up, and with index -1 to u.

        Returns:
            (batch, outputs).
        """
        drop = self._dropper(u.device)
        if disturb is not None:
            u = disturb(-1, u)
        x = self.encoder(u)
        for index, block in enumerate(self.blocks):
            x = block(x, index, disturb, drop)
        x = x.mean(dim=1) if self.pool == "mean" else x[:, -1]
        return self.decoder(x)


def make_model(
    variant: str,
    inputs: int,
    outputs: int,
    *,
    d_model: int = 64,
    depth: int = 4,
    N: int = 64,
    seed: int = 0,
    dt_min: float = 1e-3,
    dt_max: float = 1e-1,
    train: Sequence[str] = ("C", "D"),
    mode: str = "auto",
    backend: str = "auto",
    real_part: str = "exp",
    per_feature: bool = True,
    scaling: str = "given",
    **options: Any,
) -> SequenceModel:
    """A model of equal layers by name.

    Args:
        variant: see `ssmtheory.models.parse_variant`.
        inputs: numbers at each step of the input.
        outputs: classes, or values to regress.
        d_model: width.
        depth: number of layers.
        N: states of a layer, both members of a conjugate pair counted.
        seed: of everything random; each layer draws its own.
        dt_min: smallest step in seconds.
        dt_max: largest step in seconds.
        train: which parts of the layers are trained.
        mode: of the layers: "auto", "convolution" or "recurrence".
        backend: of the shared scan.
        real_part: parametrisation of trained poles, "exp" or "free".
        per_feature: whether trained A and B differ from feature to feature.
        scaling: of the modes, "given" or "unit_input"; see `LTILayer`.
        options: of `SequenceModel`.

    Returns:
        The model.

    Raises:
        ConfigError: an unknown variant.
        InputError: sizes or names that cannot be.
    """
    seeds = [int(s) for s in np.random.SeedSequence([seed, 1]).generate_state(depth)]
    layers = [
        make_layer(
            variant, d_model, N, s, dt_min, dt_max, train=train, mode=mode, backend=backend, real_part=real_part,
            per_feature=per_feature, scaling=scaling,
        )
        for s in seeds
    ]  # fmt: skip
    return SequenceModel(inputs, outputs, layers, d_model, seed=seed, **options)
