"""Part (c) of the experiment `robustness`: the amplitude of a sinusoid, regressed inside a band and asked beyond it.

Section 3.4 of the PTD paper (arXiv 2310.01698): training frequencies s in [0, 80], test in [0, 100]. The paper's
network, duration, step and amplitudes are not settled; with N = 16 states the last spike of S4D lies at 80.97, just
beyond the trained band, which is our reading. All features share one step, so that they share one clock, and there is
no direct term.

Two readings of the output, both trained by the same loop on the same sinusoids a cos(s t), a in [0.5, 1.5]:

| reading | prediction | |
|---|---|---|
| network | mean over time of a gated nonlinear mixing of the layer's outputs, then linear | sees size, not sign |
| in-phase | linear in the in-phase amplitudes 2 mean_t y_h(t) cos(s t), about a Re G_h(i s) | sees the sign |

In the steady state the in-phase amplitudes of S4D change sign together where 1/(1 + phi) jumps by pi in phase.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssmtheory.experiments._robustness_trained import attack_of, layer_parameters
from ssmtheory.typing import Array

__all__ = ["READINGS", "Setting", "grid", "regress"]

READINGS = ("network", "in-phase")


@dataclass(frozen=True)
class Setting:
    """Sizes and budget.

    Attributes:
        state_dim: N.
        edge, top: end of the trained band, and of the tested one, rad/s.
        features: width.
        length, step: samples of a sinusoid, and seconds between them.
        count: training sinusoids.
        steps, batch, rate: of the optimiser.
        points: tested frequencies.
    """

    state_dim: int
    edge: float
    top: float
    features: int
    length: int
    step: float
    count: int
    steps: int
    batch: int
    rate: float
    points: int
    backend: str


def grid(setting: Setting) -> Array:
    """Tested frequencies in rad/s, evenly spaced from 0."""
    return np.linspace(0.0, setting.top, setting.points)


@functools.lru_cache(maxsize=8)
def _data(setting: Setting, seed: int) -> tuple[Any, Any]:
    from ssmtheory.data.series import sinusoids

    train = sinusoids(
        setting.count, low=0.0, high=setting.edge, length=setting.length, step=setting.step, seed=seed
    )  # fmt: skip
    test = sinusoids(
        setting.points, low=0.0, high=setting.top, length=setting.length, step=setting.step, amplitudes=(1.0, 1.0),
        even=True,
    )  # fmt: skip
    return train, test


def regress(setting: Setting, variant: str, reading: str, seed: int, workdir: Path, report: Any) -> dict[str, Array]:
    """Train one regressor; what it predicts for amplitude 1 at every frequency of `grid`.

    Args:
        setting: sizes and budget.
        variant: see `ssmtheory.models.parse_variant`.
        reading: one of `READINGS`.
        seed: of the data, of C, and of the optimiser's batches; shared by the variants.
        workdir: for checkpoints.
        report: called with a line of progress.

    Returns:
        predicted (points,), train_error (root mean square over the training sinusoids), edge (last spike, rad/s).
    """
    import torch

    from ssmtheory.models.lti_layers import LTILayer, scaling_of

    train, test = _data(setting, seed)
    made = layer_parameters(variant, setting.features, setting.state_dim, seed, 0, setting.step, setting.step)
    # a direct term would carry the amplitude past the state
    parameters = dataclasses.replace(made, D=None)
    mode = "convolution" if parameters.scope == "feature" else "recurrence"
    layer = LTILayer(parameters, train=("C",), mode=mode, backend=setting.backend, scaling=scaling_of(variant))
    values, wanted, asked = (
        torch.from_numpy(np.asarray(a, np.float32)) for a in (train.values, train.amplitude, test.values)
    )
    if reading == "network":
        predicted, inside = _network(setting, layer, seed, values, wanted, asked, workdir, report)
    else:
        references = [
            torch.from_numpy(np.cos(d.frequency[:, None] * d.step * np.arange(setting.length)).astype(np.float32))
            for d in (train, test)
        ]
        predicted, inside = _in_phase(setting, layer, seed, values, wanted, asked, references, workdir, report)
    return {
        "predicted": predicted.astype(np.float64),
        "train_error": np.array(math.sqrt(np.mean((inside - train.amplitude) ** 2))),
        "last_spike": np.array(attack_of(setting.state_dim)),
    }


def _network(
    setting: Setting, layer: Any, seed: int, values: Any, wanted: Any, asked: Any, workdir: Path, report: Any
) -> tuple[Array, Array]:
    from ssmtheory.models.classifier import SequenceModel
    from ssmtheory.models.fit import FitConfig, fit, predict

    # a normalisation would take the amplitude away
    model = SequenceModel(
        1, 1, [layer], setting.features, residual=False, norm="none", glu=True, pool="mean", seed=seed
    )
    config = FitConfig(
        steps=setting.steps, batch=setting.batch, rate=setting.rate, layer_rate=setting.rate, decay=0.0, loss="mse",
        seed=seed, checkpoint_every=500,
    )  # fmt: skip
    fit(model, values, wanted, config, workdir, report=report)
    return predict(model, asked)[:, 0], predict(model, values)[:, 0]


def _in_phase(
    setting: Setting, layer: Any, seed: int, values: Any, wanted: Any, asked: Any, references: Any, workdir: Path,
    report: Any,
) -> tuple[Array, Array]:  # fmt: skip
    import torch

    from ssmtheory.training.loop import Schedule, train

    weight = torch.full((setting.features,), 1.0 / setting.features, requires_grad=True)
    parameters = {"C": layer.C, "weight": weight}

    def reading(u: Any, reference: Any) -> Any:
        y = layer(u.expand(-1, -1, setting.features))
        return 2 * (y * reference[:, :, None]).mean(dim=1) @ weight

    def loss(step: int) -> Any:
        rows = torch.from_numpy(np.random.default_rng([seed, step]).integers(len(values), size=setting.batch))
        return (reading(values[rows], references[0][rows]) - wanted[rows]).square().mean()

    train(
        parameters, loss, Schedule(setting.steps, setting.rate, setting.steps // 20, decay=0.0), workdir=workdir,
        decayed=lambda name: False, observe=lambda step: {}, observe_at=set(), checkpoint_every=500, report=report,
    )  # fmt: skip
    with torch.no_grad():
        found = [
            torch.cat([reading(u[i : i + 256], r[i : i + 256]) for i in range(0, len(u), 256)]).numpy()
            for u, r in ((asked, references[1]), (values, references[0]))
        ]
    return found[0], found[1]
