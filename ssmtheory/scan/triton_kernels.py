"""The selective scan on a GPU, in Triton: three kernels forward, three backward.

Time is cut into chunks of CHUNK steps, and all chunks run at once::

    local_states    each chunk from a zero state: its last state, and the sum of its steps (forward; or the adjoint)
    carry_states    the state before every chunk, from chunk to chunk, in float64 (forward; or the adjoint)
    outputs         y of each chunk from the state before it
    gradients       states and adjoint states of each chunk again, and from them every cotangent

so that what is kept is one state per chunk; the host cuts a long sequence into spans, which bounds even that. A program
holds CHUNK steps of BLOCK channels, a thread one channel with all its steps: a scan over the steps then stays in the
registers of a thread, and no step needs the other threads. States are taken one after another: their number is free.

========= ============================================ =========================================
name      symbol                                       where
========= ============================================ =========================================
step      Delta_t = softplus(delta_t + bias)           (CHUNK, BLOCK)
source    Delta_t u_t                                  (CHUNK, BLOCK)
q, s1, s2 exp(Delta_t A) = (1 + q) s1 s2               powers of two s1, s2; (CHUNK, BLOCK)
h, before h_t, h_{t-1}                                 (CHUNK, BLOCK), of one state n
w, after  the adjoint of h_{t-1} and of h_t through time  (CHUNK, BLOCK), of one state n
g         the adjoint of h_t: conj(C_t) dy_t + after   (CHUNK, BLOCK), of one state n
kept      the state before each chunk                  ([re, im,] batch, chunk, state, channel)
========= ============================================ =========================================

Arithmetic: float32 where no input is wider, each state a value and its rounding error; else float64; complex states are
float64 whatever the inputs, because the phase of a slow oscillation needs it. A decay is split so that one near 1 keeps
its digits: a slow system (Delta A = -1e-6) forgets nothing over a million steps.

Strides are those of the tensors, never specialised: a thread per channel is the layout that the compiler chooses when
it knows nothing about them.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["carry_states", "gradients", "local_states", "outputs"]

_LOG2E = tl.constexpr(1.4426950408889634)
# ln 2 in two parts, the first short enough for exact multiples
_LN2_HIGH_32 = tl.constexpr(0.693359375)
_LN2_LOW_32 = tl.constexpr(-2.1219444005469057e-4)
_LN2_HIGH_64 = tl.constexpr(0.6931471803691238)
_LN2_LOW_64 = tl.constexpr(1.9082149292705877e-10)
# 1.5 times 2^23 (2^52): adding it rounds to an integer, which then stands in the last bits
_MAGIC_32 = tl.constexpr(12582912.0)
_MAGIC_BITS_32 = tl.constexpr(0x4B400000)
_MAGIC_64 = tl.constexpr(6755399441055744.0)
_MAGIC_BITS_64 = tl.constexpr(0x4338000000000000)
# exponents beyond which a product of two powers of two is no longer a number, or zero
_LOWEST_32 = tl.constexpr(-174.5)
_HIGHEST_32 = tl.constexpr(175.5)
_LOWEST_64 = tl.constexpr(-1416.0)
_HIGHEST_64 = tl.constexpr(1417.0)
# pi/2 in three parts of 33 bits each
_HALF_PI_1 = tl.constexpr(1.5707963267341256)
_HALF_PI_2 = tl.constexpr(6.077100506303966e-11)
_HALF_PI_3 = tl.constexpr(2.0222662487959506e-21)
_TWO_OVER_PI = tl.constexpr(0.6366197723675814)


# ---------------------------------------------------------------- functions of numbers


@triton.jit
def _like(x, VALUE: tl.constexpr):
    """A constant in the dtype of x. `tl.fma` of Triton up to 3.7 rounds a bare number to float32, compiled too."""
    return tl.full(x.shape, VALUE, x.dtype)


@triton.jit
def _decay(x, WIDE: tl.constexpr):
    """exp(x) as q, s1, s2 with exp(x) = (1 + q) s1 s2, |q| < 0.42: s1 and s2 are powers of two, never 0 or infinite."""
    if WIDE:
        x = tl.maximum(x, _LOWEST_64, propagate_nan=tl.PropagateNan.ALL)
        x = tl.minimum(x, _HIGHEST_64, propagate_nan=tl.PropagateNan.ALL)
        shifted = x * _LOG2E + _MAGIC_64
        k = shifted - _MAGIC_64
        bits = shifted.to(tl.int64, bitcast=True) - _MAGIC_BITS_64
        r = tl.fma(k, _like(x, -_LN2_LOW_64), tl.fma(k, _like(x, -_LN2_HIGH_64), x))
        p = r * 1.1470745597729725e-11 + 1.6059043836821613e-10
        p = p * r + 2.08767569878681e-9
        p = p * r + 2.505210838544172e-8
        p = p * r + 2.755731922398589e-7
        p = p * r + 2.7557319223985893e-6
        p = p * r + 2.48015873015873e-5
        p = p * r + 1.984126984126984e-4
        p = p * r + 1.388888888888889e-3
        p = p * r + 8.333333333333333e-3
        p = p * r + 4.1666666666666664e-2
        p = p * r + 1.6666666666666666e-1
        p = p * r + 0.5
        half = bits >> 1
        s1 = ((half + 1023) << 52).to(tl.float64, bitcast=True)
        s2 = ((bits - half + 1023) << 52).to(tl.float64, bitcast=True)
    else:
        x = tl.maximum(x, _LOWEST_32, propagate_nan=tl.PropagateNan.ALL)
        x = tl.minimum(x, _HIGHEST_32, propagate_nan=tl.PropagateNan.ALL)
        shifted = x * _LOG2E + _MAGIC_32
        k = shifted - _MAGIC_32
        bits = shifted.to(tl.int32, bitcast=True) - _MAGIC_BITS_32
        r = tl.fma(k, _like(x, -_LN2_LOW_32), tl.fma(k, _like(x, -_LN2_HIGH_32), x))
        p = r * 1.984126984126984e-4 + 1.388888888888889e-3
        p = p * r + 8.333333333333333e-3
        p = p * r + 4.1666666666666664e-2
        p = p * r + 1.6666666666666666e-1
        p = p * r + 0.5
        half = bits >> 1
        s1 = ((half + 127) << 23).to(tl.float32, bitcast=True)
        s2 = ((bits - half + 127) << 23).to(tl.float32, bitcast=True)
    return tl.fma(r * r, p, r), s1, s2


@triton.jit
def _exp(x, WIDE: tl.constexpr):
    q, s1, s2 = _decay(x, WIDE)
    return (s1 + s1 * q) * s2


@triton.jit
def _sigmoid(x, WIDE: tl.constexpr):
    e = _exp(-tl.abs(x), WIDE)
    return tl.where(x < 0, e, 1.0) / (1.0 + e)


@triton.jit
def _softplus(x, WIDE: tl.constexpr):
    """max(x, 0) + log(1 + exp(-|x|)), the logarithm by its artanh series: exact to rounding however small it is."""
    e = _exp(-tl.abs(x), WIDE)
    s = e / (2.0 + e)
    v = s * s
    if WIDE:
        p = v * (1 / 35) + (1 / 33)
        p = p * v + (1 / 31)
        p = p * v + (1 / 29)
        p = p * v + (1 / 27)
        p = p * v + (1 / 25)
        p = p * v + (1 / 23)
        p = p * v + (1 / 21)
        p = p * v + (1 / 19)
        p = p * v + (1 / 17)
        p = p * v + (1 / 15)
    else:
        p = v * 0 + (1 / 15)
    p = p * v + (1 / 13)
    p = p * v + (1 / 11)
    p = p * v + (1 / 9)
    p = p * v + (1 / 7)
    p = p * v + (1 / 5)
    p = p * v + (1 / 3)
    return tl.where(x > 0, x, 0.0) + 2 * tl.fma(s * v, p, s)


@triton.jit
def _cos_sin(x):
    """cos(x), sin(x) in float64 for |x| up to about 1e5."""
    shifted = x * _TWO_OVER_PI + _MAGIC_64
    k = shifted - _MAGIC_64
    quadrant = shifted.to(tl.int64, bitcast=True) & 3
    r = tl.fma(k, _like(x, -_HALF_PI_2), tl.fma(k, _like(x, -_HALF_PI_1), x))
    r = tl.fma(k, _like(x, -_HALF_PI_3), r)
    v = r * r
    c = v * 4.779477332387385e-14 - 1.1470745597729725e-11
    c = c * v + 2.08767569878681e-9
    c = c * v - 2.755731922398589e-7
    c = c * v + 2.48015873015873e-5
    c = c * v - 1.388888888888889e-3
    c = c * v + 4.1666666666666664e-2
    c = (c * v - 0.5) * v + 1.0
    s = v * 2.8114572543455206e-15 - 7.647163731819816e-13
    s = s * v + 1.6059043836821613e-10
    s = s * v - 2.505210838544172e-8
    s = s * v + 2.7557319223985893e-6
    s = s * v - 1.984126984126984e-4
    s = s * v + 8.333333333333333e-3
    s = s * v - 1.6666666666666666e-1
    s = tl.fma(s * v, r, r)
    odd = (quadrant & 1) != 0
    cosine, sine = tl.where(odd, s, c), tl.where(odd, c, s)
    cosine = tl.where(((quadrant + 1) & 2) != 0, -cosine, cosine)
    sine = tl.where((quadrant & 2) != 0, -sine, sine)
    return cosine, sine


@triton.jit
def _complex_decay(re, im, WIDE: tl.constexpr):
    """exp(re + i im) as (m_re + i m_im) s, with s a power of two."""
    q, s1, s2 = _decay(re, WIDE)
    size = s1 + s1 * q
    cosine, sine = _cos_sin(im)
    return size * cosine, size * sine, s2


# ---------------------------------------------------------------- scans


@triton.jit
def _advance(q, s1, s2, h, e, x, f):
    """The state (h, its rounding error e), one decay later, plus the input (x, f)."""
    # scaling by powers of two is exact, so that only the changes q h and x round
    h, e = h * s1 * s2, e * s1 * s2
    d = tl.fma(q, h, x) + (tl.fma(q, e, e) + f)
    total = h + d
    part = total - h
    return total, (h - (total - part)) + (d - part)


@triton.jit
def _join(
    q_l, s1_l, s2_l, cut_l, h_l, e_l, inner_l, r_l, p_l, q_r, s1_r, s2_r, cut_r, h_r, e_r, inner_r, r_r, p_r
):  # fmt: skip
    """One run of steps after another.

    Of each run: its decay (1 + q) s1 s2; whether it forgets what was before; its state from zero (h, e); and of the run
    without its last step: whether it forgets, its decay r, and its state from zero p. A single step has inner = 0,
    r = 1 and p = -0.0, with which the compiler finds nothing left to do.
    """
    h, e = _advance(q_r, s1_r, s2_r, h_l, e_l, h_r, e_r)
    forget = cut_r != 0
    h, e = tl.where(forget, h_r, h), tl.where(forget, e_r, e)
    p = tl.where(inner_r != 0, p_r, r_r * h_l + p_r)
    r = r_r * ((s1_l + s1_l * q_l) * s2_l)
    q = tl.fma(q_l, q_r, q_l) + q_r
    return q, s1_l * s1_r, s2_l * s2_r, cut_l | cut_r, h, e, cut_l | inner_r, r, p


@triton.jit
def _join_complex(
    mr_l, mi_l, s_l, cut_l, hr_l, hi_l, inner_l, rr_l, ri_l, pr_l, pi_l,
    mr_r, mi_r, s_r, cut_r, hr_r, hi_r, inner_r, rr_r, ri_r, pr_r, pi_r,
):  # fmt: skip
    """As `_join`, with complex states; m is the decay up to the power of two s."""
    forget, within = cut_r != 0, inner_r != 0
    hr = tl.where(forget, hr_r, hr_r + (mr_r * hr_l - mi_r * hi_l) * s_r)
    hi = tl.where(forget, hi_r, hi_r + (mr_r * hi_l + mi_r * hr_l) * s_r)
    pr = tl.where(within, pr_r, (rr_r * hr_l - ri_r * hi_l) + pr_r)
    pi = tl.where(within, pi_r, (rr_r * hi_l + ri_r * hr_l) + pi_r)
    rr = (rr_r * mr_l - ri_r * mi_l) * s_l
    ri = (rr_r * mi_l + ri_r * mr_l) * s_l
    mr, mi = mr_r * mr_l - mi_r * mi_l, mr_r * mi_l + mi_r * mr_l
    return mr, mi, s_l * s_r, cut_l | cut_r, hr, hi, cut_l | inner_r, rr, ri, pr, pi


@triton.jit
def _scan(q, s1, s2, cut, x, start, first, REVERSE: tl.constexpr):
    """States of all steps, and the state before each, of a run whose `first` row follows the state `start`."""
    begin, rounding = _advance(q, s1, s2, start, tl.zeros_like(x), x, tl.zeros_like(x))
    follows = first & (cut == 0)
    h = tl.where(follows, begin, x)
    e = tl.where(follows, rounding, -0.0)
    p = tl.where(first, start, -0.0)
    none = tl.zeros_like(cut)
    _, _, _, _, h, _, _, _, before = tl.associative_scan(
        (q, s1, s2, cut, h, e, none, tl.full(x.shape, 1.0, x.dtype), p), 0, _join, reverse=REVERSE
    )
    return h, before


@triton.jit
def _scan_complex(mr, mi, s, cut, xr, xi, startr, starti, first, REVERSE: tl.constexpr):
    """As `_scan`, with complex states."""
    follows = first & (cut == 0)
    hr = tl.where(follows, xr + (mr * startr - mi * starti) * s, xr)
    hi = tl.where(follows, xi + (mr * starti + mi * startr) * s, xi)
    pr, pi = tl.where(first, startr, -0.0), tl.where(first, starti, -0.0)
    none, zero, one = tl.zeros_like(cut), tl.zeros_like(xr), tl.full(xr.shape, 1.0, xr.dtype)
    _, _, _, _, hr, hi, _, _, _, pr, pi = tl.associative_scan(
        (mr, mi, s, cut, hr, hi, none, one, zero, pr, pi), 0, _join_complex, reverse=REVERSE
    )
    return hr, hi, pr, pi


# ---------------------------------------------------------------- what all programs begin with


@triton.jit
def _place(length, channels, groups, chunks, CHUNK: tl.constexpr, BLOCK: tl.constexpr,
           VARYING: tl.constexpr, REVERSE: tl.constexpr):  # fmt: skip
    """Which steps and channels a program has: its chunk, batch, group, block of the group; tokens, channels, masks."""
    program = tl.program_id(0).to(tl.int64)
    chunk, rest = program % chunks, program // chunks
    # where every channel has its own B and C, blocks of channels need not respect groups
    sections = 1 if VARYING else groups
    width = channels // sections
    blocks = (width + BLOCK - 1) // BLOCK
    block, rest = rest % blocks, rest // blocks
    group, batch = rest % sections, rest // sections
    t = chunk * CHUNK + tl.arange(0, CHUNK)
    lane = block * BLOCK + tl.arange(0, BLOCK)
    token = length - 1 - t if REVERSE else t
    return chunk, batch, group, block, token, t < length, group * width + lane, lane < width


@triton.jit
def _steps(delta, bias, batch, token, channel, mask, fits, delta_b, delta_t, delta_c, repeat,
           HAS_BIAS: tl.constexpr, SOFTPLUS: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    """Delta_t, and the slope of softplus there; 0 beyond the end, which makes such a step do nothing."""
    number = tl.float64 if WIDE else tl.float32
    at = delta + batch * delta_b + token[:, None] * delta_t + (channel // repeat)[None, :] * delta_c
    raw = tl.load(at, mask, 0.0).to(number)
    if HAS_BIAS:
        raw += tl.load(bias + channel // repeat, fits, 0.0).to(number)[None, :]
    if SOFTPLUS:
        return tl.where(mask, _softplus(raw, WIDE), 0.0), _sigmoid(raw, WIDE)
    return tl.where(mask, raw, 0.0), tl.full(raw.shape, 1.0, number)


@triton.jit
def _resets(reset, batch, token, mask, reset_b, reset_t, HAS_RESET: tl.constexpr):
    """1 where the state is zeroed before a step, for all channels of the block."""
    if HAS_RESET:
        flags = tl.load(reset + batch * reset_b + token[:, None] * reset_t + tl.zeros_like(mask).to(tl.int64), mask, 0)
        return (flags != 0).to(tl.int32)
    return tl.zeros(mask.shape, tl.int32)


@triton.jit
def _row(at, n, stride_n, inside, mask, WIDE: tl.constexpr, COMPLEX: tl.constexpr, VARYING: tl.constexpr):
    """State n of B or C: real and imaginary part, (CHUNK, 1), or (CHUNK, BLOCK) where it varies with the channel."""
    number = tl.float64 if WIDE else tl.float32
    if VARYING:
        keep = mask
    else:
        keep = inside[:, None]
    re = tl.load(at + n * stride_n, keep, 0.0).to(number)
    if COMPLEX:
        im = tl.load(at + n * stride_n + 1, keep, 0.0).to(number)
    else:
        im = tl.zeros_like(re)
    return re, im


@triton.jit
def _rows_at(x, batch, token, group, channel, x_b, x_t, x_g, VARYING: tl.constexpr):
    at = x + batch * x_b + token[:, None] * x_t
    if VARYING:
        at += channel[None, :] * x_g
    else:
        at += group * x_g
    return at


# ---------------------------------------------------------------- kernels


@triton.jit
def local_states(
    u, delta, bias, A, S, z, reset, dy, kept, sums,
    batches: tl.int64, length: tl.int64, channels: tl.int64, groups: tl.int64, states: tl.int64, chunks: tl.int64,
    repeat: tl.int64,
    u_b: tl.int64, u_t: tl.int64, u_c: tl.int64, delta_b: tl.int64, delta_t: tl.int64, delta_c: tl.int64,
    s_b: tl.int64, s_t: tl.int64, s_g: tl.int64, s_n: tl.int64, z_b: tl.int64, z_t: tl.int64, z_c: tl.int64,
    reset_b: tl.int64, reset_t: tl.int64, dy_b: tl.int64, dy_t: tl.int64, dy_c: tl.int64,
    CHUNK: tl.constexpr, BLOCK: tl.constexpr, WIDE: tl.constexpr, COMPLEX: tl.constexpr, S_COMPLEX: tl.constexpr,
    VARYING: tl.constexpr, ONE_RATE: tl.constexpr, REVERSE: tl.constexpr, SOFTPLUS: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_Z: tl.constexpr, HAS_RESET: tl.constexpr, SCALE: tl.constexpr, ADJOINT: tl.constexpr,
):  # fmt: skip
    """The state of each chunk after its last step, from zero before its first; S is B.

    With ADJOINT the adjoint of the state before its first step, from zero after its last; S is C, and what goes in is
    conj(C) dy. `sums` receives the sum of the steps of each chunk.
    """
    number = tl.float64 if WIDE else tl.float32
    chunk, batch, group, _, token, inside, channel, fits = _place(
        length, channels, groups, chunks, CHUNK, BLOCK, VARYING, REVERSE
    )
    mask = inside[:, None] & fits[None, :]
    step, _ = _steps(
        delta, bias, batch, token, channel, mask, fits, delta_b, delta_t, delta_c, repeat, HAS_BIAS, SOFTPLUS, WIDE
    )
    cut = _resets(reset, batch, token, mask, reset_b, reset_t, HAS_RESET)
    if ADJOINT:
        source = tl.load(dy + batch * dy_b + token[:, None] * dy_t + channel[None, :] * dy_c, mask, 0.0).to(number)
        source *= SCALE
        if HAS_Z:
            gate = tl.load(z + batch * z_b + token[:, None] * z_t + channel[None, :] * z_c, mask, 0.0).to(number)
            source *= gate * _sigmoid(gate, WIDE)
    else:
        source = tl.load(u + batch * u_b + token[:, None] * u_t + channel[None, :] * u_c, mask, 0.0).to(number)
        source *= step
    tl.store(sums + (batch * chunks + chunk) * channels + channel, tl.sum(step.to(tl.float64), 0), fits)
    row = tl.arange(0, CHUNK)[:, None]
    first = tl.broadcast_to(row == (CHUNK - 1 if ADJOINT else 0), mask.shape)
    last = tl.broadcast_to(row == (0 if ADJOINT else CHUNK - 1), mask.shape)
    at = _rows_at(S, batch, token, group, channel, s_b, s_t, s_g, VARYING)
    plane = batches * chunks * states * channels
    store = kept + (batch * chunks + chunk) * states * channels + channel
    rates = (1 if ONE_RATE else states) * channels
    zero = tl.zeros(mask.shape, number)
    for n in range(states):
        k = n * 0 if ONE_RATE else n
        rate = tl.load(A + k * channels + channel, fits, 0.0)[None, :]
        re, im = _row(at, n, s_n, inside, mask, WIDE, S_COMPLEX, VARYING)
        if COMPLEX:
            rate_im = tl.load(A + rates + k * channels + channel, fits, 0.0)[None, :]
            if ADJOINT:
                # everything runs on conjugates
                rate_im, im = -rate_im, -im
            mr, mi, s = _complex_decay(step * rate, step * rate_im, WIDE)
            xr, xi = source * re, source * im
            if ADJOINT:
                xr, xi = (mr * xr - mi * xi) * s, (mr * xi + mi * xr) * s
                xr, xi = tl.where(cut != 0, 0.0, xr), tl.where(cut != 0, 0.0, xi)
            hr, hi, _, _ = _scan_complex(mr, mi, s, cut, xr, xi, zero, zero, first, ADJOINT)
            tl.store(store + n * channels, tl.sum(tl.where(last, hr, 0.0), 0), fits)
            tl.store(store + plane + n * channels, tl.sum(tl.where(last, hi, 0.0), 0), fits)
        else:
            q, s1, s2 = _decay(step * rate, WIDE)
            x = source * re
            if ADJOINT:
                x = x * s1 * s2
                x = tl.where(cut != 0, 0.0, tl.fma(q, x, x))
            h, _ = _scan(q, s1, s2, cut, x, zero, first, ADJOINT)
            tl.store(store + n * channels, tl.sum(tl.where(last, h, 0.0), 0), fits)


@triton.jit
def carry_states(
    kept, sums, cuts, A, start, end,
    batches: tl.int64, channels: tl.int64, states: tl.int64, chunks: tl.int64,
    start_b: tl.int64, start_c: tl.int64, start_n: tl.int64,
    CHUNK: tl.constexpr, BLOCK: tl.constexpr, COMPLEX: tl.constexpr, START_COMPLEX: tl.constexpr,
    ONE_RATE: tl.constexpr, HAS_START: tl.constexpr, HAS_RESET: tl.constexpr, ADJOINT: tl.constexpr,
):  # fmt: skip
    """From chunk to chunk, in float64: `kept` holds what each chunk adds and receives the state before it.

    With ADJOINT backwards, on conjugate decays: `kept` then receives the adjoint after each chunk. A is float64; the
    state after the last chunk goes to `end`, float64 (batch, [re, im,] state, channel).
    """
    width = states * channels
    blocks = (width + BLOCK - 1) // BLOCK
    program = tl.program_id(0).to(tl.int64)
    batch = program // blocks
    place = program % blocks * BLOCK + tl.arange(0, BLOCK)
    fits = place < width
    n, channel = place // channels, place % channels
    k = channel if ONE_RATE else place
    rates = (1 if ONE_RATE else states) * channels
    plane = batches * chunks * width
    rate = tl.load(A + k, fits, 0.0)[None, :]
    if COMPLEX:
        rate_im = tl.load(A + rates + k, fits, 0.0)[None, :]
        if ADJOINT:
            rate_im = -rate_im
    h = tl.zeros((BLOCK,), tl.float64)
    h_im = tl.zeros((BLOCK,), tl.float64)
    if HAS_START:
        begins = start + batch * start_b + channel * start_c + n * start_n
        h = tl.load(begins, fits, 0.0).to(tl.float64)
        if START_COMPLEX:
            h_im = tl.load(begins + 1, fits, 0.0).to(tl.float64)
    row = tl.arange(0, CHUNK)[:, None]
    first = tl.broadcast_to(row == 0, (CHUNK, BLOCK))
    last = tl.broadcast_to(row == CHUNK - 1, (CHUNK, BLOCK))
    for begin in range(0, chunks, CHUNK):
        order = begin + tl.arange(0, CHUNK)
        inside = order < chunks
        chunk = order
        if ADJOINT:
            chunk = chunks - 1 - order
        mask = inside[:, None] & fits[None, :]
        at = batch * chunks + chunk
        step = tl.load(sums + at[:, None] * channels + channel[None, :], mask, 0.0)
        if HAS_RESET:
            cut = tl.load(cuts + at[:, None] + tl.zeros_like(mask).to(tl.int64), mask, 0)
            cut = (cut != 0).to(tl.int32)
        else:
            cut = tl.zeros(mask.shape, tl.int32)
        here = kept + at[:, None] * width + place[None, :]
        x = tl.load(here, mask, 0.0).to(tl.float64)
        if COMPLEX:
            x_im = tl.load(here + plane, mask, 0.0).to(tl.float64)
            mr, mi, s = _complex_decay(step * rate, step * rate_im, True)
            all_re, all_im, re, im = _scan_complex(
                mr, mi, s, cut, x, x_im, h[None, :] + tl.zeros_like(x), h_im[None, :] + tl.zeros_like(x), first, False
            )
            h, h_im = tl.sum(tl.where(last, all_re, 0.0), 0), tl.sum(tl.where(last, all_im, 0.0), 0)
            tl.store(here, re, mask)
            tl.store(here + plane, im, mask)
        else:
            q, s1, s2 = _decay(step * rate, True)
            all_re, re = _scan(q, s1, s2, cut, x, h[None, :] + tl.zeros_like(x), first, False)
            h = tl.sum(tl.where(last, all_re, 0.0), 0)
            tl.store(here, re, mask)
    if COMPLEX:
        tl.store(end + batch * 2 * width + place, h, fits)
        tl.store(end + (batch * 2 + 1) * width + place, h_im, fits)
    else:
        tl.store(end + batch * width + place, h, fits)


@triton.jit
def outputs(
    u, delta, bias, A, B, C, D, z, reset, kept, y, every,
    batches: tl.int64, length: tl.int64, channels: tl.int64, groups: tl.int64, states: tl.int64, chunks: tl.int64,
    repeat: tl.int64, skips: tl.int64,
    u_b: tl.int64, u_t: tl.int64, u_c: tl.int64, delta_b: tl.int64, delta_t: tl.int64, delta_c: tl.int64,
    B_b: tl.int64, B_t: tl.int64, B_g: tl.int64, B_n: tl.int64, C_b: tl.int64, C_t: tl.int64, C_g: tl.int64,
    C_n: tl.int64, z_b: tl.int64, z_t: tl.int64, z_c: tl.int64, reset_b: tl.int64, reset_t: tl.int64,
    y_b: tl.int64, y_t: tl.int64, y_c: tl.int64,
    CHUNK: tl.constexpr, BLOCK: tl.constexpr, WIDE: tl.constexpr, COMPLEX: tl.constexpr, B_COMPLEX: tl.constexpr,
    C_COMPLEX: tl.constexpr, VARYING: tl.constexpr, ONE_RATE: tl.constexpr, REVERSE: tl.constexpr,
    SOFTPLUS: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_D: tl.constexpr, HAS_Z: tl.constexpr,
    HAS_RESET: tl.constexpr, SCALE: tl.constexpr, EVERY: tl.constexpr,
):  # fmt: skip
    """y of each chunk from the state before it.

    With EVERY instead all states, to `every` ([re, im,] batch, length, state, channel).
    """
    number = tl.float64 if WIDE else tl.float32
    chunk, batch, group, _, token, inside, channel, fits = _place(
        length, channels, groups, chunks, CHUNK, BLOCK, VARYING, REVERSE
    )
    mask = inside[:, None] & fits[None, :]
    step, _ = _steps(
        delta, bias, batch, token, channel, mask, fits, delta_b, delta_t, delta_c, repeat, HAS_BIAS, SOFTPLUS, WIDE
    )
    cut = _resets(reset, batch, token, mask, reset_b, reset_t, HAS_RESET)
    x = tl.load(u + batch * u_b + token[:, None] * u_t + channel[None, :] * u_c, mask, 0.0).to(number)
    source = step * x
    first = tl.broadcast_to(tl.arange(0, CHUNK)[:, None] == 0, mask.shape)
    B_at = _rows_at(B, batch, token, group, channel, B_b, B_t, B_g, VARYING)
    C_at = _rows_at(C, batch, token, group, channel, C_b, C_t, C_g, VARYING)
    plane = batches * chunks * states * channels
    load = kept + (batch * chunks + chunk) * states * channels + channel
    rates = (1 if ONE_RATE else states) * channels
    zero = tl.zeros(mask.shape, number)
    total = zero
    for n in range(states):
        k = n * 0 if ONE_RATE else n
        rate = tl.load(A + k * channels + channel, fits, 0.0)[None, :]
        start = tl.load(load + n * channels, fits, 0.0).to(number)[None, :] + zero
        B_re, B_im = _row(B_at, n, B_n, inside, mask, WIDE, B_COMPLEX, VARYING)
        C_re, C_im = _row(C_at, n, C_n, inside, mask, WIDE, C_COMPLEX, VARYING)
        if COMPLEX:
            rate_im = tl.load(A + rates + k * channels + channel, fits, 0.0)[None, :]
            start_im = tl.load(load + plane + n * channels, fits, 0.0).to(number)[None, :] + zero
            mr, mi, s = _complex_decay(step * rate, step * rate_im, WIDE)
            h, h_im, _, _ = _scan_complex(mr, mi, s, cut, source * B_re, source * B_im, start, start_im, first, False)
            total += C_re * h - C_im * h_im
        else:
            q, s1, s2 = _decay(step * rate, WIDE)
            h, _ = _scan(q, s1, s2, cut, source * B_re, start, first, False)
            total += C_re * h
        if EVERY:
            at = every + ((batch * length + token[:, None]) * states + n) * channels + channel[None, :]
            tl.store(at, h, mask)
            if COMPLEX:
                tl.store(at + batches * length * states * channels, h_im, mask)
    if not EVERY:
        total *= SCALE
        if HAS_D:
            skip = tl.load(D + channel // (channels // skips), fits, 0.0).to(number)[None, :]
            total = tl.fma(skip, x, total)
        if HAS_Z:
            gate = tl.load(z + batch * z_b + token[:, None] * z_t + channel[None, :] * z_c, mask, 0.0).to(number)
            total *= gate * _sigmoid(gate, WIDE)
        tl.store(y + batch * y_b + token[:, None] * y_t + channel[None, :] * y_c, total, mask)


@triton.jit
def gradients(
    u, delta, bias, A, B, C, D, z, reset, dy, kept, adjoint, du, ddelta, dB, dC, dz, dD, dbias,
    batches: tl.int64, length: tl.int64, channels: tl.int64, groups: tl.int64, states: tl.int64, chunks: tl.int64,
    repeat: tl.int64, skips: tl.int64, result_b: tl.int64,
    u_b: tl.int64, u_t: tl.int64, u_c: tl.int64, delta_b: tl.int64, delta_t: tl.int64, delta_c: tl.int64,
    B_b: tl.int64, B_t: tl.int64, B_g: tl.int64, B_n: tl.int64, C_b: tl.int64, C_t: tl.int64, C_g: tl.int64,
    C_n: tl.int64, z_b: tl.int64, z_t: tl.int64, z_c: tl.int64, reset_b: tl.int64, reset_t: tl.int64,
    dy_b: tl.int64, dy_t: tl.int64, dy_c: tl.int64,
    CHUNK: tl.constexpr, BLOCK: tl.constexpr, WIDE: tl.constexpr, COMPLEX: tl.constexpr, B_COMPLEX: tl.constexpr,
    C_COMPLEX: tl.constexpr, VARYING: tl.constexpr, ONE_RATE: tl.constexpr, REVERSE: tl.constexpr,
    SOFTPLUS: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_D: tl.constexpr, HAS_Z: tl.constexpr,
    HAS_RESET: tl.constexpr, SCALE: tl.constexpr,
):  # fmt: skip
    """Every cotangent of a chunk, from the state before it and the adjoint after it.

    du, ddelta, dz: (batch, length, channel), sequences `result_b` numbers apart. dB, dC: ([re, im,] block of the group,
    batch, group, state, length), or ([re, im,] batch, state, length, channel) where they vary with the channel.
    `adjoint` receives in its place what the chunk adds to dA; dD and dbias (batch, chunk, channel) likewise.
    """
    number = tl.float64 if WIDE else tl.float32
    chunk, batch, group, block, token, inside, channel, fits = _place(
        length, channels, groups, chunks, CHUNK, BLOCK, VARYING, REVERSE
    )
    mask = inside[:, None] & fits[None, :]
    step, slope = _steps(
        delta, bias, batch, token, channel, mask, fits, delta_b, delta_t, delta_c, repeat, HAS_BIAS, SOFTPLUS, WIDE
    )
    cut = _resets(reset, batch, token, mask, reset_b, reset_t, HAS_RESET)
    x = tl.load(u + batch * u_b + token[:, None] * u_t + channel[None, :] * u_c, mask, 0.0).to(number)
    asked = tl.load(dy + batch * dy_b + token[:, None] * dy_t + channel[None, :] * dy_c, mask, 0.0).to(number)
    if HAS_Z:
        gate = tl.load(z + batch * z_b + token[:, None] * z_t + channel[None, :] * z_c, mask, 0.0).to(number)
        open_ = _sigmoid(gate, WIDE)
        cotangent = asked * gate * open_
    else:
        cotangent = asked
    source = step * x
    weight = cotangent * SCALE
    row = tl.arange(0, CHUNK)[:, None]
    first = tl.broadcast_to(row == 0, mask.shape)
    last = tl.broadcast_to(row == CHUNK - 1, mask.shape)
    B_at = _rows_at(B, batch, token, group, channel, B_b, B_t, B_g, VARYING)
    C_at = _rows_at(C, batch, token, group, channel, C_b, C_t, C_g, VARYING)
    plane = batches * chunks * states * channels
    here = (batch * chunks + chunk) * states * channels + channel
    rates = (1 if ONE_RATE else states) * channels
    zero = tl.zeros(mask.shape, number)
    total, dsource, dstep = zero, zero, zero
    for n in range(states):
        k = n * 0 if ONE_RATE else n
        rate = tl.load(A + k * channels + channel, fits, 0.0)[None, :]
        start = tl.load(kept + here + n * channels, fits, 0.0).to(number)[None, :] + zero
        end = tl.load(adjoint + here + n * channels, fits, 0.0).to(number)[None, :] + zero
        B_re, B_im = _row(B_at, n, B_n, inside, mask, WIDE, B_COMPLEX, VARYING)
        C_re, C_im = _row(C_at, n, C_n, inside, mask, WIDE, C_COMPLEX, VARYING)
        if COMPLEX:
            rate_im = tl.load(A + rates + k * channels + channel, fits, 0.0)[None, :]
            start_im = tl.load(kept + plane + here + n * channels, fits, 0.0).to(number)[None, :] + zero
            end_im = tl.load(adjoint + plane + here + n * channels, fits, 0.0).to(number)[None, :] + zero
            mr, mi, s = _complex_decay(step * rate, step * rate_im, WIDE)
            h, h_im, p, p_im = _scan_complex(
                mr, mi, s, cut, source * B_re, source * B_im, start, start_im, first, False
            )
            old, old_im = (mr * p - mi * p_im) * s, (mr * p_im + mi * p) * s
            old, old_im = tl.where(cut != 0, 0.0, old), tl.where(cut != 0, 0.0, old_im)
            total += C_re * h - C_im * h_im
            c, c_im = C_re * weight, -C_im * weight
            w, w_im = (mr * c + mi * c_im) * s, (mr * c_im - mi * c) * s
            w, w_im = tl.where(cut != 0, 0.0, w), tl.where(cut != 0, 0.0, w_im)
            _, _, after, after_im = _scan_complex(mr, -mi, s, cut, w, w_im, end, end_im, last, True)
            g, g_im = c + after, c_im + after_im
            dsource += B_re * g + B_im * g_im
            # g conj(a h_{t-1})
            f, f_im = g * old + g_im * old_im, g_im * old - g * old_im
            dstep += rate * f + rate_im * f_im
            tl.store(adjoint + here + n * channels, tl.sum(f * step, 0), fits)
            tl.store(adjoint + plane + here + n * channels, tl.sum(f_im * step, 0), fits)
        else:
            q, s1, s2 = _decay(step * rate, WIDE)
            h, p = _scan(q, s1, s2, cut, source * B_re, start, first, False)
            old = p * s1 * s2
            old = tl.where(cut != 0, 0.0, tl.fma(q, old, old))
            total += C_re * h
            c = C_re * weight
            w = c * s1 * s2
            w = tl.where(cut != 0, 0.0, tl.fma(q, w, w))
            _, after = _scan(q, s1, s2, cut, w, end, last, True)
            g = c + after
            dsource += B_re * g
            f = g * old
            dstep += rate * f
            tl.store(adjoint + here + n * channels, tl.sum(f * step, 0), fits)
        if VARYING:
            at = ((batch * states + n) * length + token[:, None]) * channels + channel[None, :]
            size = batches * states * length * channels
            tl.store(dB + at, g * source, mask)
            tl.store(dC + at, weight * h, mask)
            if B_COMPLEX:
                tl.store(dB + size + at, g_im * source, mask)
            if C_COMPLEX:
                tl.store(dC + size + at, -weight * h_im, mask)
        else:
            at = (((block * batches + batch) * groups + group) * states + n) * length + token
            size = ((channels // groups + BLOCK - 1) // BLOCK) * batches * groups * states * length
            tl.store(dB + at, tl.sum(tl.where(mask, g * source, 0.0), 1), inside)
            tl.store(dC + at, tl.sum(tl.where(mask, weight * h, 0.0), 1), inside)
            if B_COMPLEX:
                tl.store(dB + size + at, tl.sum(tl.where(mask, g_im * source, 0.0), 1), inside)
            if C_COMPLEX:
                tl.store(dC + size + at, tl.sum(tl.where(mask, -weight * h_im, 0.0), 1), inside)
    place = batch * result_b + token[:, None] * channels + channel[None, :]
    in_chunks = (batch * chunks + chunk) * channels + channel
    dx = dsource * step
    if HAS_D:
        skip = tl.load(D + channel // (channels // skips), fits, 0.0).to(number)[None, :]
        dx = tl.fma(skip, cotangent, dx)
        tl.store(dD + in_chunks, tl.sum(cotangent * x, 0), fits)
    tl.store(du + place, dx, mask)
    dstep = tl.fma(dsource, x, dstep)
    if SOFTPLUS:
        dstep *= slope
    tl.store(ddelta + place, dstep, mask)
    if HAS_BIAS:
        tl.store(dbias + in_chunks, tl.sum(tl.where(mask, dstep, 0.0), 0), fits)
    if HAS_Z:
        value = total * SCALE
        if HAS_D:
            value = tl.fma(skip, x, value)
        # silu'(z) = s (1 + z (1 - s)), s the sigmoid
        tl.store(dz + place, asked * value * (open_ * (1.0 + gate * (1.0 - open_))), mask)
