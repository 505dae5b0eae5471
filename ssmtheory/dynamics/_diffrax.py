"""The scaled clock of `_clock`, compiled: one diffrax solve per member, vectorised over the batch.

What diffrax says about a member is checked (`throw=False`; its result, whether an event fired, finite values), never
assumed: without that, "max_steps reached" passes for a solution. Only final states come back: steps saved beside
an event are padded with infinities. A member that overshoots the end is brought back by one step of `_clock`.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmtheory.dynamics import _clock
from ssmtheory.errors import require

if TYPE_CHECKING:
    from ssmtheory.dynamics.token_ode import TokenODE

__all__ = ["solve"]

#: Dopri8 has 14 stages, one of them shared with the next step
_STAGES = 13


def solve(
    ode: TokenODE,
    field: _clock.Field,
    logs: bool,
    sign: np.ndarray,
    y0: np.ndarray,
    log_t0: np.ndarray,
    tau_end: np.ndarray,
    rtol: float,
    budget: int,
) -> _clock.Run:
    """Integrate every member on the clock until tau_end, a singularity or an equilibrium.

    Args:
        ode: the layer; logs, sign, log_t0: how y stands for tokens, as in `token_ode`.
        field: the same field in NumPy, for landing on tau_end.
        y0: (member, n); tau_end: (member,).

    Returns:
        As `_clock.advance`, with one step per member, from its start to its end.

    Raises:
        MissingDependencyError: without diffrax.
    """
    jax = require("jax", "ode", "backend='diffrax'")
    require("diffrax", "ode", "backend='diffrax'")
    with jax.enable_x64(True):
        run = _compiled(ode, logs, sign.shape[1:], float(rtol), max(budget // _STAGES, 1))
        columns = run(*(jax.numpy.asarray(a) for a in (sign, y0, log_t0, tau_end)))
        found = {name: np.array(value) for name, value in columns.items()}
    y, arg, exponent = found["y"], found["arg"], found["exponent"]
    members = np.arange(len(y))
    outcome = np.full(len(y), "budget", dtype="<U9")
    outcome[found["event"] & (arg > _clock.SINGULAR)] = "singular"
    outcome[found["event"] & (arg < _clock.arrived(rtol))] = "converged"
    outcome[found["event"] & (y[:, -1] >= tau_end)] = "finished"
    outcome[~np.isfinite(y).all(axis=1) | np.isnan(arg)] = "failed"
    calls = found["steps"].astype(np.int64) * _STAGES
    over = members[outcome == "finished"]
    if over.size:
        y[over], used = _clock.back_to(field, y[over], over, tau_end[over])
        arg[over] = field(y[over], over)[1]
        calls[over] += used
    steps = _clock.Steps(members, y0.copy(), np.full(len(y), np.nan), y.copy(), arg)
    return _clock.Run(outcome, y, arg, exponent, rtol * np.sqrt(found["steps"]), calls, steps)


@functools.lru_cache(maxsize=16)
def _compiled(ode: TokenODE, logs: bool, shape: tuple[int, int], rtol: float, max_steps: int) -> Any:
    """The compiled batch solver of one layer (compared by identity) and one shape of tokens."""
    import diffrax
    import jax
    import jax.numpy as jnp

    def speed(y: Any, sign: Any) -> tuple[Any, Any, Any]:
        z = y[:-1].reshape(1, *shape)
        if logs:
            scale = jnp.max(jnp.where(sign != 0, z, -jnp.inf))
            scale = jnp.where(jnp.isfinite(scale), scale, 0.0)
            x = sign[None] * jnp.exp(z - scale)
            F, log_F = ode.scaled_rate(x, scale[None])
            v = jnp.where(x != 0, F / jnp.where(x != 0, x, 1.0), 0.0)
            return v, jnp.sqrt((v * v).sum()), log_F[0] - scale
        size = jnp.max(jnp.abs(z))
        scale = jnp.where(size > 0, jnp.log(jnp.where(size > 0, size, 1.0)), 0.0)
        x = z * jnp.exp(-scale)
        F, log_F = ode.scaled_rate(x, scale[None])
        rows = jnp.sqrt((x * x).sum(axis=2))
        by_token = jnp.where(rows > 0, jnp.sqrt((F * F).sum(axis=2)) / jnp.where(rows > 0, rows, 1.0), 0.0)
        return F * jnp.exp(scale), jnp.sqrt((by_token**2).sum()), log_F[0] - scale

    def field(sigma: Any, y: Any, args: Any) -> Any:
        sign, log_t0, _ = args
        v, G, log_v = speed(y, sign)
        arg = y[-1] + log_t0 + jnp.log(G) + log_v
        dz = v.reshape(-1) * (jax.nn.sigmoid(arg) / jnp.where(G > 0, G, 1.0))
        return jnp.concatenate([dz, jax.nn.sigmoid(-arg)[None]])

    def arg_of(y: Any, args: Any) -> Any:
        _, G, log_v = speed(y, args[0])
        return y[-1] + args[1] + jnp.log(G) + log_v

    def slope(y: Any, args: Any) -> tuple[Any, Any]:
        """arg, and d ln G / d sigma along the flow, by a forward derivative."""
        direction = field(0.0, y, args)
        value, along = jax.jvp(lambda state: arg_of(state, args), (y,), (direction,))
        return value, along - direction[-1]

    def done(t: Any, y: Any, args: Any, **_: Any) -> Any:
        arg, exponent = slope(y, args)
        there = (arg < _clock.arrived(rtol)) & (exponent < -1.5 * field(0.0, y, args)[-1])
        return (arg > _clock.SINGULAR) & (exponent > 0.05) | there | (y[-1] >= args[2])

    def one(sign: Any, y0: Any, log_t0: Any, tau_end: Any) -> Any:
        args = (sign, log_t0, tau_end)
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            diffrax.Dopri8(),
            t0=0.0,
            t1=1e9,
            dt0=0.05,
            y0=y0,
            args=args,
            stepsize_controller=diffrax.PIDController(rtol=rtol, atol=rtol, dtmax=4.0),
            event=diffrax.Event(done),
            max_steps=max_steps,
            throw=False,
            saveat=diffrax.SaveAt(t1=True),
        )
        y = solution.ys[0]
        arg, exponent = slope(y, args)
        return {
            "y": y,
            "arg": arg,
            "exponent": exponent,
            "event": solution.result == diffrax.RESULTS.event_occurred,
            "steps": solution.stats["num_steps"],
        }

    return jax.jit(jax.vmap(one))
