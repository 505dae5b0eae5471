"""Predicted gain of a layer and of a stack at every frequency, and the frequency that hurts most.

A cosine of angle theta per sample leaves a linear layer as a cosine of the same angle, its amplitude multiplied by
|G(e^{i theta})|. A frequency omega in rad/s is heard by a layer with step Delta at theta = omega Delta, folded into
[0, pi]: aliasing is part of every discretised gain here.

`attack_frequency` looks for the largest gain where it can be: at the poles, as seen through the layer's own steps, and
never on a grid alone (the spike of S4D is 1 rad/s wide at every N).

Layers update the state before they read it (K_k = C A-bar^k B-bar multiplies the input k samples ago), so that their
transfer function is D + sum_k K_k z^{-k}: z times the strictly proper part that `lti.discretize` gives.

>>> from ssmtheory import inits
>>> s4d, legs = (inits.get(name).build(32).system for name in ("s4d-legs", "legs"))
>>> found = attack_frequency(s4d)
>>> round(found.omega, 1), round(found.gain, 1)
(325.4, 20.4)
>>> gain(legs, found.omega).round(4).tolist()
[0.0979]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ssmtheory.errors import InputError
from ssmtheory.inits import LayerParameters
from ssmtheory.inits.base import _READOUT, _softmax_scale
from ssmtheory.lti import LTI, DiagonalStateSpace, StateSpace
from ssmtheory.lti.discretize import METHODS, discretize, zoh_factors
from ssmtheory.lti.frequency import frequency_grid
from ssmtheory.robustness.noise import FourierNoise
from ssmtheory.typing import Array

__all__ = [
    "Attack",
    "Stack",
    "alias",
    "attack_frequency",
    "feature_attacks",
    "gain",
    "layer_gain",
    "layer_poles",
    "layer_response",
    "peak",
    "predicted_rms",
    "sampled_layer",
    "stack_bound",
]


def alias(omega: Any, dt: float) -> Array:
    """The frequency in [0, pi / dt] that a cosine of another one becomes when it is sampled.

    Args:
        omega: angular frequencies in rad/s, any shape and sign.
        dt: step in seconds; 1 for angles per sample.

    Returns:
        float64 of the shape of omega.

    >>> alias(2 * np.pi - 0.25, 1.0).round(12).item()
    0.25
    """
    theta = np.asarray(omega, dtype=np.float64) * dt
    return np.abs(theta - 2 * np.pi * np.round(theta / (2 * np.pi))) / dt


# ---------------------------------------------------------------------------------------------------- systems


def gain(system: LTI, omega: Any, dt: float | None = None, method: str = "zoh", *, two_sided: bool = False) -> Array:
    """Largest gain over unit inputs and outputs at given frequencies; the largest over unit C for N outputs.

    Args:
        system: any system; a continuous one where dt is given.
        omega: (k,) or a number, angular frequencies in rad/s; above pi / dt they are aliased.
        dt: step in seconds of the discretised system; None for the system as it is.
        method: of `lti.discretize`: "zoh", "bilinear", "bilinear_s4", "euler", "backward_euler".
        two_sided: take the larger of the gains at omega and -omega, which differ for a complex system; a cosine has
            both.

    Returns:
        (k,) float64: the largest singular value.

    Raises:
        InputError: a method or step that cannot be.
    """
    found = system if dt is None else discretize(system, dt, method)
    w = np.atleast_1d(np.asarray(omega, dtype=np.float64))
    return _both(found, w) if two_sided else _largest(found.frequency_response(w))


def _both(system: LTI, omega: Array) -> Array:
    """The larger gain at omega and -omega."""
    return _largest(system.frequency_response(np.concatenate([omega, -omega]))).reshape(2, -1).max(axis=0)


def _largest(response: Array) -> Array:
    """(k, p, m) -> (k,) largest singular value."""
    if 1 in response.shape[1:]:
        return np.linalg.norm(response.reshape(response.shape[0], -1), axis=1)
    return np.linalg.norm(response, 2, axis=(1, 2))


# ---------------------------------------------------------------------------------------------------- layers


def _modes(parameters: LayerParameters, feature: int, length: int | None) -> tuple[Array, Array, Array]:
    """Discrete poles a (N,), and C and B-bar, of one diagonal feature (or of the layer); y = Re(C x), readout included.

    C is (N,), B-bar (N,) with scope "feature"; (features, N) and (N, features) with scope "layer".
    """
    poles, B, C = parameters._modes(feature)
    C = _READOUT[parameters.readout] * C
    if parameters.steps is None:
        return poles, C, B
    step = parameters.steps if parameters.scope == "layer" else float(parameters.steps[feature])
    method = parameters.discretization
    if method == "bilinear_s4":
        below = 1 - poles * step / 2
        a, factor = (1 + poles * step / 2) / below, step / below
    elif method == "softmax":
        if length is None:
            raise InputError("length=None: DSS divides by a sum over the whole sequence; pass its length")
        a = np.exp(poles * step)
        factor = _softmax_scale(poles * step, length)
    elif method == "zoh":
        a, factor = zoh_factors(poles, step)
    else:
        raise InputError(f"discretization={method!r}: must be zoh, bilinear_s4 or softmax in a layer with steps")
    return a, C, factor[:, None] * B if B.ndim == 2 else factor * B


def sampled_layer(parameters: LayerParameters, feature: int = 0, length: int | None = None) -> LTI:
    """The discrete system that a layer runs, with its immediate readout and its direct term.

    Args:
        parameters: of the layer; a snapshot of a trained one as well.
        feature: which feature; ignored with scope "layer".
        length: of the sequence; only DSS needs it.

    Returns:
        A system with dt = the feature's step, or 1 with scope "layer", whose states have steps of their own. Its
        `direct` is D + C B-bar, the kernel's first entry.

    Raises:
        InputError: a feature that does not exist, or a length that is missing.
    """
    layer = parameters.scope == "layer"
    dt = 1.0 if layer or parameters.steps is None else float(parameters.steps[feature])
    if parameters.P is not None:
        bare = discretize(parameters.system(feature), dt, parameters.discretization).to_dense()
        # D is in there already
        return StateSpace(bare.A, bare.B, bare.C @ bare.A, bare.D + bare.C @ bare.B, dt)
    a, C, B = _modes(parameters, feature, length)
    if layer:
        D = (C @ B).real + (0 if parameters.D is None else np.diag(parameters.D))
    else:
        D = (C @ B).real + (0 if parameters.D is None else parameters.D[feature])
    # real parts are those of pairs: 2 Re((C/2) x)
    return DiagonalStateSpace(a, B, C * a / 2, D, dt, conjugate_pairs=True)


def layer_poles(parameters: LayerParameters, feature: int = 0, length: int | None = None) -> Array:
    """Poles of the discrete system of one feature, one of each conjugate pair where pairs are stored.

    Args:
        parameters: of the layer.
        feature: which feature; ignored with scope "layer".
        length: of the sequence; only DSS needs it.

    Returns:
        (n,) complex128.

    Raises:
        InputError: a feature that does not exist.
    """
    if parameters.P is None:
        return _modes(parameters, feature, 1 if length is None else length)[0]
    return sampled_layer(parameters, feature).poles()


def layer_response(parameters: LayerParameters, angle: Any, length: int | None = None) -> Array:
    """Frequency response of a layer on the unit circle, all features at once.

    Args:
        parameters: of the layer.
        angle: (k,) rad per sample, in common, or (features, k) with scope "feature".
        length: of the sequence; only DSS needs it.

    Returns:
        (features, k) complex128 with scope "feature"; (k, features, features) with scope "layer".

    Raises:
        InputError: angles of another shape, or a length that is missing.
    """
    theta = np.asarray(angle, dtype=np.float64)
    if parameters.scope == "layer":
        if theta.ndim != 1:
            raise InputError(f"angle has shape {theta.shape}: must be (k,) for a layer with scope 'layer'")
        return sampled_layer(parameters, 0, length).frequency_response(theta)
    if theta.ndim not in (1, 2) or (theta.ndim == 2 and theta.shape[0] != parameters.features):
        raise InputError(f"angle has shape {theta.shape}: must be (k,) or (features, k) = ({parameters.features}, k)")
    out = np.empty((parameters.features, theta.shape[-1]), dtype=np.complex128)
    for i in range(parameters.features):
        out[i] = _response(parameters, i, theta if theta.ndim == 1 else theta[i], length)
    return out


def _response(parameters: LayerParameters, feature: int, theta: Array, length: int | None) -> Array:
    """G(e^{i theta}) of one feature: (k,)."""
    direct = 0.0 if parameters.D is None else float(parameters.D[feature])
    z = np.exp(1j * theta)
    if parameters.P is None:
        a, C, B = _modes(parameters, feature, length)
        w = C * B
        # the real part of the kernel: half of each mode and half of its conjugate
        return direct + 0.5 * ((z[:, None] / (z[:, None] - a)) @ w + (z[:, None] / (z[:, None] - a.conj())) @ w.conj())
    step = float(parameters.steps[feature])
    if parameters.discretization != "bilinear_s4":
        return sampled_layer(parameters, feature).frequency_response(theta / step)[:, 0, 0]
    # Woodbury on the warped frequency: z C (z - A-bar)^{-1} B-bar = (step z (2/step) / (z + 1)) C (s - A)^{-1} B
    poles, B, C = parameters._modes(feature)
    C = C * (_READOUT[parameters.readout] / 2)
    poles, P, B, C = (np.concatenate([x, np.conj(x)]) for x in (poles, parameters.P, B, C))
    # both sides times (z + 1) step / 2, which keeps theta = pi finite
    half = step / 2 * (z + 1)
    shift = (z - 1)[:, None] - half[:, None] * poles
    on_pole = np.abs(shift).min(axis=1) < 1e-7
    shift[on_pole] = 1
    adjoint = P.conj().T[None] / shift[:, None, :]
    core = np.eye(P.shape[1]) + half[:, None, None] * (adjoint @ P)
    solved = np.linalg.solve(core, (adjoint @ B)[:, :, None])[:, :, 0]
    weighted = C / shift
    values = step * z * (weighted @ B - half * np.einsum("kr,kr->k", weighted @ P, solved))
    if on_pole.any():
        # a pole of the diagonal part on the circle (FouT's at 0), which the low-rank part cancels: the mean of two
        # neighbours is the value there to 1e-12
        near = [_response(parameters, feature, theta[on_pole] + offset, None) - direct for offset in (-1e-6, 1e-6)]
        values[on_pole] = (near[0] + near[1]) / 2
    return direct + values


def layer_gain(
    parameters: LayerParameters,
    frequency: Any,
    clock: Literal["layer", "sample"] = "layer",
    length: int | None = None,
) -> Array:
    """Gain of every feature at given frequencies.

    Args:
        parameters: of the layer.
        frequency: (k,) or a number; rad/s on the layer's clock, each feature at its own step; else rad per sample.
        clock: "layer" or "sample".
        length: of the sequence; only DSS needs it.

    Returns:
        (features, k) float64: |G_i|. With scope "layer" the row norms of G: the gain to one output, over unit inputs.

    Raises:
        InputError: clock="layer" where steps belong to states, or there are none.
    """
    w = np.atleast_1d(np.asarray(frequency, dtype=np.float64))
    if clock not in ("layer", "sample"):
        raise InputError(f"clock={clock!r}: must be 'layer' or 'sample'")
    if parameters.scope == "layer" or clock == "sample":
        if clock == "layer":
            raise InputError("clock='layer': steps belong to states here, not to features; use clock='sample'")
        found = layer_response(parameters, w, length)
        return np.linalg.norm(found, axis=2).T if parameters.scope == "layer" else np.abs(found)
    return np.abs(layer_response(parameters, parameters.steps[:, None] * w, length))


# ---------------------------------------------------------------------------------------------------- search


@dataclass(frozen=True)
class Attack:
    """A frequency at which a system is most sensitive.

    Attributes:
        omega: angular frequency in rad/s, below pi / dt for a discretised system; NaN where there is no step.
        angle: rad per sample in [0, pi]; NaN in continuous time.
        gain: gain there.
        upper: upper end of the bracket of the largest gain (floating point); NaN where a band or several features were
            asked for, and the value is the largest found near the poles and on a grid.
    """

    omega: float
    angle: float
    gain: float
    upper: float = math.nan


def peak(function: Callable[[Array], Array], nodes: Array, keep: int = 4) -> tuple[float, float]:
    """Largest value of a function of frequency: nodes, then zooms around the highest of their local maxima.

    Args:
        function: (k,) -> (k,) values.
        nodes: (n,) rising frequencies that hold every place where a narrow peak can be.
        keep: how many local maxima are polished.

    Returns:
        The place, and the value there.
    """
    nodes = _distinct(nodes)
    values = function(nodes)
    k = int(np.argmax(values))
    best, place = float(values[k]), float(nodes[k])
    high = np.r_[True, values[1:] >= values[:-1]] & np.r_[values[:-1] >= values[1:], True]
    tops = np.flatnonzero(high)
    tops = tops[np.argsort(-values[tops], kind="stable")[:keep]]
    ends = nodes[np.maximum(tops - 1, 0)], nodes[np.minimum(tops + 1, nodes.size - 1)]
    return _zoom(function, *ends, place, best)


def _zoom(
    function: Callable[[Array], Array], left: Array, right: Array, place: float, best: float
) -> tuple[float, float]:
    """The largest value within intervals, each halved eightfold around its best point; at least (place, best)."""
    row = np.arange(left.size)
    for _ in range(14):
        w = np.linspace(left, right, 17, axis=1)
        found = function(w.reshape(-1)).reshape(w.shape)
        at = found.argmax(axis=1)
        top = int(found[row, at].argmax())
        if found[top, at[top]] > best:
            best, place = float(found[top, at[top]]), float(w[top, at[top]])
        left, right = w[row, np.maximum(at - 1, 0)], w[row, np.minimum(at + 1, 16)]
        if (right - left <= 1e-14 * np.maximum(np.abs(left), np.abs(right))).all():
            break
    return place, best


def _distinct(nodes: Array) -> Array:
    """Rising nodes without those that are equal but for rounding: they would hide the slope on one side of a peak."""
    return nodes[np.r_[True, np.diff(nodes) > 1e-13 * max(abs(float(nodes[-1])), 1e-300)]]


def _clip(nodes: Array, low: float, high: float) -> Array:
    return np.unique(np.concatenate([nodes[(nodes >= low) & (nodes <= high)], [low, high]]))


def _band(band: tuple[float, float] | None, top: float) -> tuple[float, float]:
    low, high = (0.0, top) if band is None else (float(band[0]), min(float(band[1]), top))
    if not 0 <= low < high:
        raise InputError(f"band={band!r}: must be (low, high) with 0 <= low < high, low below {top:g}")
    return low, high


#: offsets around a resonance, in units of its half-width
_AROUND = np.array([-8, -4, -2, -1, -0.5, -0.25, 0, 0.25, 0.5, 1, 2, 4, 8.0])


def _nodes(poles: Array, points: int) -> Array:
    """Angles in [0, pi] that meet every resonance of discrete poles, and a grid."""
    centre, width = np.abs(np.angle(poles)), np.maximum(np.abs(1 - np.abs(poles)), 1e-9)
    near = alias((centre[:, None] + width[:, None] * _AROUND).reshape(-1), 1.0)
    return np.unique(np.concatenate([near, np.linspace(0, np.pi, points), np.geomspace(1e-5, np.pi, points)]))


def attack_frequency(
    target: LTI | LayerParameters,
    dt: float | None = None,
    method: str = "zoh",
    *,
    band: tuple[float, float] | None = None,
    length: int | None = None,
    points: int = 200,
    tol: float = 1e-6,
) -> Attack:
    """The frequency at which a system, or a layer as a whole, amplifies most.

    A system: its H-infinity norm, by the bracketing search of `lti.norms` without a band.

    A layer with scope "feature": the common frequency omega in rad/s, heard by each feature at its own step, at which
    the root mean square of |G_i(e^{i omega Delta_i})| over the features is largest: what the authors of PTD took to be
    N^2/pi - pi/6. The resonances of a feature are followed up to the Nyquist frequency of its own step; of their
    aliases beyond it the search has its grid alone. With scope "layer" (S5, LRU): the angle per sample with the largest
    singular value.
    `feature_attacks` gives each feature its own.

    Args:
        target: a system, or the parameters of a layer (C, D and steps as they are: trained ones too).
        dt: step in seconds at which a continuous system is discretised; None for a layer, or for the system as it is.
        method: of `lti.discretize`.
        band: (low, high) frequencies that are considered, in rad/s (rad per sample with scope "layer"); all up to the
            Nyquist frequency of the smallest step when None.
        length: of the sequence; only DSS needs it.
        points: nodes of the grid that joins those at the poles.
        tol: relative width of the bracket.

    Returns:
        `Attack`.

    Raises:
        InputError: a band without frequencies, or options that do not fit the target.
    """
    if isinstance(target, LayerParameters):
        if dt is not None:
            raise InputError(f"dt={dt!r}: a layer has steps of its own")
        return _layer_attack(target, band, length, points)
    if dt is not None and method not in METHODS:
        raise InputError(f"method={method!r}: must be one of {', '.join(METHODS)}")
    system = target if dt is None else discretize(target, dt, method)
    if band is None:
        found = system.linf_norm(tol=tol)
        omega, best, upper = abs(found.omega), found.value, found.upper
    else:
        low, high = _band(band, math.inf if system.dt is None else math.pi / system.dt)
        if system.dt is None:
            nodes = frequency_grid(system, min(max(low, 1e-9 * high), high / 2), high, points)
        else:
            nodes = _nodes(system.poles(), points) / system.dt
        omega, best = peak(lambda w: _both(system, w), _clip(nodes, low, high))
        upper = math.nan
    angle = math.nan if system.dt is None else float(alias(omega, system.dt) * system.dt)
    return Attack(omega, angle, best, upper)


def _layer_attack(
    parameters: LayerParameters, band: tuple[float, float] | None, length: int | None, points: int
) -> Attack:
    if parameters.scope == "layer":
        system = sampled_layer(parameters, 0, length)
        low, high = _band(band, math.pi)
        nodes = _clip(_nodes(layer_poles(parameters, 0, length), points), low, high)
        angle, best = peak(lambda w: _largest(system.frequency_response(w)), nodes)
        return Attack(math.nan, angle, best)
    if parameters.steps is None:
        raise InputError("steps=None: a layer without steps has scope 'layer'")
    low, high = _band(band, math.pi / float(np.min(parameters.steps)))
    grid = [np.linspace(low, high, points), np.geomspace(max(low, 1e-4 * high), high, points)]
    nodes = _clip(np.unique(np.concatenate([_resonant(parameters, length, high), *grid])), low, high)

    def mean(w: Array) -> Array:
        return np.sqrt(np.mean(layer_gain(parameters, w, length=length) ** 2, axis=0))

    omega, best = peak(mean, nodes)
    return Attack(omega, math.nan, best)


def _resonant(parameters: LayerParameters, length: int | None, high: float) -> Array:
    """Frequencies in rad/s at which some feature has a resonance, below the first alias, thinned to their widths."""
    near, finest = [], math.inf
    for i, step in enumerate(np.asarray(parameters.steps)):
        poles = layer_poles(parameters, i, length)
        centre, width = np.abs(np.angle(poles)), np.maximum(np.abs(1 - np.abs(poles)), 1e-9)
        finest = min(finest, float(width.min() / step))
        near.append(np.abs((centre[:, None] + width[:, None] * _AROUND) / step).reshape(-1))
    nodes = np.concatenate(near)
    # features that share their poles ask for the same places
    cell = np.round(nodes[nodes <= high] / (0.1 * finest)).astype(np.int64)
    return np.unique(cell) * (0.1 * finest)


def feature_attacks(
    parameters: LayerParameters,
    *,
    band: tuple[float, float] | None = None,
    length: int | None = None,
    points: int = 200,
) -> list[Attack]:
    """The worst angle per sample of each feature by itself.

    Args:
        parameters: of a layer with scope "feature".
        band: (low, high) angles that are considered, in rad per sample; [0, pi] when None.
        length: of the sequence; only DSS needs it.
        points: nodes of the grid that joins those at the poles.

    Returns:
        One `Attack` per feature: angle, omega = angle / step, gain.

    Raises:
        InputError: a layer with scope "layer", or a band without frequencies.
    """
    if parameters.scope == "layer":
        raise InputError("scope 'layer' has one system for all features: attack_frequency finds its worst angle")
    low, high = _band(band, math.pi)
    found = []
    for i in range(parameters.features):
        nodes = _clip(_nodes(layer_poles(parameters, i, length), points), low, high)

        def size(theta: Array, feature: int = i) -> Array:
            return np.abs(_response(parameters, feature, theta, length))

        angle, best = peak(size, nodes)
        found.append(Attack(angle / float(parameters.steps[i]), angle, best))
    return found


def predicted_rms(parameters: LayerParameters, noise: FourierNoise, length: int | None = None) -> Array:
    """Root mean square of the change that Fourier noise makes in a layer's output, once the start has died out.

    Args:
        parameters: of a layer with scope "feature".
        noise: of a given frequency.
        length: of the sequence; only DSS needs it.

    Returns:
        (features,) float64: noise.rms times |G_i| at the angle at which feature i hears the noise.

    Raises:
        InputError: a random frequency, or a layer with scope "layer".
    """
    if parameters.scope == "layer":
        raise InputError("scope 'layer': features are mixed; take layer_response at the noise's angle")
    angles = noise.angles(parameters.steps, parameters.features)
    # at 0 and pi a cosine is no oscillation between samples: its mean square is the whole square
    turn = np.abs(np.exp(2j * angles) - 1) < 1e-12
    return (
        noise.rms * np.where(turn, math.sqrt(2), 1) * np.abs(layer_response(parameters, angles[:, None], length))[:, 0]
    )


# ---------------------------------------------------------------------------------------------------- stacks


@dataclass(frozen=True, eq=False)
class Stack:
    """Linear layers in a row, with a matrix after each: what remains of a network where everything else is linear.

    A layer maps x to M G x, or to x + M G x with a residual connection. Noise of one angle keeps it through the stack,
    so that its gain is a norm of a product of matrices.

    Attributes:
        layers: parameters of each, equal numbers of features.
        mixing: a matrix (features, features) after each layer, or None for the identity.
        residual: whether each layer's input is added to its output.
        length: of the sequence; only DSS needs it.
    """

    layers: tuple[LayerParameters, ...]
    mixing: tuple[Array | None, ...] | None = None
    residual: bool = False
    length: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        sizes = {layer.features for layer in self.layers}
        if len(sizes) != 1:
            raise InputError(f"layers have {sorted(sizes)} features: must be one number, and at least one layer")
        if self.mixing is not None:
            if len(self.mixing) != len(self.layers):
                raise InputError(f"mixing has {len(self.mixing)} entries for {len(self.layers)} layers: must be equal")
            for matrix in self.mixing:
                if matrix is not None and np.shape(matrix) != (self.features, self.features):
                    raise InputError(
                        f"a mixing matrix has shape {np.shape(matrix)}: must be ({self.features}, {self.features})"
                    )

    @property
    def features(self) -> int:
        """Number of features."""
        return self.layers[0].features

    def _branch(self, index: int, theta: Array) -> Array:
        """M G of one layer: (k, features, features)."""
        layer = self.layers[index]
        found = layer_response(layer, theta, self.length)
        if layer.scope == "feature":
            found = found.T[:, :, None] * np.eye(self.features)
        matrix = None if self.mixing is None else self.mixing[index]
        return found if matrix is None else np.asarray(matrix) @ found

    def response(self, angle: Any, source: int | None = None) -> Array:
        """Response at the output of the stack.

        Args:
            angle: (k,) rad per sample.
            source: number of the layer at whose input the noise is added, inside any residual connection, as in the
                PTD authors' test; None for the input of the stack.

        Returns:
            (k, features, features) complex128.

        Raises:
            InputError: a layer that does not exist.
        """
        theta = np.atleast_1d(np.asarray(angle, dtype=np.float64))
        count = len(self.layers)
        if source is not None and not 0 <= source < count:
            raise InputError(f"source={source!r}: the stack has {count} layers, numbered 0 to {count - 1}")
        eye = np.broadcast_to(np.eye(self.features), (theta.size, self.features, self.features))
        total = eye if source is None else self._branch(source, theta)
        for index in range(0 if source is None else source + 1, count):
            branch = self._branch(index, theta)
            total = (branch + eye if self.residual else branch) @ total
        return total

    def gain(self, angle: Any, source: int | None = None) -> Array:
        """Largest singular value of the response: (k,); arguments as for `response`."""
        return _largest(self.response(angle, source))

    def attack(
        self,
        source: int | None = None,
        band: tuple[float, float] | None = None,
        points: int = 200,
        most: int = 20_000,
    ) -> Attack:
        """The angle per sample at which the stack amplifies most; arguments as for `response` and `attack_frequency`.

        Args:
            source: number of the layer at whose input the noise is added; None for the input of the stack.
            band: (low, high) angles that are considered; [0, pi] when None.
            points: nodes of the grid that joins those at the poles.
            most: nodes at which matrices are multiplied, those first at which the product of their norms is largest.

        Returns:
            `Attack`, without omega: the layers have steps of their own.

        Raises:
            InputError: a band without frequencies, or a layer that does not exist.
        """
        low, high = _band(band, math.pi)
        poles = [
            layer_poles(layer, i, self.length)
            for layer in self.layers
            for i in range(1 if layer.scope == "layer" else layer.features)
        ]
        nodes = _distinct(_clip(_nodes(np.unique(np.concatenate(poles)), points), low, high))
        # products of norms are cheap, and never less: nodes come in their order until no other can be higher
        ceiling = np.concatenate([self._ceiling(part, source) for part in np.array_split(nodes, -(-nodes.size // 512))])
        order = np.argsort(-ceiling, kind="stable")
        values = np.full(nodes.size, -np.inf)
        done, size = 0, max(16, 2**20 // self.features**2)
        while done < min(order.size, most) and ceiling[order[done]] > values.max():
            chosen = order[done : done + size]
            values[chosen] = self.gain(nodes[chosen], source)
            done += size
        tops = np.argsort(-values, kind="stable")[:4]
        tops = tops[np.isfinite(values[tops])]
        ends = nodes[np.maximum(tops - 1, 0)], nodes[np.minimum(tops + 1, nodes.size - 1)]
        angle, best = _zoom(
            lambda theta: self.gain(theta, source), *ends, float(nodes[tops[0]]), float(values[tops[0]])
        )
        return Attack(math.nan, angle, best)

    def _ceiling(self, theta: Array, source: int | None) -> Array:
        """The product of the norms of the factors of `response`: (k,)."""
        total = np.ones(theta.size)
        for index in range(0 if source is None else source, len(self.layers)):
            found = layer_response(self.layers[index], theta, self.length)
            feature = self.layers[index].scope == "feature"
            size = np.abs(found).max(axis=0) if feature else np.linalg.norm(found, axis=(1, 2))
            matrix = None if self.mixing is None else self.mixing[index]
            size = size if matrix is None else size * float(np.linalg.norm(np.asarray(matrix), 2))
            total = total * (size + 1 if self.residual and index != source else size)
        # rounding must not put a ceiling below its value
        return total * (1 + 1e-9)


def stack_bound(
    gains: Sequence[float], lipschitz: float | Sequence[float] = 1.0, residual: bool = False
) -> tuple[float, tuple[float, ...]]:
    """Bound of the gain of a stack with non-linear maps between its layers, from gains and Lipschitz constants alone.

    Args:
        gains: largest gain of each layer (H-infinity norms for energies, l1 norms for largest values).
        lipschitz: constant of the map after each layer (GLU, mixing, normalisation), in the same norm.
        residual: whether each layer's input is added to the map's output.

    Returns:
        The factor for a change at the input of the stack, and for each layer the factor for one at the layer's input,
        inside any residual connection.

    Raises:
        InputError: numbers that are negative, or not one for each layer.

    >>> stack_bound([2.0, 3.0])
    (6.0, (6.0, 3.0))
    """
    g = np.asarray(gains, dtype=np.float64).reshape(-1)
    constants = np.broadcast_to(np.asarray(lipschitz, dtype=np.float64), g.shape) if np.size(lipschitz) == 1 else (
        np.asarray(lipschitz, dtype=np.float64)
    )  # fmt: skip
    if constants.shape != g.shape or g.size == 0 or (g < 0).any() or (constants < 0).any():
        raise InputError(f"gains {gains!r}, lipschitz {lipschitz!r}: must be numbers >= 0, one for each layer")
    branch = g * constants
    factor = branch + 1 if residual else branch
    after = np.concatenate([np.cumprod(factor[::-1])[::-1][1:], [1.0]])
    return float(np.prod(factor)), tuple(float(x) for x in branch * after)
