"""The depth ODE of tokens in a selective state-space layer: right-hand side, discrete depth, integrators.

============ ==================================================== =====================
name         paper symbol                                         shape
============ ==================================================== =====================
x            x_1..x_L, the tokens (columns of x in the paper)     (..., L, D)
S_B, S_C     input and output matrices, B_l = S_B x_l             (N, E)
S_delta      S_Delta, Delta = softplus(S_Delta x + bias)          (E, E), (1, E) or two factors
A            A_d, diagonal and negative                           (), (N,) or (E, N)
M            S_C^T S_B, the input-output matrix; mu when D = 1    (E, E)
inner        x -> u, the value path (E = D without one)           (E, D)
gate         z = W_z x, the output is multiplied by SiLU(z)       (E, D)
skip         D, the skip term                                     (E,)
out          y -> x, the output matrix                            (D, E)
============ ==================================================== =====================

With all options off the flow is that of "Demystifying the Token Dynamics of Deep Selective State Space Models" (arXiv
2410.03292), the limit h -> 0 of the residual stack x <- x + h y(x):

    dx_dl / dt = sum_{j<=l} P_dlj x_dj,   P_dlj = x_l^T S_C^T exp(A_d sum_{k=j+1..l} Delta_d(x_k)) S_B x_j Delta_d(x_j)

Its right-hand side is one selective scan, O(L E N); P is never formed. Everything is computed up to a scale e^s that is
carried as a logarithm, so that neither tokens near a blow-up nor steps Delta = 1e-43000 leave the range of float64.

Which coordinates (all measured; raw x is offered only to show what it does):

| regime | coordinates | independent variable |
|---|---|---|
| finite-time blow-up | ln abs(x) where signs are invariant, else x with a scale per token | Sundman time |
| convergence, equilibria | the same | ln(1 + t / t0); a stiff solver where stability limits the step |
| slow divergence | ln(x_l / x_1) and ln t | w = abs(S_Delta x_1), `slow_divergence` |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from array_api_compat import array_namespace, is_numpy_array

from ssmtheory.dynamics import _clock
from ssmtheory.errors import InputError, nearest
from ssmtheory.scan import selective_scan
from ssmtheory.scan.conv import silu, softplus
from ssmtheory.typing import Array

__all__ = [
    "STATUSES",
    "DepthMap",
    "Ensemble",
    "SlowDivergence",
    "TokenODE",
    "Trajectory",
    "cone_hold",
    "depth_map",
    "fate",
    "integrate",
    "log_softplus",
    "slow_divergence",
]

#: Every value of `Trajectory.status`.
STATUSES = ("finished", "blew_up", "reached_zero", "converged", "budget", "failed")
_METHODS = ("auto", "clock", "stiff", "raw")
_STIFF = ("Radau", "BDF", "LSODA")
_SOLVERS = (*_STIFF, "DOP853", "RK45", "RK23")
_NORMS = (None, "unit", "rms")
#: evaluations after which method "auto" leaves the explicit method: regular flows need a few hundred
_PATIENCE = 4_000
#: below this ln Delta every decay is 1 to the last bit and Delta itself may underflow
_DEEP = -600.0


def log_softplus(v: Array) -> Array:
    """ln(ln(1 + e^v)) at full relative precision: v - e^v / 2 below -30, where softplus itself underflows at -745.

    >>> import numpy as np
    >>> float(log_softplus(np.asarray(-1e5)))
    -100000.0
    """
    xp = array_namespace(v)
    low = xp.minimum(v, xp.asarray(-30.0, dtype=v.dtype))
    high = xp.maximum(v, xp.asarray(-30.0, dtype=v.dtype))
    return xp.where(v < -30.0, low - 0.5 * xp.exp(low), xp.log(softplus(high)))


def _matrix(name: str, value: Any, shape: tuple[int | None, ...]) -> np.ndarray:
    array = np.array(value, dtype=np.float64)
    fits = array.ndim == len(shape) and all(want in (None, have) for want, have in zip(shape, array.shape, strict=True))
    if not fits:
        want = ", ".join("any" if size is None else str(size) for size in shape)
        raise InputError(f"{name} has shape {array.shape}: must be ({want})")
    if not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InputError(f"{name}{list(where)} is {array[where]}: every entry must be finite")
    array.flags.writeable = False
    return array


@dataclass(frozen=True, eq=False)
class TokenODE:
    """A selective state-space layer as a vector field on tokens (see the module's table of shapes).

    Args:
        S_B, S_C: (N, E).
        S_delta: (E, E) one Delta per channel, (1, E) one Delta for all channels, or a pair (W, V) of shapes (E, R),
            (R, E) with S_Delta = W V.
        A: negative: a scalar (the paper's theorems), (N,) one per state, or (E, N) one per channel and state.
        bias: added before softplus: a scalar, or one per row of S_delta.
        inner, activation: u = inner x, through SiLU if activation is "silu"; B, C and Delta read u.
        gate: (E, D), multiplies the output by SiLU(gate x).
        skip: (E,), adds skip * u to the scan's output.
        out: (D, E), from the channels back to the tokens.
        prenorm: "unit" divides each token by its Euclidean norm, "rms" by its root mean square, before all else.
        norm_B, norm_C: divide B_l, C_l by their root mean square (Falcon-Mamba, Jamba).
        norm_delta: divide S_Delta u (V u for a pair) by its root mean square before W and the bias.

    Raises:
        InputError: shapes that do not fit, entries that are not finite, or an A that is not negative.

    >>> TokenODE.scalar(mu=1.0, s=1.0)
    TokenODE(D=1, N=1, A scalar)
    """

    S_B: np.ndarray
    S_C: np.ndarray
    S_delta: Any
    A: Any
    bias: Any = 0.0
    inner: np.ndarray | None = None
    activation: Literal["silu"] | None = None
    gate: np.ndarray | None = None
    skip: np.ndarray | None = None
    out: np.ndarray | None = None
    prenorm: Literal["unit", "rms"] | None = None
    norm_B: bool = False
    norm_C: bool = False
    norm_delta: bool = False
    backend: str = "auto"
    _decay: np.ndarray = field(init=False, repr=False, default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        put = object.__setattr__.__get__(self)
        put("S_B", _matrix("S_B", self.S_B, (None, None)))
        states, inside = self.S_B.shape
        put("S_C", _matrix("S_C", self.S_C, (states, inside)))
        if isinstance(self.S_delta, tuple | list) and len(self.S_delta) == 2 and np.ndim(self.S_delta[0]) == 2:
            right = _matrix("S_delta[1]", self.S_delta[1], (None, inside))
            put("S_delta", (_matrix("S_delta[0]", self.S_delta[0], (None, right.shape[0])), right))
            rows = self.S_delta[0].shape[0]
        else:
            put("S_delta", _matrix("S_delta", self.S_delta, (None, inside)))
            rows = self.S_delta.shape[0]
        if rows not in (1, inside):
            raise InputError(f"S_delta has {rows} rows: must be 1 (one Delta for all channels) or {inside}")
        bias = np.asarray(self.bias, dtype=np.float64)
        put("bias", _matrix("bias", np.broadcast_to(bias, (rows,)) if bias.ndim == 0 else bias, (rows,)))
        a = np.array(self.A, dtype=np.float64)
        if a.shape not in ((), (states,), (inside, states)):
            raise InputError(f"A has shape {a.shape}: must be a scalar, ({states},) or ({inside}, {states})")
        if not (np.isfinite(a).all() and (a < 0).all()):
            bad = a[~(a < 0) | ~np.isfinite(a)].ravel()[0]
            raise InputError(f"A has the entry {bad}: must be negative and finite; for a decay rate a give A = -a")
        a.flags.writeable = False
        put("A", a)
        put("_decay", np.ascontiguousarray(np.broadcast_to(a, (inside, states))))
        tokens: int | None = None
        for name, shape in (("inner", (inside, None)), ("gate", (inside, None)), ("out", (None, inside))):
            value = getattr(self, name)
            if value is not None:
                put(name, _matrix(name, value, shape))
                width = getattr(self, name).shape[0 if name == "out" else 1]
                if tokens not in (None, width):
                    raise InputError(f"{name} is for tokens of width {width}, another matrix for {tokens}")
                tokens = width
        if self.skip is not None:
            put("skip", _matrix("skip", self.skip, (inside,)))
        width = tokens if tokens is not None else inside
        if width != inside and (self.inner is None or self.out is None):
            raise InputError(f"tokens of width {width} and channels of width {inside}: give both inner and out")
        if self.activation not in (None, "silu"):
            raise InputError(f"activation={self.activation!r}: must be None or 'silu'")
        if self.prenorm not in _NORMS:
            raise InputError(f"prenorm={self.prenorm!r}: must be None, 'unit' or 'rms'")

    @classmethod
    def scalar(cls, mu: float, s: float, a: float = 1.0, bias: float = 0.0) -> TokenODE:
        """The paper's one-dimensional system: mu = S_C^T S_B, s = S_Delta, A = -a.

        Raises:
            InputError: as the class.
        """
        return cls(S_B=np.ones((1, 1)), S_C=np.full((1, 1), float(mu)), S_delta=[[s]], A=-float(a), bias=bias)

    @classmethod
    def from_matrix(cls, M: Any, S_delta: Any, A: Any = -1.0, bias: Any = 0.0, **options: Any) -> TokenODE:
        """A layer with a given input-output matrix: S_B = M, S_C = identity (so N = E).

        >>> TokenODE.from_matrix([[1, 0], [0, -1]], S_delta=[[0, 0], [0, 0]]).q(np.array([0.5, 1.0])).item()
        -0.75
        """
        M = _matrix("M", M, (None, None))
        return cls(S_B=M, S_C=np.eye(M.shape[0]), S_delta=S_delta, A=A, bias=bias, **options)

    def __repr__(self) -> str:
        kind = {0: "scalar", 1: "per state", 2: "per channel and state"}[self.A.ndim]
        on = [
            name
            for name in ("inner", "activation", "gate", "skip", "out", "prenorm")
            if getattr(self, name) is not None
        ]
        on += [name for name in ("norm_B", "norm_C", "norm_delta") if getattr(self, name)]
        return f"TokenODE(D={self.width}, N={self.S_B.shape[0]}, A {kind}{''.join(f', {name}' for name in on)})"

    # ------------------------------------------------------------------ what the layer is
    @property
    def width(self) -> int:
        """D, the dimension of a token."""
        for matrix in (self.inner, self.gate):
            if matrix is not None:
                return int(matrix.shape[1])
        return int(self.S_B.shape[1] if self.out is None else self.out.shape[0])

    @property
    def M(self) -> np.ndarray:
        """S_C^T S_B, (E, E)."""
        return self.S_C.T @ self.S_B

    def q(self, u: Any) -> np.ndarray:
        """u^T M u of vectors u (..., E): the common sign of all rates of token 1."""
        u = np.asarray(u, np.float64)
        return np.einsum("...n,...n->...", u @ self.S_C.T, u @ self.S_B.T)

    def signs_are_invariant(self, tokens: int) -> bool:
        """Whether every coordinate of every one of L tokens keeps its sign: its rate contains it as a factor.

        So in one dimension and for a first token, unless a value path or an output matrix mixes coordinates.
        """
        return self.inner is None and self.out is None and (tokens == 1 or self.width == 1)

    # ------------------------------------------------------------------ right-hand side
    def log_delta(self, x: Array, log_scale: Array | None = None) -> Array:
        """ln Delta of tokens x e^{log_scale}: x (batch, L, D), log_scale (batch,) -> (batch, L, E or 1)."""
        u, scale = self._inside(*self._normed(x, _zeros(x) if log_scale is None else log_scale))
        return log_softplus(self._before(u, scale))

    def _normed(self, x: Array, scale: Array) -> tuple[Array, Array]:
        if self.prenorm is None:
            return x, scale
        xp = array_namespace(x)
        square = xp.sum(x * x, axis=-1, keepdims=True)
        size = xp.sqrt(square if self.prenorm == "unit" else square / x.shape[-1])
        return x / xp.where(size > 0, size, 1.0), 0.0 * scale

    def _inside(self, n: Array, scale: Array) -> tuple[Array, Array]:
        xp = array_namespace(n)
        u = n if self.inner is None else n @ xp.asarray(self.inner.T)
        if self.activation is None:
            return u, scale
        return silu(u * _grown(scale)), 0.0 * scale

    def _before(self, u: Array, scale: Array) -> Array:
        """S_Delta u + bias."""
        xp = array_namespace(u)
        low = isinstance(self.S_delta, tuple)
        r = u @ xp.asarray((self.S_delta[1] if low else self.S_delta).T)
        if self.norm_delta:
            r = _unit_rms(r)
        r = r if not low else r @ xp.asarray(self.S_delta[0].T)
        return (r if self.norm_delta else r * _grown(scale)) + xp.asarray(self.bias)

    def scaled_rate(self, x: Array, log_scale: Array) -> tuple[Array, Array]:
        """dx/dt of the tokens x e^{log_scale}, itself as F e^{log F}.

        Args:
            x: (batch, L, D), NumPy or JAX; log_scale: (batch,).

        Returns:
            F (batch, L, D) and log F (batch,).
        """
        xp = array_namespace(x)
        n, at_n = self._normed(x, log_scale)
        u, at_u = self._inside(n, at_n)
        B, C = u @ xp.asarray(self.S_B.T), u @ xp.asarray(self.S_C.T)
        total = at_u
        if self.norm_B:
            B = _unit_rms(B)
        else:
            total = total + at_u
        if self.norm_C:
            C = _unit_rms(C)
        else:
            total = total + at_u
        before = self._before(u, at_u)
        log_delta = log_softplus(before)
        top = xp.max(log_delta, axis=(1, 2))
        y = self._scan(u, before, log_delta, top, B, C)
        total = total + top
        if self.skip is not None:
            both = xp.maximum(total, at_u)
            y = y * xp.exp(total - both)[:, None, None] + u * xp.asarray(self.skip) * xp.exp(at_u - both)[:, None, None]
            total = both
        if self.gate is not None:
            y = y * silu(n @ xp.asarray(self.gate.T) * _grown(at_n))
        return (y if self.out is None else y @ xp.asarray(self.out.T)), total

    def _scan(self, u: Array, before: Array, log_delta: Array, top: Array, B: Array, C: Array) -> Array:
        """The scan divided by e^top, the largest Delta: exact also where Delta itself underflows."""
        xp = array_namespace(u)
        decay = xp.asarray(self._decay)

        def run(rows: Any, delta: Array, factor: Array, A: Array) -> Array:
            v = u[rows]
            delta = xp.broadcast_to(delta, v.shape)
            return selective_scan(v * factor[:, None, None], delta, A, B[rows], C[rows], backend=self.backend)

        every = slice(None)
        if not is_numpy_array(u):
            return run(every, softplus(before), xp.exp(-xp.maximum(top, xp.asarray(_DEEP))), decay)
        deep = top < _DEEP
        if not deep.any():
            return run(every, softplus(before), np.exp(-top), decay)
        y = np.empty(u.shape)
        weights = np.exp(log_delta[deep] - top[deep, None, None])
        # every decay is 1 to the last bit, so that only the relative size of the steps is left
        y[deep] = run(deep, weights, np.ones(int(deep.sum())), np.zeros_like(decay))
        if not deep.all():
            y[~deep] = run(~deep, softplus(before[~deep]), np.exp(-top[~deep]), decay)
        return y

    def rate(self, x: Any) -> np.ndarray:
        """dx/dt by one selective scan, O(L E N): x (..., L, D) -> (..., L, D).

        Raises:
            InputError: x does not end in (L, D).

        >>> TokenODE.scalar(1.0, 0.0).rate(np.array([[1.0], [1.0]]))[:, 0] / np.log(2)
        array([1. , 1.5])
        """
        x = np.asarray(x, np.float64)
        if x.ndim < 2 or x.shape[-1] != self.width:
            raise InputError(f"x has shape {x.shape}: must end in (tokens, {self.width})")
        batch = x.reshape(-1, *x.shape[-2:])
        size = np.abs(batch).max(axis=(1, 2))
        # scaled to about one, so that neither tiny nor huge tokens lose digits on the way
        scale = np.where((size > 0) & np.isfinite(size), np.log(np.where(size > 0, size, 1.0)), 0.0)
        F, log_F = self.scaled_rate(batch * np.exp(-scale)[:, None, None], scale)
        return (F * np.exp(log_F)[:, None, None]).reshape(x.shape)

    def pair_weights(self, x: Any) -> np.ndarray:
        """P_dlj of one sequence by its definition, O(L^2 E N): x (L, D) -> (E, L, L), zero for j > l.

        For tests and pictures: the flow never forms it.
        """
        x = np.asarray(x, np.float64)[None]
        n, scale = self._normed(x, np.zeros(1))
        u, scale = self._inside(n, scale)
        delta = np.broadcast_to(softplus(self._before(u, scale)), u.shape)[0]
        B, C = u[0] @ self.S_B.T, u[0] @ self.S_C.T
        B, C = (_unit_rms(B) if self.norm_B else B), (_unit_rms(C) if self.norm_C else C)
        since = np.cumsum(delta, axis=0)
        gap = since[:, None] - since[None]  # sum over k = j+1..l, (l, j, E)
        earlier = np.tri(len(delta), dtype=bool)
        decay = np.exp(np.where(earlier[..., None, None], gap[..., None] * self._decay, -np.inf))
        return np.einsum("ln,ljdn,jn,jd->dlj", C, decay, B, delta)


def _grown(scale: Array) -> Array:
    """e^{scale} as (batch, 1, 1); held at the edge of float64, where a zero times it must stay zero."""
    xp = array_namespace(scale)
    return xp.exp(xp.minimum(scale, xp.asarray(700.0, dtype=scale.dtype)))[:, None, None]


def _zeros(x: Array) -> Array:
    xp = array_namespace(x)
    return xp.zeros(x.shape[0], dtype=x.dtype)


def _unit_rms(v: Array) -> Array:
    xp = array_namespace(v)
    rms = xp.sqrt(xp.mean(v * v, axis=-1, keepdims=True))
    return v / xp.where(rms > 0, rms, 1.0)


# ---------------------------------------------------------------------- results
@dataclass(frozen=True, eq=False)
class Trajectory:
    """One integration: where it went, how it ended, and how far to trust it.

    Attributes:
        status: one of `STATUSES`: "finished" (the end that was asked for), "blew_up" (abs(x) -> infinity at
            `blow_up_time`), "reached_zero" (pre-norm: a token reached the origin at `blow_up_time`), "converged" (an
            equilibrium: nothing moves any more on the scale of ln t), "budget" (the allowed field evaluations are
            used up), "failed" (the step fell to zero).
        message: the same in words, with numbers.
        t: (time,) the times asked for, or those of the accepted steps; NaN from the end of the flow on.
        log_t: (time,) ln t, finite also where t is not.
        x: (time, L, D), NaN where t is; log_abs: ln abs(x), finite also where x overflows.
        blow_up_time, blow_up_error: of the singularity, NaN without one; the error is an estimate, absolute.
        error: estimated relative error of x at the end: the sum of the local error estimates.
        residual: largest defect of the ODE over a step, relative: x(end) - x(start) - integral of the right-hand side
            by 8-point Gauss quadrature through states computed separately; NaN where it was not asked for.
        calls, steps: evaluations of the right-hand side, accepted steps.
        log_delta: (L, E or 1) ln Delta at the end.
        growth: (L,) d ln abs(x_l) / d ln t at the end: the growth per decade of t, by the ODE itself.
        coordinates: what was integrated and how, in words.
    """

    status: str
    message: str
    t: np.ndarray
    log_t: np.ndarray
    x: np.ndarray
    log_abs: np.ndarray
    blow_up_time: float
    blow_up_error: float
    error: float
    residual: float
    calls: int
    steps: int
    log_delta: np.ndarray
    growth: np.ndarray
    coordinates: str

    @property
    def fate(self) -> str:
        """As `fate`."""
        return fate(self)


@dataclass(frozen=True, eq=False)
class Ensemble(Sequence[Trajectory]):
    """Integrations of a batch of initial tokens; a sequence of `Trajectory`, with the common columns as arrays."""

    members: tuple[Trajectory, ...]

    def __getitem__(self, index: Any) -> Any:
        return Ensemble(self.members[index]) if isinstance(index, slice) else self.members[index]

    def __len__(self) -> int:
        return len(self.members)

    def _column(self, name: str) -> np.ndarray:
        return np.array([getattr(member, name) for member in self.members])

    @property
    def status(self) -> np.ndarray:
        """(member,) of `STATUSES`."""
        return self._column("status")

    @property
    def fate(self) -> np.ndarray:
        """(member,) as `fate`."""
        return self._column("fate")

    @property
    def blow_up_time(self) -> np.ndarray:
        """(member,), NaN without one."""
        return self._column("blow_up_time")

    @property
    def blow_up_error(self) -> np.ndarray:
        """(member,) absolute estimates."""
        return self._column("blow_up_error")

    @property
    def residual(self) -> np.ndarray:
        """(member,)."""
        return self._column("residual")

    @property
    def calls(self) -> np.ndarray:
        """(member,)."""
        return self._column("calls")


def fate(trajectory: Trajectory) -> str:
    """Where a trajectory goes, by growth per decade of t and Delta at its end, never by a value at a finite time.

    Returns:
        "blow_up", "reached_zero", "point" (an equilibrium; the origin only if every token starts there), "zero" (every
        token that still moves shrinks like a power of t), "slow" (a token grows while its Delta falls below e^-3: the
        growth of ln t), "growing" (a token grows like a power of t or faster), or "undecided".
    """
    if trajectory.status in ("blew_up", "reached_zero"):
        return {"blew_up": "blow_up"}.get(trajectory.status, trajectory.status)
    if trajectory.status == "converged":
        return "point"
    growth = trajectory.growth[np.isfinite(trajectory.growth)]
    if trajectory.status not in ("finished", "budget") or not growth.size:
        return "undecided"
    fastest = int(np.nanargmax(trajectory.growth))
    if growth.max() * max(float(trajectory.log_t[-1]), 1.0) > 0.2:
        steps = trajectory.log_delta[fastest]
        # of the channel that carries the token, where channels are coordinates
        same = steps.size == trajectory.log_abs.shape[2]
        fading = float(steps[np.argmax(trajectory.log_abs[-1, fastest])] if same else steps.max()) < -3.0
        return "slow" if fading and growth.max() < 0.5 else "growing" if growth.max() > 0.05 else "undecided"
    return "zero" if growth.min() < -0.02 else "undecided"


def cone_hold(ode: TokenODE, x: np.ndarray, log_delta: np.ndarray, log_t: float) -> tuple[np.ndarray, np.ndarray]:
    """How near every token is to the null cone q(x) = x^T M x = 0, and how fast its own term pulls it there.

    A large token on an attracting part of the cone moves along it slowly, driven by the others, while deviations decay
    at the rate 2 |q_Delta|, q_Delta = x^T M_sym diag(Delta) x < 0 (d ln|q|/dt = 2 q_Delta of a token alone): a flow as
    stiff as their ratio, which no explicit step passes and an implicit one only in small steps.

    Args:
        ode: a layer without value path, gate, output matrix or norms (of others nothing is said: NaN).
        x: (L, D) tokens; log_delta: (L, E or 1) ln Delta there; log_t: ln t.

    Returns:
        (L,) |q|/|x|^2, and (L,) d ln|q| / d ln t of the token alone: negative where the cone attracts.

    >>> ode = TokenODE([[1.0, -1.0]], [[1.0, 1.0]], np.zeros((2, 2)), -1.0)       # M_sym = diag(1, -1)
    >>> near, pull = cone_hold(ode, np.array([[9.0, 9.0]]), np.log([[1.0, 2.0]]), 0.0)
    >>> float(near[0]), float(pull[0].round(9))
    (0.0, -162.0)
    """
    if (
        any(part is not None for part in (ode.inner, ode.gate, ode.skip, ode.out, ode.prenorm))
        or ode.norm_B
        or ode.norm_C
    ):
        return np.full(len(x), np.nan), np.full(len(x), np.nan)
    with np.errstate(all="ignore"):
        size = np.linalg.norm(x, axis=1)
        u = x / size[:, None]
        half = 0.5 * (ode.S_C.T @ ode.S_B + ode.S_B.T @ ode.S_C)
        top = log_delta.max(axis=1)
        pull = 2.0 * np.einsum("ld,de,le->l", u, half, np.exp(log_delta - top[:, None]) * u)
        per_log_t = pull * np.exp(np.minimum(top + 2.0 * np.log(size) + log_t, 600.0))
        return np.abs(np.einsum("ld,de,le->l", u, half, u)), per_log_t


# ---------------------------------------------------------------------- the scaled field
@dataclass
class _Chart:
    """How tokens are stored as y = (z, tau), and the field on y for `_clock.advance`."""

    ode: TokenODE
    tokens: int
    logs: bool
    sign: np.ndarray  # (member, L, D)
    log_t0: np.ndarray  # (member,)

    @property
    def name(self) -> str:
        return "ln|x| with the signs fixed" if self.logs else "x, each token on its own scale"

    def encode(self, x: np.ndarray) -> np.ndarray:
        if self.logs:
            z = np.log(np.where(x != 0, np.abs(x), 1.0))
        else:
            z = x
        return np.concatenate([z.reshape(len(x), -1), np.zeros((len(x), 1))], axis=1)

    def split(self, y: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens as x e^{scale}: (member, L, D) and (member,)."""
        z = y[:, :-1].reshape(len(y), self.tokens, -1)
        if self.logs:
            sign = self.sign[which]
            scale = np.where(sign != 0, z, -np.inf).max(axis=(1, 2))
            scale = np.where(np.isfinite(scale), scale, 0.0)
            return sign * np.exp(z - scale[:, None, None]), scale
        size = np.abs(z).max(axis=(1, 2))
        scale = np.where(size > 0, np.log(np.where(size > 0, size, 1.0)), 0.0)
        return z * np.exp(-scale)[:, None, None], scale

    def speed(self, y: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Relative velocities v (member, L, D), the size G of v e^{log v}, and log v (member,)."""
        x, scale = self.split(y, which)
        F, log_F = self.ode.scaled_rate(x, scale)
        if self.logs:
            v = np.where(x != 0, F / np.where(x != 0, x, 1.0), 0.0)
            return v, np.sqrt((v * v).sum(axis=(1, 2))), log_F - scale
        rows = np.sqrt((x * x).sum(axis=2))
        by_token = np.sqrt((F * F).sum(axis=2)) / np.where(rows > 0, rows, 1.0)
        G = np.sqrt((np.where(rows > 0, by_token, 0.0) ** 2).sum(axis=1))
        return F * np.exp(scale)[:, None, None], G, log_F - scale

    def field(self, y: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        v, G, log_v = self.speed(y, which)
        with np.errstate(divide="ignore"):
            arg = y[:, -1] + self.log_t0[which] + np.log(G) + log_v
        small = np.exp(-np.abs(arg))
        moving = np.where(arg > 0, 1.0 / (1.0 + small), small / (1.0 + small))
        waiting = np.where(arg > 0, small / (1.0 + small), 1.0 / (1.0 + small))
        dz = v.reshape(len(y), -1) * (moving / np.where(G > 0, G, 1.0))[:, None]
        return np.concatenate([dz, waiting[:, None]], axis=1), arg

    def scale(self, y: np.ndarray, which: np.ndarray) -> np.ndarray:
        """Sizes against which errors are relative: 1 for logarithms, the token's norm for coordinates."""
        out = 1.0 + np.abs(y) / 30.0
        if not self.logs:
            z = y[:, :-1].reshape(len(y), self.tokens, -1)
            size = np.sqrt((z * z).sum(axis=2, keepdims=True))
            out[:, :-1] = np.broadcast_to(np.where(size > 0, size, 1.0), z.shape).reshape(len(y), -1)
        return out

    def tokens_of(self, y: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """x and ln abs(x), (member, L, D) each."""
        z = y[:, :-1].reshape(len(y), self.tokens, -1)
        with np.errstate(over="ignore", divide="ignore"):
            if self.logs:
                sign = self.sign[which]
                return sign * np.exp(z), np.where(sign != 0, z, -np.inf)
            return z, np.log(np.abs(z))

    def log_time(self, y: np.ndarray, which: np.ndarray) -> np.ndarray:
        """ln t, (member,)."""
        tau = y[:, -1]
        with np.errstate(divide="ignore"):
            return self.log_t0[which] + tau + np.log(-np.expm1(-tau))


def _prepare(ode: TokenODE, x0: Any) -> tuple[np.ndarray, bool]:
    x = np.array(x0, dtype=np.float64)
    if x.ndim not in (2, 3) or x.shape[-1] != ode.width or 0 in x.shape:
        raise InputError(
            f"initial tokens have shape {x.shape}: must be (tokens, {ode.width}) or (batch, tokens, {ode.width})"
        )
    if not np.isfinite(x).all():
        where = [int(i) for i in np.argwhere(~np.isfinite(x))[0]]
        raise InputError(f"initial tokens{where} is {x[tuple(where)]}: every entry must be finite")
    return (x if x.ndim == 3 else x[None]), x.ndim == 2


def _chart(ode: TokenODE, x: np.ndarray) -> _Chart:
    members, tokens = x.shape[:2]
    chart = _Chart(ode, tokens, ode.signs_are_invariant(tokens), np.sign(x), np.zeros(members))
    _, G, log_v = chart.speed(chart.encode(x), np.arange(members))
    with np.errstate(divide="ignore"):
        log_G = np.log(G) + log_v
    chart.log_t0 = np.where(np.isfinite(log_G), -np.clip(log_G, -650.0, 650.0), 0.0)
    return chart


def integrate(
    ode: TokenODE,
    x0: Any,
    t_end: float = 1e8,
    *,
    times: Any = None,
    log_t_end: float | None = None,
    method: str = "auto",
    solver: str = "Radau",
    rtol: float = 1e-12,
    stiff_rtol: float = 1e-9,
    max_step: float = _clock.LONGEST,
    budget: int = 20_000,
    residual: bool = True,
    backend: str = "numpy",
) -> Any:
    """Integrate the depth ODE from t = 0, from one or from many initial tokens at once.

    Nothing here raises because of what the flow does: a blow-up, an end beyond it, an exhausted budget are statuses.

    Args:
        ode: the layer.
        x0: (L, D), or (batch, L, D) for many at once.
        t_end: end of the depth interval.
        times: (time,) increasing, at which to report; None reports the accepted steps.
        log_t_end: ln of the end instead of t_end, for ends beyond float64.
        method: "auto": an explicit method on the scaled clock, and `solver` on the same clock (which is ln(1 + t / t0)
            wherever the flow is slow) from where stability limits the step; "clock": the explicit method alone;
            "stiff": `solver` alone; "raw": `solver` in t and x, which knows no blow-up and is here to show what
            happens (its statuses are "finished", "budget", "failed").
        solver: name of a method of `scipy.integrate.solve_ivp` for the stiff part, for "stiff" and "raw".
        rtol: relative error per step; stiff_rtol: the same for the stiff part, where it is larger.
        max_step: of the explicit method on the clock, on which tokens change by about e per unit: 0.1 gives smooth
            curves without `times`.
        budget: evaluations of the right-hand side that each member may use, whatever the method: no call can hang.
        residual: compute `Trajectory.residual` (about as expensive as half the integration).
        backend: "numpy", or "diffrax" (`pip install 'ssmtheory[ode]'`): the same coordinates, compiled (seconds, once
            per layer and shape), then far faster for a batch. It reports the end only, and does not go on with a
            stiff solver.

    Returns:
        `Trajectory`, or `Ensemble` for a batch.

    Raises:
        InputError: shapes, values or names that cannot be used.
        MissingDependencyError: backend "diffrax" without diffrax.

    >>> round(integrate(TokenODE.scalar(mu=1.0, s=1.0), [[1.0]], 1.0).blow_up_time, 12)
    0.282963287508
    """
    x, single = _prepare(ode, x0)
    for name, value, allowed in (("method", method, _METHODS), ("solver", solver, _SOLVERS)):
        if value not in allowed:
            raise InputError(f"{name}={value!r}: must be one of {', '.join(allowed)}.{nearest(value, allowed)}")
    if backend not in ("numpy", "diffrax"):
        raise InputError(f"backend={backend!r}: must be 'numpy' or 'diffrax'")
    if not 1e-14 <= rtol <= 1e-2:
        raise InputError(f"rtol={rtol}: must be from 1e-14 to 1e-2")
    if not max_step > 0:
        raise InputError(f"max_step={max_step}: must be positive")
    if budget < 1:
        raise InputError(f"budget={budget}: must be at least 1")
    if log_t_end is None:
        if not 0 < t_end < math.inf:
            raise InputError(f"t_end={t_end}: must be positive and finite; for ends beyond 1e308 give log_t_end")
        log_t_end = math.log(t_end)
    elif not math.isfinite(log_t_end):
        raise InputError(f"log_t_end={log_t_end}: must be finite")
    if times is not None:
        times = np.asarray(times, np.float64)
        if times.ndim != 1 or not times.size or not np.isfinite(times).all() or (np.diff(times) <= 0).any():
            raise InputError(f"times has shape {times.shape}: must be a rising list of finite numbers")
        if times[0] < 0 or times[-1] > math.exp(min(log_t_end, 709.0)) * (1 + 1e-12):
            raise InputError(f"times run from {times[0]:g} to {times[-1]:g}: must lie between 0 and the end")
    if backend == "diffrax":
        if method not in ("auto", "clock") or times is not None:
            raise InputError("backend='diffrax' has method 'auto' or 'clock' and reports the end only, without times")
        found = _compiled(ode, x, log_t_end, rtol, budget)
    elif method == "raw":
        found = [_raw(ode, row, log_t_end, times, solver, rtol, budget) for row in x]
    else:
        found = _on_clock(ode, x, log_t_end, times, method, solver, rtol, stiff_rtol, max_step, budget, residual)
    return found[0] if single else Ensemble(tuple(found))


def _tau(log_t: Any, log_t0: np.ndarray) -> np.ndarray:
    """ln(1 + t / t0)."""
    return np.logaddexp(0.0, log_t - log_t0)


def _on_clock(
    ode: TokenODE,
    x: np.ndarray,
    log_t_end: float,
    times: np.ndarray | None,
    method: str,
    solver: str,
    rtol: float,
    stiff_rtol: float,
    max_step: float,
    budget: int,
    residual: bool,
) -> list[Trajectory]:
    chart = _chart(ode, x)
    members = len(x)
    every = np.arange(members)
    y0 = chart.encode(x)
    tau_end = _tau(log_t_end, chart.log_t0)
    limits = np.full(members, {"clock": budget, "auto": min(budget, _PATIENCE), "stiff": 1}[method])
    run = _clock.advance(
        chart.field,
        y0,
        tau_end,
        chart.scale,
        rtol=rtol,
        budget=limits,
        watch_stiffness=method == "auto",
        longest=max_step,
    )
    with np.errstate(all="ignore"):
        defect = (
            _clock.quadrature_defect(chart.field, run.steps, chart.scale, members)
            if residual
            else np.full(members, np.nan)
        )
    order = np.argsort(run.steps.which, kind="stable")
    first = np.searchsorted(run.steps.which[order], every)
    after = np.searchsorted(run.steps.which[order], every, side="right")
    rows = [order[first[i] : after[i]] for i in every]
    tails: list[_Tail | None] = [None] * members
    for i in range(members):
        outcome, left = str(run.outcome[i]), budget - int(run.calls[i])
        if outcome == "stiff" or (method != "clock" and outcome == "budget" and left > 12):
            tails[i] = _continue(chart, i, run.y[i], float(tau_end[i]), solver, max(rtol, stiff_rtol), left)
    return _collect(chart, y0, run, rows, tails, times, defect, log_t_end)


def _compiled(ode: TokenODE, x: np.ndarray, log_t_end: float, rtol: float, budget: int) -> list[Trajectory]:
    """The same on the compiled clock."""
    from ssmtheory.dynamics import _diffrax

    chart = _chart(ode, x)
    y0, tau_end = chart.encode(x), _tau(log_t_end, chart.log_t0)
    run = _diffrax.solve(ode, chart.field, chart.logs, chart.sign, y0, chart.log_t0, tau_end, rtol, budget)
    rows = [np.array([i]) for i in range(len(x))]
    nothing = np.full(len(x), math.nan)
    return _collect(chart, y0, run, rows, [None] * len(x), None, nothing, log_t_end, "diffrax Dopri8")


@dataclass
class _Tail:
    """The part of a trajectory that a stiff solver did on the same clock: sigma (time,), y (time, n)."""

    outcome: str
    message: str
    sigma: np.ndarray
    y: np.ndarray
    dense: Callable[[np.ndarray], np.ndarray] | None
    exponent: float
    calls: int
    solver: str

    def at(self, tau: np.ndarray) -> np.ndarray:
        """States at given tau within the part, by bisection on the dense output."""
        assert self.dense is not None
        row = np.clip(np.searchsorted(self.y[:, -1], tau), 1, len(self.sigma) - 1)
        low, high = self.sigma[row - 1].copy(), self.sigma[row].copy()
        for _ in range(60):
            middle = 0.5 * (low + high)
            late = self.dense(middle)[-1] > tau
            low, high = np.where(late, low, middle), np.where(late, middle, high)
        y = self.dense(high).T
        y[:, -1] = tau
        return y


class _BudgetSpent(Exception):
    """Raised inside a right-hand side, which is the one place every solver must pass."""


def _guarded(f: Callable[[float, np.ndarray], np.ndarray], budget: int) -> tuple[Callable[..., np.ndarray], list[int]]:
    count = [0]

    def g(t: float, y: np.ndarray) -> np.ndarray:
        if count[0] >= budget:
            raise _BudgetSpent
        count[0] += 1
        return f(t, y)

    return g, count


def _continue(chart: _Chart, i: int, y: np.ndarray, tau_end: float, solver: str, rtol: float, budget: int) -> _Tail:
    """From y on by a stiff solver on the clock, until tau_end, a singularity, an equilibrium, or the budget.

    A solver is stopped by its own exception when the budget is spent; the steps up to there are kept. A Jacobian by
    differences counts as one evaluation, as it is one call with a batch.
    """
    from scipy import integrate as solvers

    def f(_: float, z: np.ndarray) -> np.ndarray:
        if z.ndim == 1:
            return chart.field(z[None], np.array([i]))[0][0]
        return chart.field(z.T, np.full(z.shape[1], i))[0].T

    g, count = _guarded(f, budget)
    # a vector of absolute tolerances: each coordinate against its own token
    size = chart.scale(y[None], np.array([i]))[0]
    options = {"rtol": max(rtol, 3e-14), "atol": rtol * size}
    if solver != "LSODA":
        options["vectorized"] = True
    sigmas, states, pieces = [0.0], [y], []
    outcome, message, exponent = "failed", "", math.nan
    arg = float(chart.field(y[None], np.array([i]))[1][0])
    try:
        with np.errstate(all="ignore"):
            stepper = getattr(solvers, solver)(g, 0.0, y.copy(), 1e9, **options)
            while stepper.status == "running":
                message = stepper.step() or ""
                if stepper.status == "failed" or not np.isfinite(stepper.y).all():
                    break
                pieces.append(stepper.dense_output())
                before, slope, length = arg, exponent, stepper.t - sigmas[-1]
                advanced = stepper.y[-1] - states[-1][-1]
                sigmas.append(float(stepper.t))
                states.append(stepper.y.copy())
                arg = float(chart.field(stepper.y[None], np.array([i]))[1][0])
                exponent = (arg - before - advanced) / length
                fading = exponent * length < -1.5 * advanced
                steady = abs(exponent - slope) <= 0.02 * abs(exponent)
                if arg < _clock.arrived(rtol) and (fading or math.isinf(arg)):
                    outcome = "converged"
                elif arg > _clock.SINGULAR and steady and exponent > 0.05:
                    outcome = "singular"
                elif stepper.y[-1] >= tau_end:
                    outcome = "finished"
                else:
                    continue
                break
    except _BudgetSpent:
        outcome = "budget"
    except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
        outcome, message = "failed", f"{type(error).__name__}: {error}"
    dense = solvers.OdeSolution(sigmas, pieces) if pieces else None
    tail = _Tail(outcome, message, np.array(sigmas), np.array(states), dense, exponent, count[0], solver)
    if outcome == "finished":
        tail.y[-1] = tail.at(np.array([tau_end]))[0]
    return tail


def _collect(
    chart: _Chart,
    y0: np.ndarray,
    run: _clock.Run,
    rows: list[np.ndarray],
    tails: list[_Tail | None],
    times: np.ndarray | None,
    defect: np.ndarray,
    log_t_end: float,
    explicit: str = "DOP853",
) -> list[Trajectory]:
    """Put every member's parts together; what is the same for all is computed for all at once."""
    every = np.arange(len(y0))
    last, exponent, outcome = run.y.copy(), run.exponent.copy(), run.outcome.copy()
    calls, error = run.calls.copy(), run.error.copy()
    for i, tail in enumerate(tails):
        if tail is not None:
            last[i], exponent[i], outcome[i] = tail.y[-1], tail.exponent, tail.outcome
            calls[i] += tail.calls
            error[i] = math.nan
    log_t = chart.log_time(last, every)
    with np.errstate(all="ignore"):
        v, _, log_v = chart.speed(last, every)
        tokens, scale = chart.split(last, every)
        square = (tokens**2).sum(axis=2)
        rate = v if chart.logs else v * np.exp(-scale)[:, None, None]
        radial = (tokens**2 * v if chart.logs else tokens * rate).sum(axis=2) / np.where(square > 0, square, np.nan)
        growth = radial * np.exp(np.minimum(log_v + log_t, 700.0))[:, None]
        log_delta = chart.ode.log_delta(tokens, scale)
        # what is left before a singularity: G grows as e^{exponent sigma} and dt = dsigma / G
        arg = chart.field(last, every)[1]
        t0 = np.exp(chart.log_t0)
        left = np.exp(last[:, -1] - arg) / exponent
        blow_up = t0 * (np.expm1(last[:, -1]) + left)
        blow_up_error = blow_up * (4.0 * error + 4e-16 * np.maximum(1.0, last[:, -1])) + t0 * left
        fastest = np.take_along_axis(radial, np.nanargmax(np.abs(np.nan_to_num(radial)), axis=1)[:, None], axis=1)[:, 0]
    found = []
    for i in range(len(y0)):
        status, tail = str(outcome[i]), tails[i]
        if status == "singular":
            status = "blew_up" if fastest[i] > 0 else "reached_zero"
        end = (float(blow_up[i]), float(blow_up_error[i])) if outcome[i] == "singular" else (math.nan, math.nan)
        if times is None:
            ys = np.concatenate([y0[i][None], run.steps.end[rows[i]], *([] if tail is None else [tail.y[1:]])])
            log_times = chart.log_time(ys, np.full(len(ys), i))
            with np.errstate(over="ignore"):
                t = np.exp(log_times)
        else:
            t = times.copy()
            with np.errstate(divide="ignore"):
                log_times = np.log(t)
            ys = _at(chart, int(i), y0[i], run.steps, rows[i], tail, log_times, last[i], status)
        x, log_abs = chart.tokens_of(ys, np.full(len(ys), i))
        missing = np.isnan(ys).any(axis=1)
        x[missing] = log_abs[missing] = np.nan
        found.append(
            Trajectory(
                status=status,
                message=_words(status, float(log_t[i]), log_t_end, *end, int(calls[i]), tail)
                + (_held(chart.ode, x[-1], log_delta[i], float(log_t[i])) if status == "budget" else ""),
                t=t,
                log_t=log_times,
                x=x,
                log_abs=log_abs,
                blow_up_time=end[0],
                blow_up_error=end[1],
                error=float(error[i]),
                residual=float(defect[i]),
                calls=int(calls[i]),
                steps=len(rows[i]) + (0 if tail is None else len(tail.sigma) - 1),
                log_delta=log_delta[i],
                growth=growth[i],
                coordinates=f"{chart.name}, scaled clock, {explicit}" + (f", then {tail.solver}" if tail else ""),
            )
        )
    return found


def _at(
    chart: _Chart,
    i: int,
    y0: np.ndarray,
    steps: _clock.Steps,
    rows: np.ndarray,
    tail: _Tail | None,
    log_times: np.ndarray,
    last: np.ndarray,
    status: str,
) -> np.ndarray:
    """States at given times; NaN beyond the end of the flow, the equilibrium beyond an arrival."""
    tau = _tau(log_times, chart.log_t0[i])
    ys = np.full((len(tau), y0.size), np.nan)
    ys[tau <= 0] = y0
    ends = steps.end[rows, -1]
    top = ends[-1] if len(rows) else 0.0
    inside = (tau > 0) & (tau <= top)
    if inside.any():
        step = rows[np.minimum(np.searchsorted(ends, tau[inside]), len(rows) - 1)]
        ys[inside] = _clock.sample(chart.field, steps, step, tau[inside])[0]
    if tail is not None and tail.dense is not None:
        late = (tau > top) & (tau <= tail.y[-1, -1])
        if late.any():
            ys[late] = tail.at(tau[late])
    beyond = tau > last[-1]
    if status == "converged":
        ys[beyond] = last
        ys[beyond, -1] = tau[beyond]
    near = np.isnan(ys).any(axis=1) & (np.abs(tau - last[-1]) <= 1e-12 * max(1.0, abs(last[-1])))
    ys[near] = last
    return ys


def _time_words(log_t: float) -> str:
    return f"t = {math.exp(log_t):.12g}" if log_t < 700 else f"ln t = {log_t:.6g}"


def _held(ode: TokenODE, x: np.ndarray, log_delta: np.ndarray, log_t: float) -> str:
    """The end of the message of a spent budget where a token is held on the null cone; "" elsewhere."""
    near, pull = cone_hold(ode, x, log_delta, log_t)
    with np.errstate(invalid="ignore"):
        held = np.flatnonzero((near < 1e-2) & (pull < -1e3))
    if not held.size:
        return ""
    worst = int(held[np.argmin(pull[held])])
    return (
        f"; token {worst + 1} is held on the null cone (|q|/|x|^2 = {near[worst]:.1e}), to which it returns "
        f"{-pull[worst]:.1e} times faster than ln t passes: the flow along the cone is stiff"
    )


def _words(
    status: str,
    log_t: float,
    log_t_end: float,
    blow_up: float,
    blow_up_error: float,
    calls: int,
    tail: _Tail | None,
) -> str:
    where, asked = _time_words(log_t), _time_words(log_t_end)
    if status == "finished":
        return f"reached {asked}, as asked"
    if status in ("blew_up", "reached_zero"):
        what = "the tokens leave every bound" if status == "blew_up" else "a token reaches the origin"
        return (
            f"{what} at T* = {blow_up:.12g} (+- {blow_up_error:.1g}), before the end that was asked for, {asked}: the "
            "flow does not exist beyond T*"
        )
    if status == "converged":
        return f"an equilibrium from {where} on: nothing moves any more on the scale of ln t"
    if status == "budget":
        return f"{calls} evaluations are used up at {where}, before {asked}: give a larger budget or a larger rtol"
    reason = f" ({tail.solver}: {tail.message})" if tail is not None and tail.message else ""
    return f"the step fell to zero at {where}, before {asked}{reason}"


# ---------------------------------------------------------------------- raw coordinates, to show what they do
def _raw(
    ode: TokenODE, x0: np.ndarray, log_t_end: float, times: np.ndarray | None, solver: str, rtol: float, budget: int
) -> Trajectory:
    """`solve_ivp` in t and x under the call budget."""
    from scipy.integrate import solve_ivp

    shape = x0.shape
    seen: list[tuple[float, np.ndarray]] = []

    def f(t: float, y: np.ndarray) -> np.ndarray:
        seen[:] = [(t, y.copy())]
        return ode.rate(y.reshape(shape)).ravel()

    g, count = _guarded(f, budget)
    end = math.exp(log_t_end)
    t, ys = np.zeros(1), x0.reshape(1, -1)
    try:
        with np.errstate(all="ignore"):
            solution = solve_ivp(
                g, (0.0, end), x0.ravel(), method=solver, rtol=max(rtol, 3e-14), atol=rtol, t_eval=times
            )
        t, ys = solution.t, solution.y.T
        if solution.status < 0:
            status, message = "failed", f"{solver} stopped at t = {t[-1] if t.size else 0.0:.17g}: {solution.message}"
        elif t.size and not np.isfinite(ys).all():
            status, message = "failed", f"{solver} passed through values that are not finite"
        else:
            status, message = "finished", f"{solver} reached t = {end:.12g} in raw coordinates"
    except _BudgetSpent:
        at, state = seen[0]
        t, ys = np.append(t, at), np.concatenate([ys, state[None]])
        status = "budget"
        message = (
            f"{solver} in raw coordinates used {count[0]} evaluations and is at t = {at:.17g} with |x| up to "
            f"{np.abs(state).max():.3g}, before t = {end:.12g}: use method='auto'"
        )
    x = ys.reshape(len(ys), *shape)
    with np.errstate(all="ignore"):
        log_t, log_abs = np.log(t), np.log(np.abs(x))
        finite = x[-1] if len(x) and np.isfinite(x[-1]).all() else x0
        log_delta = ode.log_delta(finite[None])[0]
        rate = ode.rate(finite)
        growth = (finite * rate).sum(axis=1) / (finite**2).sum(axis=1) * (t[-1] if t.size else 0.0)
    nan = math.nan
    return Trajectory(
        status, message, t, log_t, x, log_abs, nan, nan, nan, nan, count[0], max(len(t) - 1, 0), log_delta, growth,
        f"x and t, {solver}",
    )  # fmt: skip


# ---------------------------------------------------------------------- slow divergence
@dataclass(frozen=True, eq=False)
class SlowDivergence:
    """A slowly diverging sequence against its own clock w = abs(S_Delta x_1).

    Attributes:
        w: (time,); log_t: ln t, (time,); ratio: x_l / x_1, (time, L).
        exponent: (time, L) d ln abs(x_l) / d ln ln t by the ODE.
        status, message, calls: as in `Trajectory`.
    """

    w: np.ndarray
    log_t: np.ndarray
    ratio: np.ndarray
    exponent: np.ndarray
    status: str
    message: str
    calls: int


def slow_divergence(
    ode: TokenODE, x0: Any, w_end: float = 1e5, *, points: int = 200, rtol: float = 1e-11, budget: int = 50_000
) -> SlowDivergence:
    """Slow divergence in one dimension far beyond float64's range of t: w = abs(S_Delta x_1) up to 1e5 is t = e^99965.

    All tokens have S_Delta x_l < 0 and M > 0, so that Delta_l ~ e^{-|S_Delta x_l|}: x_1 grows like ln t. Integrated are
    ln t and ln(x_l / x_1) against ln w by a stiff solver (ln t relaxes to its balance within one unit of w), with
    Delta as `log_softplus`.

    Args:
        ode: one-dimensional, without norms, gate or skip, and with M > 0.
        x0: (L, 1), all with S_Delta x_l0 < 0.
        w_end: end of the clock.
        points: reported values of w, evenly spaced in ln w.

    Raises:
        InputError: the flow is not of this kind.
    """
    from scipy.integrate import LSODA

    x, single = _prepare(ode, x0)
    plain = ode.signs_are_invariant(2) and ode.width == 1 and ode.prenorm is None and ode.gate is None
    plain = plain and ode.skip is None and not (ode.norm_B or ode.norm_C or ode.norm_delta)
    if not (plain and single) or isinstance(ode.S_delta, tuple):
        raise InputError("slow_divergence is for one sequence (tokens, 1) of a one-dimensional layer without options")
    s, mu = float(ode.S_delta[0, 0]), float(ode.M[0, 0])
    if mu <= 0 or not (s * x[0] < 0).all():
        raise InputError(
            f"M = {mu:g} and S_Delta x0 up to {(s * x[0]).max():g}: slow divergence needs M > 0 and S_Delta x0 < 0"
        )
    start = abs(s * float(x[0, 0, 0]))
    if points < 2:
        raise InputError(f"points={points}: must be at least 2, the start and the end of the clock")
    if not start < w_end < math.inf:
        raise InputError(f"w_end={w_end}: must be finite and above the clock's start, {start:g}")
    sign = np.sign(x[0])
    chart = _Chart(ode, x.shape[1], True, sign[None], np.zeros(1))
    z0 = np.log(np.abs(x[0, :, 0]))

    def relative(ln_w: float, ratio: np.ndarray) -> tuple[np.ndarray, float]:
        """d ln x_l / d ln x_1, and ln of d ln x_1 / dt."""
        z = ln_w - math.log(abs(s)) + np.concatenate([[0.0], ratio])
        v, _, log_v = chart.speed(np.append(z, 0.0)[None], np.zeros(1, int))
        first = float(v[0, 0, 0])
        return v[0, :, 0] / first, math.log(first) + float(log_v[0])

    # t = 0 at the start: ln t begins at -inf, so that the first stretch is ln(t + t0) with t0 the time scale there
    log_t0 = -relative(math.log(start), z0[1:] - z0[0])[1]

    def f(ln_w: float, y: np.ndarray) -> np.ndarray:
        growth, log_rate = relative(ln_w, y[1:])
        return np.concatenate([[math.exp(min(-log_rate - y[0], 700.0))], growth[1:] - 1.0])

    g, count = _guarded(f, budget)
    y0 = np.concatenate([[log_t0], z0[1:] - z0[0]])
    grid = np.linspace(math.log(start), math.log(w_end), points)
    rows = [y0]
    status, message = "finished", f"reached w = {w_end:g}"
    try:
        stepper = LSODA(g, grid[0], y0, grid[-1], rtol=rtol, atol=rtol)
        k = 1
        while stepper.status == "running":
            said = stepper.step()
            if stepper.status == "failed":
                status, message = "failed", f"LSODA stopped at w = {math.exp(stepper.t):g}: {said}"
                break
            dense = stepper.dense_output()
            while k < points and grid[k] <= stepper.t:
                rows.append(dense(grid[k]))
                k += 1
    except _BudgetSpent:
        status = "budget"
        message = f"{count[0]} evaluations are used up at w = {math.exp(stepper.t):g}: give a larger budget"
    y = np.array(rows)
    grid = grid[: len(y)]
    with np.errstate(divide="ignore", invalid="ignore"):
        log_t = y[:, 0] + np.log(-np.expm1(log_t0 - y[:, 0]))
        found = [relative(w, row[1:]) for w, row in zip(grid, y, strict=True)]
        # d ln x / d ln ln t = (d ln x / d ln x_1) (d ln x_1 / dt) t ln t
        speed = np.array([math.exp(min(rate + lt, 700.0)) * lt for (_, rate), lt in zip(found, log_t, strict=True)])
        exponent = np.array([growth for growth, _ in found]) * speed[:, None]
    ratio = np.exp(np.concatenate([np.zeros((len(y), 1)), y[:, 1:]], axis=1))
    return SlowDivergence(np.exp(grid), log_t, ratio, exponent, status, message, count[0])


# ---------------------------------------------------------------------- discrete depth
@dataclass(frozen=True, eq=False)
class DepthMap:
    """A residual stack x <- x + h y(x), layer by layer.

    Attributes:
        x: (..., layer + 1, L, D), from the first state; NaN after values that are not finite.
        status: "finished", "overflow" (a value is not finite: the numbers end there), or "frozen" (a whole layer
            changed no token by more than rounding, so no later one will if all layers are equal).
        message: in words.
        flips: (..., layer) coordinates whose sign a layer changed: the flow never does so where signs are invariant.
        log_delta: (..., layer, L, E or 1).
    """

    x: np.ndarray
    status: str
    message: str
    flips: np.ndarray
    log_delta: np.ndarray


def depth_map(layers: TokenODE | Sequence[TokenODE], x0: Any, *, h: float = 1.0, steps: int | None = None) -> DepthMap:
    """Discrete depth: one Euler step of size h per layer, with the same layer throughout or one of each.

    Args:
        layers: one layer (weight-tied, `steps` times) or a list of layers.
        x0: (..., L, D).
        h: step; 1 is a residual network.

    Raises:
        InputError: steps missing or given twice, h not positive, layers of different width.

    >>> depth_map(TokenODE.scalar(-1.0, -1.0), [[2.0]], steps=1).flips.tolist()
    [0]
    """
    stack = [layers] * (steps or 0) if isinstance(layers, TokenODE) else list(layers)
    if isinstance(layers, TokenODE) == (steps is None) or not stack:
        raise InputError(f"steps={steps}: give it, at least 1, with one layer, and leave it out with a list of layers")
    if not 0 < h < math.inf:
        raise InputError(f"h={h}: must be positive and finite")
    x = np.array(x0, np.float64)
    if len({layer.width for layer in stack}) > 1:
        raise InputError(f"layers of width {sorted({layer.width for layer in stack})}: must be one width")
    if x.ndim < 2 or x.shape[-1] != stack[0].width or not np.isfinite(x).all():
        raise InputError(f"initial tokens have shape {x.shape}: must be finite and end in (tokens, {stack[0].width})")
    rows, flips, deltas = [x], [], []
    status, message = "finished", f"{len(stack)} layers"
    for k, layer in enumerate(stack):
        with np.errstate(all="ignore"):
            batch = x.reshape(-1, *x.shape[-2:])
            deltas.append(layer.log_delta(batch).reshape(*x.shape[:-1], -1))
            new = x + h * layer.rate(x)
        if not np.isfinite(new).all():
            if status != "overflow":
                status, message = "overflow", f"layer {k} gives values that are not finite"
            new = np.where(np.isfinite(new).all(axis=(-2, -1), keepdims=True), new, np.nan)
        elif status == "finished" and np.array_equal(new, x):
            status, message = "frozen", f"layer {k} changes no token beyond rounding"
        flips.append((np.sign(new) * np.sign(x) < 0).sum(axis=(-2, -1)))
        rows.append(new)
        x = new
    axis = x.ndim - 2
    return DepthMap(np.stack(rows, axis=axis), status, message, np.stack(flips, axis=axis), np.stack(deltas, axis=axis))
