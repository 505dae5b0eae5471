"""Robustness: what noise does to linear layers, predicted from their transfer functions.

| module | what |
|---|---|
| noise | corruptions of a signal, of equal energy: Fourier modes, white, coloured, impulses, lost samples, resampling |
| gain | gain at every frequency of systems, layers (trained ones too) and stacks; the worst frequency |
| bound | bounds of the output change that no perturbation exceeds |

>>> from ssmtheory import inits, robustness
>>> layer = inits.get("s4d-legs", discretization="zoh").layer(4, 32, seed=0, dt_min=1e-3, dt_max=1e-3)
>>> attack = robustness.attack_frequency(layer, band=(100, 1000))
>>> round(attack.omega)
325
>>> noise = robustness.FourierNoise.published(attack.omega)
"""

from __future__ import annotations

from typing import Any

from ssmtheory.lazy import find

_FROM = {
    "Band": "noise",
    "Chain": "noise",
    "ColouredNoise": "noise",
    "Corruption": "noise",
    "FourierNoise": "noise",
    "ImpulseNoise": "noise",
    "LostSamples": "noise",
    "Matched": "noise",
    "Resampling": "noise",
    "WhiteNoise": "noise",
    "change_rms": "noise",
    "Attack": "gain",
    "Stack": "gain",
    "alias": "gain",
    "attack_frequency": "gain",
    "feature_attacks": "gain",
    "layer_gain": "gain",
    "layer_response": "gain",
    "predicted_rms": "gain",
    "sampled_layer": "gain",
    "stack_bound": "gain",
    "KernelSum": "bound",
    "OutputBound": "bound",
    "kernel_sum": "bound",
    "output_bound": "bound",
}

__all__ = [
    "Attack",
    "Band",
    "Chain",
    "ColouredNoise",
    "Corruption",
    "FourierNoise",
    "ImpulseNoise",
    "KernelSum",
    "LostSamples",
    "Matched",
    "OutputBound",
    "Resampling",
    "Stack",
    "WhiteNoise",
    "alias",
    "attack_frequency",
    "bound",
    "change_rms",
    "feature_attacks",
    "gain",
    "kernel_sum",
    "layer_gain",
    "layer_response",
    "noise",
    "output_bound",
    "predicted_rms",
    "sampled_layer",
    "stack_bound",
]


def __getattr__(name: str) -> Any:
    return find(__name__, name, _FROM)


def __dir__() -> list[str]:
    return __all__
