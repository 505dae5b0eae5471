/* Selective scan on the CPU: forward, and backward by recomputation from checkpoints.
 *
 *   h[t] = exp(delta[t] A) h[t-1] + delta[t] u[t] B[t]        y[t] = sum_n C[t,n] h[t,n]
 *
 * Channels are the vector lanes, so that no step needs a horizontal sum: B[t,n] and C[t,n] are broadcasts.
 * Time is cut into segments of SEG steps and all channels of a segment are visited before the next one, so that
 * rows of (length, channel) arrays are read whole. The forward pass can keep the state at the start of each segment;
 * the backward pass walks the segments in reverse and recomputes the states between. No (length, channel, state)
 * array exists. Every array is C-contiguous float32:
 *
 *   u, delta, y, dy, du, ddelta   (batch, length, channel)
 *   A                             (state, channel)
 *   B, C                          (batch, length, state)
 *   states h0, last, dlast, dh0   (batch, state, channel)
 *   checkpoints                   (batch, segments, state, channel)
 *   reset                         (batch, length) bytes: 1 zeroes the state before that step; or NULL
 *   dA                            (batch, state, channel)          summed over the batch by the caller
 *   dB, dC                        (groups, batch, length, state)   summed over the channel groups by the caller
 *
 * The number of channel groups is the caller's and must not depend on the number of threads: then neither do the sums.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#define SEG 16
#define LANES 8
#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), aligned(4)));

/* Flush-to-zero for the call alone: a decaying state would otherwise spend its life in denormals. */
#if defined(__SSE__)
#define FLUSH_BEGIN const unsigned csr = _mm_getcsr(); _mm_setcsr(csr | 0x8040);
#define FLUSH_END _mm_setcsr(csr);
#else
#define FLUSH_BEGIN
#define FLUSH_END
#endif

INLINE vec splat(float x) { return (vec){x, x, x, x, x, x, x, x}; }

INLINE vec load(const float *p, int lanes) {
    vec v = splat(0.0f);
    if (lanes == LANES) memcpy(&v, p, sizeof v);
    else for (int i = 0; i < lanes; i++) v[i] = p[i];
    return v;
}

INLINE void store(float *p, vec v, int lanes) {
    if (lanes == LANES) memcpy(p, &v, sizeof v);
    else for (int i = 0; i < lanes; i++) p[i] = v[i];
}

INLINE vec choose(ivec mask, vec yes, vec no) { return (vec)(((ivec)yes & mask) | ((ivec)no & ~mask)); }

/* exp(x a) with a2 = a log2(e): the product is fused into the range reduction, which is more accurate than rounding
 * x a first. Relative error about 2e-7; 0 below 2^-126, inf above 2^128, NaN stays NaN. */
INLINE vec exp_product(vec x, vec a2) {
    const vec magic = splat(12582912.0f); /* 1.5 2^23: adding it rounds to an integer kept in the low mantissa bits */
    vec p = x * a2;
    const ivec low = p < splat(-126.5f), high = p > splat(128.0f);
    vec t = p + magic;
    vec k = t - magic;
    vec r = x * a2 - k;
    r = choose(low | high, splat(0.0f), r);
    vec e = splat(1.5403530e-4f);
    e = e * r + splat(1.3333558e-3f);
    e = e * r + splat(9.6181291e-3f);
    e = e * r + splat(5.5504109e-2f);
    e = e * r + splat(2.4022651e-1f);
    e = e * r + splat(6.9314718e-1f);
    e = e * r + splat(1.0f);
    vec scale = (vec)(((ivec)t + 127) << 23);
    scale = choose(low, splat(0.0f), scale);
    scale = choose(high, splat(__builtin_inff()), scale);
    return e * scale;
}

typedef struct {
    int64_t batch, length, channels, states, groups;
    const float *u, *delta, *A2, *A, *B, *C, *h0;
    const uint8_t *reset;
    float *y, *last, *checkpoints;                       /* forward */
    const float *dy, *dlast;                             /* backward */
    float *du, *ddelta, *dA, *dB, *dC, *dh0;
} Problem;

INLINE int64_t segments(const Problem *p) { return (p->length + SEG - 1) / SEG; }

INLINE void forward_body(const Problem *p, int64_t item, const int N) {
    const int64_t D = p->channels, L = p->length, b = item / p->groups, g = item % p->groups;
    const int64_t blocks = (D + LANES - 1) / LANES;
    const int64_t first = blocks * g / p->groups, stop = blocks * (g + 1) / p->groups;
    const float *B = p->B + b * L * N, *C = p->C + b * L * N;
    float *state = p->last + b * N * D;                   /* the running state lives in the output */
    for (int64_t s = 0; s < segments(p); s++) {
        const int64_t t0 = s * SEG, t1 = t0 + SEG < L ? t0 + SEG : L;
        for (int64_t k = first; k < stop; k++) {
            const int64_t d = k * LANES;
            const int lanes = D - d < LANES ? (int)(D - d) : LANES;
            vec h[N];
            for (int n = 0; n < N; n++) h[n] = load(state + n * D + d, lanes);
            if (p->checkpoints) {
                float *keep = p->checkpoints + (b * segments(p) + s) * N * D + d;
                for (int n = 0; n < N; n++) store(keep + n * D, h[n], lanes);
            }
            for (int64_t t = t0; t < t1; t++) {
                const int64_t row = (b * L + t) * D + d;
                const vec dt = load(p->delta + row, lanes), x = dt * load(p->u + row, lanes);
                if (p->reset && p->reset[b * L + t]) for (int n = 0; n < N; n++) h[n] = splat(0.0f);
                vec y = splat(0.0f);
                for (int n = 0; n < N; n++) {
                    h[n] = exp_product(dt, load(p->A2 + n * D + d, lanes)) * h[n] + x * splat(B[t * N + n]);
                    y += splat(C[t * N + n]) * h[n];
                }
                store(p->y + row, y, lanes);
            }
            for (int n = 0; n < N; n++) store(state + n * D + d, h[n], lanes);
        }
    }
}

INLINE void backward_body(const Problem *p, int64_t item, const int N, vec *scratch) {
    const int64_t D = p->channels, L = p->length, b = item / p->groups, group = item % p->groups;
    const int64_t blocks = (D + LANES - 1) / LANES;
    const int64_t first = blocks * group / p->groups, stop = blocks * (group + 1) / p->groups;
    const float *B = p->B + b * L * N, *C = p->C + b * L * N;
    float *dB = p->dB + (group * p->batch + b) * L * N, *dC = p->dC + (group * p->batch + b) * L * N;
    float *carry = p->dh0 + b * N * D, *dA = p->dA + b * N * D;
    vec *a = scratch, *h = a + SEG * N, *accB = h + (SEG + 1) * N, *accC = accB + SEG * N; /* h[i] precedes step i */
    for (int64_t s = segments(p) - 1; s >= 0; s--) {
        const int64_t t0 = s * SEG, t1 = t0 + SEG < L ? t0 + SEG : L;
        const int steps = (int)(t1 - t0);
        memset(accB, 0, 2 * SEG * N * sizeof(vec));
        for (int64_t k = first; k < stop; k++) {
            const int64_t d = k * LANES;
            const int lanes = D - d < LANES ? (int)(D - d) : LANES;
            const float *kept = p->checkpoints + (b * segments(p) + s) * N * D + d;
            for (int n = 0; n < N; n++) h[n] = load(kept + n * D, lanes);
            for (int i = 0; i < steps; i++) {
                const int64_t row = (b * L + t0 + i) * D + d;
                const vec dt = load(p->delta + row, lanes), x = dt * load(p->u + row, lanes);
                if (p->reset && p->reset[b * L + t0 + i]) {
                    for (int n = 0; n < N; n++) a[i * N + n] = splat(0.0f);
                    for (int n = 0; n < N; n++) h[(i + 1) * N + n] = x * splat(B[(t0 + i) * N + n]);
                    continue;
                }
                for (int n = 0; n < N; n++) {
                    const vec e = exp_product(dt, load(p->A2 + n * D + d, lanes));
                    a[i * N + n] = e;
                    h[(i + 1) * N + n] = e * h[i * N + n] + x * splat(B[(t0 + i) * N + n]);
                }
            }
            vec grad[N], gradA[N];
            for (int n = 0; n < N; n++) grad[n] = load(carry + n * D + d, lanes);
            for (int n = 0; n < N; n++) gradA[n] = load(dA + n * D + d, lanes);
            for (int i = steps - 1; i >= 0; i--) {
                const int64_t row = (b * L + t0 + i) * D + d;
                const vec dt = load(p->delta + row, lanes), u = load(p->u + row, lanes), x = dt * u;
                const vec dy = load(p->dy + row, lanes);
                vec dx = splat(0.0f), ddt = splat(0.0f);
                for (int n = 0; n < N; n++) {
                    vec g = grad[n] + dy * splat(C[(t0 + i) * N + n]);
                    accC[i * N + n] += dy * h[(i + 1) * N + n];
                    accB[i * N + n] += g * x;
                    dx += g * splat(B[(t0 + i) * N + n]);
                    g *= a[i * N + n];
                    const vec q = g * h[i * N + n];
                    ddt += q * load(p->A + n * D + d, lanes);
                    gradA[n] += q * dt;
                    grad[n] = g;
                }
                store(p->du + row, dx * dt, lanes);
                store(p->ddelta + row, ddt + dx * u, lanes);
            }
            for (int n = 0; n < N; n++) store(carry + n * D + d, grad[n], lanes);
            for (int n = 0; n < N; n++) store(dA + n * D + d, gradA[n], lanes);
        }
        for (int i = 0; i < steps * N; i++) {
            float sb = 0.0f, sc = 0.0f;
            for (int j = 0; j < LANES; j++) { sb += accB[i][j]; sc += accC[i][j]; }
            dB[t0 * N + i] = sb;
            dC[t0 * N + i] = sc;
        }
    }
}

/* One copy of the bodies for each instruction set; the state size of Mamba gets a copy with its loops unrolled. */
#define VERSION(name, target)                                                                   \
    target static void forward_##name(const Problem *p, int64_t item) {                         \
        if (p->states == 16) forward_body(p, item, 16);                                         \
        else forward_body(p, item, (int)p->states);                                             \
    }                                                                                           \
    target static void backward_##name(const Problem *p, int64_t item, vec *scratch) {          \
        if (p->states == 16) backward_body(p, item, 16, scratch);                               \
        else backward_body(p, item, (int)p->states, scratch);                                   \
    }

VERSION(generic, )
#if defined(__x86_64__)
VERSION(avx2, __attribute__((target("avx2,fma"))))
static int has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#else
static int has_avx2(void) { return 0; }
#define forward_avx2 forward_generic
#define backward_avx2 backward_generic
#endif

const char *ssm_instruction_set(void) { return has_avx2() ? "avx2" : "generic"; }

void ssm_forward(const Problem *p) {
    const int wide = has_avx2();
    const int64_t items = p->batch * p->groups;
    #pragma omp parallel for schedule(dynamic)
    for (int64_t item = 0; item < items; item++) {
        FLUSH_BEGIN
        if (wide) forward_avx2(p, item); else forward_generic(p, item);
        FLUSH_END
    }
}

/* Returns 0, or 1 when the scratch memory could not be had (nothing is then written). */
int ssm_backward(const Problem *p) {
    const int wide = has_avx2();
    const int64_t items = p->batch * p->groups, N = p->states;
    int failed = 0;
    #pragma omp parallel reduction(| : failed)
    {
        void *raw = NULL;
        failed |= posix_memalign(&raw, 64, (4 * SEG + 1) * N * sizeof(vec)) != 0;
        #pragma omp for schedule(dynamic)
        for (int64_t item = 0; item < items; item++) {
            if (!raw) continue;
            FLUSH_BEGIN
            if (wide) backward_avx2(p, item, raw); else backward_generic(p, item, raw);
            FLUSH_END
        }
        free(raw);
    }
    return failed;
}
