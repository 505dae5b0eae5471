"""Trainable linear time-invariant layers: S4, S4D, DSS, S4-PTD, HiPPO-rho, S5, S5-PTD, LRU, from any `LayerParameters`.

========= ================================================================= ====================================
trained  parameters                                                        so that
======== ================================================================= ====================================
A        "exp": poles = -exp(`log_decay`) + i `frequency`                  Re(poles) < 0, A - P P^* stable too
A        "exp", LRU: poles = exp(-exp(`log_decay`) + i `frequency`)        abs(poles) < 1
A        "free": poles = `decay` + i `frequency`, LRU too                  nothing: it may become unstable
steps    Delta = exp(`log_steps`)                                          Delta > 0
B        `B`, Cartesian; LRU's gain = exp(`log_gain`)                      gain > 0
C, D, P  Cartesian
======== ================================================================= ====================================

References: arXiv 2111.00396 (S4), 2206.11893 (S4D; `exp` is its parametrisation), 2203.14343 (DSS), 2208.04933 (S5),
2303.06349 (LRU, section 3.3), 2310.01698 (S4-PTD, S5-PTD).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssmtheory import inits
from ssmtheory.errors import ConfigError, InputError, nearest
from ssmtheory.inits import Initialization, LayerParameters
from ssmtheory.inits.base import generators
from ssmtheory.scan import linear_recurrence
from ssmtheory.scan.lti import (
    cauchy_kernel,
    discretize_diagonal,
    fft_convolve,
    lti_scan,
    plan_lti,
    vandermonde_kernel,
)

__all__ = [
    "MODES", "REAL_PARTS", "SCALINGS", "TRAINABLE", "VARIANTS", "LTILayer", "initialization_of", "make_layer",
    "parse_variant", "scaling_of",
]  # fmt: skip

#: What can be trained.
TRAINABLE = ("A", "B", "C", "D", "steps")
#: Ways to apply a layer to a sequence.
MODES = ("auto", "convolution", "recurrence")
#: Parametrisations of trained poles.
REAL_PARTS = ("exp", "free")
#: Scalings of the modes.
SCALINGS = ("given", "unit_input")
#: Largest table of impulse responses that "auto" keeps, in float64.
_RESPONSE_BYTES = 1 << 28
_RULES = {"zoh": "zoh", "bilinear_s4": "bilinear", "softmax": "softmax", "none": "none"}


def _choice(name: str, value: Any, allowed: Iterable[str]) -> str:
    names = tuple(allowed)
    if value not in names:
        quoted = ", ".join(repr(n) for n in names)
        raise InputError(f"{name}={value!r}: must be one of {quoted}.{nearest(str(value), names)}")
    return str(value)


def _real_view(x: Any, *, complex_: bool = True) -> Tensor:
    """A float64 tensor; complex numbers as pairs on a last axis, which optimisers and `.to()` treat as numbers."""
    if not complex_:
        return torch.tensor(np.asarray(x, dtype=np.float64))
    return torch.view_as_real(torch.tensor(np.asarray(x, dtype=np.complex128)))


def _unit_input(parameters: LayerParameters) -> LayerParameters:
    if parameters.scope != "feature" or parameters.P is not None:
        raise InputError("scaling='unit_input' is for scope='feature' without low-rank part: leave it at 'given'")
    if not np.all(parameters.B):
        raise InputError("scaling='unit_input': B has a zero, so that a mode has no input; leave it at 'given'")
    return dataclasses.replace(parameters, B=np.ones_like(parameters.B), C=parameters.C * parameters.B)


class LTILayer(nn.Module):
    """A linear time-invariant layer with some of its parameters trained.

    Args:
        parameters: where it starts; scope "feature" (S4, S4D, DSS, S4-PTD, HiPPO-rho) or "layer" (S5, LRU).
        train: which of "A", "B", "C", "D", "steps" are trained; the others stay as they are. The PTD authors' code
            trains C and D alone; S4D's trains everything.
        mode: how a sequence is gone through: "convolution", "recurrence", or "auto", the fastest here. The two agree
            to rounding.
        backend: of the shared scan: "auto", "c" or "torch".
        real_part: parametrisation of trained poles: "exp" (stable by construction) or "free".
        per_feature: with scope "feature", trained A and B differ from feature to feature (as in S4D's code); False:
            poles that are shared stay shared.
        scaling: of the modes: "given", or "unit_input": B = 1 and C times what B was. The system is the same; what an
            optimiser that moves every entry alike can do is not, where B is large, as in the ill-conditioned bases of
            PTD. For layers with scope "feature" and no low-rank part.

    Attributes:
        features: number of inputs and outputs.
        states: number of stored modes.
        scope: "feature" or "layer".
        discretization: "zoh", "bilinear_s4", "softmax" or "none".
        trained: the trained names, in the order of `TRAINABLE`.

    Raises:
        InputError: unknown names, or poles that the parametrisation cannot hold.

    >>> layer = make_layer("s4d", features=2, N=8, seed=0, dt_min=0.01, dt_max=0.1, train=("C", "D"))
    >>> layer(torch.ones(1, 5, 2)).shape, layer.trained
    (torch.Size([1, 5, 2]), ('C', 'D'))
    """

    P: Tensor | None
    B: Tensor
    C: Tensor
    D: Tensor | None
    log_steps: Tensor | None
    log_gain: Tensor | None
    # either `stored_poles`, or `frequency` and one of the others
    stored_poles: Tensor
    log_decay: Tensor
    decay: Tensor
    frequency: Tensor

    def __init__(
        self,
        parameters: LayerParameters,
        *,
        train: Sequence[str] = ("C", "D"),
        mode: str = "auto",
        backend: str = "auto",
        real_part: str = "exp",
        per_feature: bool = True,
        scaling: str = "given",
    ) -> None:
        super().__init__()
        if _choice("scaling", scaling, SCALINGS) == "unit_input":
            parameters = _unit_input(parameters)
        for name in train:
            _choice("train", name, TRAINABLE)
        self.trained = tuple(name for name in TRAINABLE if name in train)
        self.mode = _choice("mode", mode, MODES)
        self.backend = backend
        self.real_part = _choice("real_part", real_part, REAL_PARTS)
        self.features = parameters.features
        self.scope = parameters.scope
        self.readout = parameters.readout
        self.discretization = _choice("discretization", parameters.discretization, _RULES)
        self.states = int(parameters.poles.shape[-1])
        self._diagnostics = dict(parameters.diagnostics)
        self._has_direct = parameters.D is not None
        self._cache: tuple[Any, ...] = ()
        rank = parameters.P is not None
        if rank and (self.readout != "pairs" or self.discretization != "bilinear_s4" or self.scope != "feature"):
            raise InputError(
                f"a low-rank part with readout={self.readout!r}, discretization={self.discretization!r}: must be "
                "'pairs' and 'bilinear_s4'"
            )
        if self.scope == "layer" and self.discretization == "softmax":
            raise InputError("discretization='softmax' with scope='layer': DSS is defined feature by feature")
        if parameters.steps is None and ("steps" in train or self.scope == "feature"):
            raise InputError("the parameters are of discrete time and have no steps: leave 'steps' out of train")
        self._set_poles(parameters, per_feature)
        B = parameters.B
        if self.scope == "feature" and B.ndim == 1 and per_feature and "B" in self.trained:
            B = np.broadcast_to(B, (self.features, self.states))
        self._set("B", _real_view(B), "B")
        self._set("C", _real_view(parameters.C), "C")
        direct = parameters.D
        if direct is None and "D" in self.trained:
            direct = np.zeros(self.features)
        self._set("D", None if direct is None else _real_view(direct, complex_=False), "D")
        steps, gain = parameters.steps, parameters.gain
        self._set("log_steps", None if steps is None else _real_view(np.log(steps), complex_=False), "steps")
        self._set("log_gain", None if gain is None else _real_view(np.log(gain), complex_=False), "B")

    def _set(self, name: str, value: Tensor | None, part: str) -> None:
        if value is not None and part in self.trained:
            self.register_parameter(name, nn.Parameter(value.clone()))
        else:
            self.register_buffer(name, None if value is None else value.clone())

    def _set_poles(self, parameters: LayerParameters, per_feature: bool) -> None:
        poles, P = np.asarray(parameters.poles, dtype=np.complex128), parameters.P
        trained = "A" in self.trained
        if trained and per_feature and self.scope == "feature" and poles.ndim == 1:
            poles = np.broadcast_to(poles, (self.features, self.states))
        if trained and per_feature and P is not None and P.ndim == 2:
            P = np.broadcast_to(P, (self.features, *P.shape))
        self._set("P", None if P is None else _real_view(P), "A")
        if not trained:
            # as they are, be they stable or not
            self._set("stored_poles", _real_view(poles), "A")
            return
        discrete = parameters.steps is None
        if self.real_part == "free":
            self._set("decay", _real_view(poles.real, complex_=False), "A")
            self._set("frequency", _real_view(poles.imag, complex_=False), "A")
            return
        rate = -np.log(np.abs(poles)) if discrete else -poles.real
        if not (rate > 0).all():
            worst = poles.flat[int(np.argmin(rate))]
            raise InputError(
                f"the pole {complex(worst):.4g} is not stable, and real_part='exp' holds stable poles only: train "
                "without 'A', or with real_part='free', or begin with another initialisation"
            )
        self._set("log_decay", _real_view(np.log(rate), complex_=False), "A")
        self._set("frequency", _real_view(np.angle(poles) if discrete else poles.imag, complex_=False), "A")

    # ------------------------------------------------------------------ current values

    @property
    def poles(self) -> Tensor:
        """Poles (state,) or (features, state), complex: of A, or of A-bar for LRU."""
        if "A" not in self.trained:
            return torch.view_as_complex(self.stored_poles)
        if self.real_part == "free":
            return torch.complex(self.decay, self.frequency)
        poles = torch.complex(-torch.exp(self.log_decay), self.frequency)
        return torch.exp(poles) if self.log_steps is None else poles

    @property
    def steps(self) -> Tensor | None:
        """Steps in seconds: (features,), with scope "layer" (state,); None for LRU, whose time is discrete."""
        return None if self.log_steps is None else torch.exp(self.log_steps)

    def _input(self) -> Tensor:
        B = torch.view_as_complex(self.B)
        return B if self.log_gain is None else torch.exp(self.log_gain)[:, None] * B

    def snapshot(self) -> LayerParameters:
        """The current values as parameters of `ssmtheory.inits`, so that `snapshot().system(h)` is a trained system.

        Returns:
            The parameters, float64 and complex128; without the diagnostics of the initialisation where A is trained.
        """
        with torch.no_grad():
            values: dict[str, Any] = {
                "poles": self.poles,
                "B": torch.view_as_complex(self.B),
                "C": torch.view_as_complex(self.C),
                "steps": self.steps,
                "P": None if self.P is None else torch.view_as_complex(self.P),
                "D": self.D,
                "gain": None if self.log_gain is None else torch.exp(self.log_gain),
            }
            arrays = {}
            for name, x in values.items():
                wide = np.complex128 if x is not None and x.is_complex() else np.float64
                arrays[name] = None if x is None else x.cpu().numpy().astype(wide)
        return LayerParameters(
            **arrays, readout=self.readout, scope=self.scope, discretization=self.discretization,
            diagnostics={} if "A" in self.trained else self._diagnostics,
        )  # fmt: skip

    def _low_rank(self) -> tuple[Tensor, Tensor]:
        """P (features, state, rank) complex128, and the steps (features,), where there is a low-rank part."""
        assert self.P is not None
        assert self.log_steps is not None
        P = torch.view_as_complex(self.P).to(torch.complex128)
        return P.expand(self.features, *P.shape) if P.ndim == 2 else P, torch.exp(self.log_steps)

    def _full(self, x: Tensor) -> Tensor:
        """(features, state), of what all features may share."""
        return x.expand(self.features, self.states) if x.ndim == 1 else x

    # ------------------------------------------------------------------ discrete time

    def discrete(self, length: int | None = None) -> tuple[Tensor, Tensor]:
        """A-bar and B-bar of a layer without low-rank part.

        Args:
            length: of the sequence; DSS alone depends on it.

        Returns:
            A-bar (features, state), with scope "layer" (state,), and B-bar of the shape of B, with scope "feature"
            (features, state); complex128.

        Raises:
            InputError: DSS without a length, or a layer with low-rank part.
        """
        if self.P is not None:
            raise InputError("the layer has a low-rank part: its A-bar is not diagonal; take snapshot().system(h)")
        poles, B = self.poles.to(torch.complex128), self._input().to(torch.complex128)
        steps = self.steps
        if steps is None:
            return poles, B
        rule = _RULES[self.discretization]
        if self.scope == "layer":
            w, factor = discretize_diagonal(poles[:, None], steps, rule)
            return w[:, 0], factor * B
        poles, B = self._full(poles), self._full(B)
        if rule != "softmax":
            w, factor = discretize_diagonal(poles, steps, rule)
            return w, factor * B
        if length is None:
            raise InputError("DSS divides its kernel by a sum over the sequence: give its length")
        x = poles * steps[:, None].to(torch.float64)
        # a growing mode is scaled from its last sample, where it is largest
        shift = torch.where(x.real > 0, torch.exp(-x * (length - 1)), torch.ones_like(x))
        return torch.exp(x), B * shift * _softmax_scale(x, length)

    def kernel(self, length: int, *, method: str = "auto", dtype: torch.dtype = torch.float64) -> Tensor:
        """The real convolution kernel, without the direct term.

        Args:
            length: number of samples L.
            method: with a low-rank part, "cauchy" (S4's algorithm) or "response" (C times the states' impulse
                responses, which are kept while A, B and the steps are frozen); "auto" takes "response" where they are
                and it is not too large.
            dtype: torch.float32 or float64.

        Returns:
            (features, length); with scope "layer" (output, input, length).

        Raises:
            InputError: an unknown method.
        """
        method = _choice("method", method, ("auto", "cauchy", "response"))
        C = torch.view_as_complex(self.C)
        if self.P is not None:
            size = 16 * self.features * self.states * length
            if method == "response" or (method == "auto" and self.frozen and size <= _RESPONSE_BYTES):
                return self._from_response(C, length, dtype)
            P, steps = self._low_rank()
            B = self._full(self._input())
            return cauchy_kernel(self._full(self.poles), P, P, B, C, steps, length, dtype="float64").to(dtype)
        w, bar = self.discrete(length)
        pairs = self.readout != "real"
        if self.scope == "layer":
            # (output, input, state): one kernel from each input to each output
            weight = C[:, None, :] * bar.T
        else:
            weight = C * bar
        # in float64: modes of an ill-conditioned basis cancel to a sum smaller than they by its condition number
        K = vandermonde_kernel(w, weight, length, conjugate_pairs=pairs, dtype="float64", backend=self.backend)
        return K.to(dtype)

    @property
    def frozen(self) -> bool:
        """Whether A, B and the steps are all frozen, so that the kernel is linear in what is trained."""
        return not {"A", "B", "steps"} & set(self.trained)

    def _from_response(self, C: Tensor, length: int, dtype: torch.dtype) -> Tensor:
        """2 Re(C X), X (features, 2 state, length) the real and imaginary parts of A-bar^k B-bar."""
        held = [x for x in (*self._buffers.values(), *self._parameters.values()) if x is not None and x is not self.C]
        key = (length, dtype, *((id(x), x._version) for x in held)) if self.frozen else ()
        if not key or not self._cache or self._cache[0] != key:
            response = self._response(length)
            X = torch.cat([response.real, -response.imag], dim=1).to(dtype)
            # the tensors are kept so that no other can take their place under the same id
            self._cache = (key, X, held) if key else ()
        else:
            X = self._cache[1]
        row = torch.cat([C.real, C.imag], dim=-1).to(dtype)
        return 2 * torch.matmul(row[:, None, :], X)[:, 0]

    def _response(self, length: int) -> Tensor:
        """A-bar^k B-bar of the stored modes, (features, state, length) complex128, by doubling."""
        A, b = self._dense()
        table = b[..., None]
        while table.shape[-1] < length:
            table = torch.cat([table, A @ table], dim=-1)
            A = A @ A
        return table[:, : self.states, :length]

    def _dense(self) -> tuple[Tensor, Tensor]:
        """A-bar (features, 2 state, 2 state) and B-bar of the modes and their conjugates."""
        wide = torch.complex128
        P, steps = self._low_rank()
        poles, B = self._full(self.poles).to(wide), self._full(self._input()).to(wide)
        poles, P, B = (torch.cat([x, x.conj()], dim=1) for x in (poles, P, B))
        half = (steps / 2).to(wide)[:, None, None]
        A = half * (torch.diag_embed(poles) - P @ P.mH)
        eye = torch.eye(A.shape[-1], dtype=wide, device=A.device)
        solved = torch.linalg.solve(eye - A, torch.cat([eye + A, 2 * half * B[..., None]], dim=-1))
        return solved[..., :-1], solved[..., -1]

    # ------------------------------------------------------------------ sequences

    def forward(self, u: Tensor, mode: str | None = None) -> Tensor:
        """Apply the layer to sequences, from rest.

        Args:
            u: (batch, length, features), float32 or float64.
            mode: "convolution", "recurrence" or "auto"; None for the layer's own.

        Returns:
            y, of the shape and dtype of u.

        Raises:
            InputError: another shape, or an unknown mode.
        """
        mode = self.mode if mode is None else _choice("mode", mode, MODES)
        if u.ndim != 3 or u.shape[2] != self.features:
            raise InputError(f"u has shape {tuple(u.shape)}: must be (batch, length, {self.features})")
        if mode == "auto":
            mode = self.plan(u.shape[0], u.shape[1])
        y = self._convolve(u) if mode == "convolution" else self._recur(u)
        return y if self.D is None else y + u * self.D.to(u.dtype)

    def plan(self, batch: int, length: int) -> str:
        """What "auto" means for sequences of this size: "convolution" or "recurrence".

        Args:
            batch: number of sequences.
            length: of each.

        Returns:
            The mode; from `ssmtheory.scan.lti.plan_lti` for a diagonal layer with scope "feature" in main memory. On
            another device, or with a low-rank part, it convolves; with scope "layer" it goes through its recurrence.
        """
        if self.scope == "layer":
            return "recurrence"
        if self.P is not None or self.C.device.type != "cpu":
            return "convolution"
        gradient = torch.is_grad_enabled()
        plan = plan_lti(self.features, self.states, max(1, length), max(1, batch), gradient=gradient)
        # the plan is for float32; in float64 the scan takes twice the time
        return "recurrence" if 2 * plan.seconds["scan"] < plan.seconds["kernel+fft"] else "convolution"

    def _convolve(self, u: Tensor) -> Tensor:
        length = u.shape[1]
        if not u.numel():
            return torch.zeros_like(u)
        work = torch.float64 if u.dtype == torch.float64 else torch.float32
        K = self.kernel(length, dtype=work)
        if self.scope == "feature":
            return fft_convolve(u, K)
        size = 2 * length
        transform = torch.fft.rfft(K, n=size).permute(2, 1, 0)
        x = torch.fft.rfft(u.to(work), n=size, dim=1).transpose(0, 1)
        y = torch.fft.irfft(torch.matmul(x, transform), n=size, dim=0)[:length]
        return y.transpose(0, 1).to(u.dtype)

    def _recur(self, u: Tensor) -> Tensor:
        length = u.shape[1]
        if not u.numel():
            return torch.zeros_like(u)
        C = torch.view_as_complex(self.C)
        # states in complex128: phases multiplied out in float32 drift, and modes may cancel as in the kernel
        if self.P is not None:
            state: Tensor | None = None
            outputs = []
            advance = self._stepper()
            for x in u.unbind(1):
                state = advance(x, state)
                outputs.append(self._read(state, C, u.dtype))
            return torch.stack(outputs, dim=1)
        w, bar = self.discrete(length)
        pairs = self.readout != "real"
        if self.scope == "feature":
            return lti_scan(u.to(torch.float64), w, bar, C, conjugate_pairs=pairs, backend=self.backend).to(u.dtype)
        work = torch.float64 if u.dtype == torch.float64 else torch.float32
        into = torch.view_as_real(bar.T.contiguous()).reshape(self.features, 2 * self.states).to(work)
        modes = torch.matmul(u.to(work), into).unflatten(2, (self.states, 2))
        states = linear_recurrence(w, torch.view_as_complex(modes.to(torch.float64)), backend=self.backend)
        rows = torch.stack([C.real, -C.imag], dim=-1).reshape(self.features, 2 * self.states).to(work)
        y = torch.matmul(torch.view_as_real(states).flatten(2).to(work), rows.T)
        return ((2 if pairs else 1) * y).to(u.dtype)

    def _read(self, state: Tensor, C: Tensor, dtype: torch.dtype) -> Tensor:
        scale = 1 if self.readout == "real" else 2
        C = C.to(state.dtype)
        y = (state @ C.T).real if self.scope == "layer" else (state * C).sum(-1).real
        return (scale * y).to(dtype)

    def _stepper(self, length: int | None = None) -> Any:
        """The function (u_t, state) -> state."""
        if self.P is None:
            w, bar = self.discrete(length)
            if self.scope == "layer":
                return lambda u, x: u.to(bar.dtype) @ bar.T + (0 if x is None else w * x)
            return lambda u, x: u[..., None] * bar + (0 if x is None else w * x)
        # bilinear rule in O(state): diag - P P^* by Woodbury's identity; a stored mode and its conjugate give 2 Re
        wide = torch.complex128
        P, steps = self._low_rank()
        poles, B = self.poles.to(wide), self._input().to(wide)
        half = (steps / 2).to(wide)[:, None]
        below = 1 / (1 - half * poles)
        scaled = half[..., None] * below[..., None] * P
        gram = torch.eye(P.shape[-1], dtype=torch.float64, device=P.device) + 2 * (P.mH @ scaled).real
        inverse = torch.linalg.inv(gram)
        input_ = 2 * half * B

        def advance(u: Tensor, x: Tensor | None) -> Tensor:
            v = u[..., None] * input_
            if x is not None:
                q = 2 * torch.einsum("fnr,bfn->bfr", P.conj(), x).real
                v = v + x + half * (poles * x - torch.einsum("fnr,bfr->bfn", P, q.to(wide)))
            v = below * v
            q = torch.einsum("frs,bfs->bfr", inverse, 2 * torch.einsum("fnr,bfn->bfr", P.conj(), v).real)
            return v - torch.einsum("fnr,bfr->bfn", scaled, q.to(wide))

        return advance

    def step(self, u_t: Tensor, state: Tensor | None = None, *, length: int | None = None) -> tuple[Tensor, Tensor]:
        """One step of the recurrence.

        Args:
            u_t: (batch, features), float32 or float64.
            state: (batch, features, state), with scope "layer" (batch, state), complex128; None at rest.
            length: of the whole sequence; DSS alone needs it.

        Returns:
            y_t (batch, features) and the next state.

        Raises:
            InputError: another shape, or DSS without a length.
        """
        if u_t.ndim != 2 or u_t.shape[1] != self.features:
            raise InputError(f"u_t has shape {tuple(u_t.shape)}: must be (batch, {self.features})")
        state = self._stepper(length)(u_t, state)
        y = self._read(state, torch.view_as_complex(self.C), u_t.dtype)
        return (y if self.D is None else y + u_t * self.D.to(u_t.dtype)), state

    def extra_repr(self) -> str:
        """Sizes and choices, for `print(model)`."""
        return (
            f"features={self.features}, states={self.states}, scope={self.scope!r}, "
            f"discretization={self.discretization!r}, train={self.trained}, mode={self.mode!r}"
        )


def _softmax_scale(x: Tensor, length: int) -> Tensor:
    """1 / sum_k exp(k x), k < length, in the scaling where the largest term is 1; kept finite as in DSS."""
    x = torch.where(x.real > 0, -x, x)
    zero = x == 0
    safe = torch.where(zero, torch.ones_like(x), x)
    total = torch.where(zero, torch.full_like(x, length), _expm1(length * safe) / _expm1(safe))
    return total.conj() / (total.real**2 + total.imag**2 + 1e-7)


def _expm1(x: Tensor) -> Tensor:
    half = torch.sin(x.imag / 2)
    re = torch.expm1(x.real) * torch.cos(x.imag) - 2 * half * half
    return torch.complex(re, torch.exp(x.real) * torch.sin(x.imag))


# ---------------------------------------------------------------------- by name

#: Name of a layer -> name of its initialisation in `ssmtheory.inits`.
VARIANTS: dict[str, str] = {
    "s4": "s4",
    "s4-legt": "legt",
    "s4d": "s4d-legs",
    "s4d-inv": "s4d-inv",
    "s4d-lin": "s4d-lin",
    "s4d-real": "s4d-real",
    "s4d-arctan": "s4d-arctan",
    "dss": "dss",
    "s4-ptd": "s4-ptd",
    "hippo-rho": "hippo-rho",
    "s5": "s5",
    "s5-ptd": "s5-ptd",
    "s5-rho": "s5-rho",
    "lru": "lru",
}
#: Names by which options of a variant are also known.
_ALIASES = {"kind": "perturbation"}
#: Variants that take the option scaling; see `LTILayer`.
_SCALED = ("s4d", "s4d-inv", "s4d-lin", "s4d-real", "s4d-arctan", "s4-ptd", "hippo-rho")


def parse_variant(variant: str) -> tuple[str, dict[str, Any]]:
    """Name and options of a variant, as in "s4-ptd:epsilon=0.1,kind=dissipative".

    Args:
        variant: a name of `VARIANTS`, then ":" and options of its initialisation, separated by commas. Variants with
            one input per feature and no low-rank part also take scaling=given or scaling=unit_input; see `LTILayer`.

    Returns:
        The name, and the options with their values as bool, int, float or str.

    Raises:
        ConfigError: an unknown name or option, or a value of another type.

    >>> parse_variant("hippo-rho:rho=8,normal=true")
    ('hippo-rho', {'rho': 8.0, 'normal': True})
    """
    name, _, rest = variant.partition(":")
    if name not in VARIANTS:
        raise ConfigError(f"variant {name!r}: must be one of {', '.join(VARIANTS)}.{nearest(name, VARIANTS)}")
    default = inits.get(VARIANTS[name])
    fields = {f.name: getattr(default, f.name) for f in dataclasses.fields(default)}
    fields.update({alias: fields[field] for alias, field in _ALIASES.items() if field in fields})
    if name in _SCALED:
        fields["scaling"] = "given"
    options: dict[str, Any] = {}
    for item in rest.split(",") if rest else []:
        key, equals, text = (part.strip() for part in item.partition("="))
        if not equals or key not in fields:
            raise ConfigError(
                f"variant {variant!r}: {item!r} must be option=value, with an option of {name}: "
                f"{', '.join(fields) or 'none'}.{nearest(key, fields)}"
            )
        options[key] = _value(variant, key, text, fields[key])
    if options.get("scaling", "given") not in SCALINGS:
        raise ConfigError(f"variant {variant!r}: scaling must be one of {', '.join(SCALINGS)}.")
    return name, options


def _value(variant: str, key: str, text: str, like: Any) -> Any:
    kind = type(like)
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        return kind(text)
    except (KeyError, ValueError) as error:
        words = {bool: "true or false", int: "a whole number", float: "a number"}
        raise ConfigError(f"variant {variant!r}: {key}={text!r} must be {words[kind]}") from error


def initialization_of(variant: str, **defaults: Any) -> tuple[str, Initialization]:
    """Name and initialisation of a variant.

    Args:
        variant: see `parse_variant`.
        defaults: fields of the initialisation that the variant's own options go before.

    Returns:
        The name, a key of `VARIANTS`, and the initialisation.

    Raises:
        ConfigError: an unknown variant or option.

    >>> initialization_of("s4-ptd:epsilon=0.1,kind=dissipative")[1].perturbation
    'dissipative'
    """
    name, options = parse_variant(variant)
    options = {_ALIASES.get(key, key): value for key, value in options.items() if key != "scaling"}
    return name, inits.get(VARIANTS[name], **{**defaults, **options})


def scaling_of(variant: str, default: str = "given") -> str:
    """The scaling of the modes that a variant asks for, for `LTILayer`.

    >>> scaling_of("s4-ptd:epsilon=0.1,scaling=unit_input"), scaling_of("s4d")
    ('unit_input', 'given')
    """
    return str(parse_variant(variant)[1].get("scaling", default))


def make_layer(
    variant: str,
    features: int,
    N: int,
    seed: int = 0,
    dt_min: float = 1e-3,
    dt_max: float = 1e-1,
    *,
    train: Sequence[str] = ("C", "D"),
    mode: str = "auto",
    backend: str = "auto",
    real_part: str = "exp",
    per_feature: bool = True,
    scaling: str = "given",
) -> LTILayer:
    """A layer by name.

    Args:
        variant: see `parse_variant`; "s4-ptd" has N/2 modes and reads 2 Re, as its authors' code does.
        features: number of features.
        N: number of states, both members of a conjugate pair counted.
        seed: of everything random.
        dt_min: smallest step in seconds.
        dt_max: largest step in seconds.
        train: which of "A", "B", "C", "D", "steps" are trained; names that a variant does not have (LRU has no steps)
            are left out.
        mode: see `LTILayer`.
        backend: see `LTILayer`.
        real_part: see `LTILayer`.
        per_feature: see `LTILayer`.
        scaling: see `LTILayer`; an option of the variant goes before it.

    Returns:
        The layer; D is normal, as in the code of S4 and S5.

    Raises:
        ConfigError: an unknown variant or option.
        InputError: sizes or steps that cannot be.
    """
    parameters = initialization_of(variant)[1].layer(features, N, seed, dt_min, dt_max)
    if parameters.D is None:
        (rng,) = generators(seed, "D")
        parameters = dataclasses.replace(parameters, D=rng.standard_normal(features))
    if parameters.steps is None:
        train = [part for part in train if part != "steps"]
    return LTILayer(
        parameters, train=train, mode=mode, backend=backend, real_part=real_part, per_feature=per_feature,
        scaling=scaling_of(variant, scaling),
    )  # fmt: skip
