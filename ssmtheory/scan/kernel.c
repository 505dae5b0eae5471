/* Selective scan on the CPU: forward, and backward by recomputation from checkpoints.
 *
 *   h[t] = exp(delta[t] A) h[t-1] + delta[t] u[t] B[t]        y[t] = (scale Re sum_n C[t,n] h[t,n] + D u[t]) silu(z[t])
 *
 * with delta[t] = softplus(raw[t] + bias) where asked. Channels are the vector lanes, so that no step needs a
 * horizontal sum: B[t,n] and C[t,n] are broadcasts. Time is cut into segments of SEG steps. The inputs of a segment are
 * staged, TILE channels at a time, into [vector][step][lane]: this takes any strides and element type, reads rows whole,
 * and keeps rows that lie a power of two apart from evicting each other. States are taken NB at a time, so that what a
 * backward segment needs stays in the first-level cache. No (length, channel, state) array exists.
 *
 * The file includes itself: the part below "the body" is compiled once for each arithmetic (float, double, complex
 * double) and instruction set. In float, each state is a pair of numbers, value and rounding error, and the decay is
 * split into 2^k (1 + q) with q from an expm1: a slow system (delta A = -1e-6) forgets nothing over a million steps.
 * Complex states are double whatever the inputs, because the phase of a slow oscillation needs it.
 *
 * Sums over channels are cut by the shape of the problem alone, never by the number of threads: results are repeatable.
 */
#ifndef ISA
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#define SEG 16   /* steps between two checkpoints */
#define TILE 64  /* channels staged at once */
#define NB 4     /* states in registers */
#define INLINE static inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("unroll 4")
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define UNROLL _Pragma("GCC unroll 4") /* NB: the states of a block live in registers */
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (ivec){__VA_ARGS__})
#endif

/* Flush-to-zero for the call alone: a decaying state would otherwise spend its life in denormals. */
#if defined(__SSE__)
#define FLUSH_BEGIN const unsigned csr = _mm_getcsr(); _mm_setcsr(csr | 0x8040);
#define FLUSH_END _mm_setcsr(csr);
#else
#define FLUSH_BEGIN
#define FLUSH_END
#endif

enum { FLOAT, DOUBLE, COMPLEX_FLOAT, COMPLEX_DOUBLE };  /* element types */

/* An array of any strides (in bytes, for the axes named below); data == NULL where it is not given. */
typedef struct {
    char *data;
    int64_t type, stride[5];
} View;

typedef struct {
    int64_t batch, length, channels, states, groups;  /* groups: of B and C */
    int64_t rates, rate_states;                       /* A is (rates, rate_states), rates dividing the channels */
    int64_t steps, skips;                             /* last axis of delta and bias; of D */
    int64_t parts, cuts;   /* an item of work is one sequence and 1/parts of the groups, or 1/cuts of one group */
    int64_t start, stop;   /* steps to run, counted in the order of the scan; start is a multiple of SEG */
    int64_t reverse, softplus, scale;
    int64_t kind, isa;     /* kind: 0 float, 1 double, 2 complex double; isa: 0 the best, else 1 + its number */
    const double *A, *D, *bias;                       /* C-contiguous; A complex where kind is */
    void *kept;            /* checkpoints (batch, segment, state, [re, im,] channel), C-contiguous, of the arithmetic */
    double *dA, *dD, *dbias;                          /* (batch, channel, rate_states), (batch, channel) twice */
    View u, delta, z, y;                              /* (batch, time, channel) */
    View B, C;                                        /* (batch, time, group, state) */
    View h0, last;                                    /* (batch, channel, state) */
    View reset;                                       /* (batch, time) bytes: 1 zeroes the state before that step */
    View all;                                         /* (batch, time, channel, state) receives every state */
    View dy, du, ddelta, dz;                          /* (batch, time, channel) */
    View dB, dC;                                      /* (batch, time, group, state, cut) */
    View dlast, dh0;                                  /* (batch, channel, state) */
} Problem;

/* What one pass over time works on: channels c0 <= c < c1 of sequence b. They belong to one group, or to several
 * groups narrower than a vector ("mixed", each lane with its own B and C). */
typedef struct {
    const Problem *p;
    int64_t b, c0, c1, group, cut;
    int mixed;
} Run;

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

INLINE double real_of(const char *p, int64_t type) {
    return type == FLOAT || type == COMPLEX_FLOAT ? *(const float *)p : *(const double *)p;
}

INLINE double imag_of(const char *p, int64_t type) {
    return type == COMPLEX_FLOAT ? ((const float *)p)[1] : type == COMPLEX_DOUBLE ? ((const double *)p)[1] : 0;
}

INLINE void put(char *p, int64_t type, double re, double im) {
    if (type == FLOAT || type == COMPLEX_FLOAT) ((float *)p)[0] = (float)re;
    else ((double *)p)[0] = re;
    if (type == COMPLEX_FLOAT) ((float *)p)[1] = (float)im;
    else if (type == COMPLEX_DOUBLE) ((double *)p)[1] = im;
}

/* Where step 0 of sequence b lies, and how far the next step is: time runs backwards in a reversed scan. */
INLINE char *origin(const Problem *p, const View *v, int64_t b) {
    return v->data ? v->data + b * v->stride[0] + (p->reverse ? (p->length - 1) * v->stride[1] : 0) : NULL;
}

INLINE int64_t pace(const Problem *p, const View *v) { return p->reverse ? -v->stride[1] : v->stride[1]; }

/* Cache-line aligned pieces of one allocation; with memory == NULL it only counts. */
typedef struct { char *memory; size_t used; } Arena;

INLINE void *take(Arena *arena, size_t bytes) {
    void *p = arena->memory ? arena->memory + arena->used : NULL;
    arena->used += (bytes + 63) & ~(size_t)63;
    return p;
}

#define ISA generic
#define BYTES 16
#include "kernel.c"
#undef ISA
#undef BYTES

#if defined(__x86_64__) && defined(__GNUC__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define ISA avx2
#define BYTES 32
#include "kernel.c"
#undef ISA
#undef BYTES
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f,avx512dq,avx512vl,avx512bw"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512dq,avx512vl,avx512bw,prefer-vector-width=512")
#endif
#define ISA avx512
#define BYTES 64
#include "kernel.c"
#undef ISA
#undef BYTES
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
static int best(void) {
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw")) return 2;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? 1 : 0;
}
#define FOR_EACH_ISA(f) {f(float_generic), f(double_generic), f(complex_generic)}, \
                        {f(float_avx2), f(double_avx2), f(complex_avx2)}, \
                        {f(float_avx512), f(double_avx512), f(complex_avx512)}
#else
static int best(void) { return 0; }
#define FOR_EACH_ISA(f) {f(float_generic), f(double_generic), f(complex_generic)}
#endif

typedef void Pass(const Run *, Arena *);
#define FORWARD(x) forward_##x
#define BACKWARD(x) backward_##x
static Pass *const forward_passes[][3] = {FOR_EACH_ISA(FORWARD)};
static Pass *const backward_passes[][3] = {FOR_EACH_ISA(BACKWARD)};
static const char *const names[] = {"generic", "avx2", "avx512"};

/* The name of an instruction set that this machine has, counted from 1; 0 is the best of them; else NULL. */
const char *ssm_instruction_set(int number) {
    return number < 0 || number > best() + 1 ? NULL : names[number ? number - 1 : best()];
}

int64_t ssm_problem_bytes(void) { return sizeof(Problem); }

/* All passes of one item of work. */
static void item_of_work(const Problem *p, int64_t item, Pass *pass, Arena *arena, int narrow) {
    const int64_t cut = item % p->cuts, part = item / p->cuts % p->parts, b = item / p->cuts / p->parts;
    const int64_t g0 = p->groups * part / p->parts, g1 = p->groups * (part + 1) / p->parts, per = p->channels / p->groups;
    Run run = {p, b, g0 * per, g1 * per, g0, cut, narrow};
    if (narrow) {
        arena->used = 0;
        pass(&run, arena);
        return;
    }
    const int64_t blocks = (per + 15) / 16;
    for (int64_t g = g0; g < g1; g++) {
        run.group = g;
        run.c0 = g * per + 16 * (blocks * cut / p->cuts);
        run.c1 = g * per + least(per, 16 * (blocks * (cut + 1) / p->cuts));
        arena->used = 0;
        if (run.c0 < run.c1) pass(&run, arena);
    }
}

/* Returns 0, or 1 when the scratch memory could not be had (nothing is then complete). */
static int everything(const Problem *p, int backward) {
    const int isa = p->isa ? (int)p->isa - 1 : best(), kind = (int)p->kind;
    Pass *pass = (backward ? backward_passes : forward_passes)[isa][kind];
    const int lanes = (isa == 0 ? 16 : isa == 1 ? 32 : 64) / (kind ? 8 : 4);
    const int64_t items = p->batch * p->parts * p->cuts, per = p->channels / p->groups;
    const int narrow = p->groups > 1 && per < lanes;
    int failed = 0;
    #pragma omp parallel reduction(| : failed) if (items > 1)
    {
        Arena arena = {NULL, 0};
        /* as many channels as any run has */
        const int64_t widest = narrow ? per * ((p->groups + p->parts - 1) / p->parts) : least(per, 16 * ((per + 15) / 16 / p->cuts + 1));
        Run run = {p, 0, 0, widest, 0, 0, narrow};
        pass(&run, &arena);
        void *memory = NULL;
        failed |= posix_memalign(&memory, 64, arena.used) != 0;
        arena.memory = memory;
        #pragma omp for schedule(dynamic)
        for (int64_t item = 0; item < items; item++) {
            if (!memory) continue;
            FLUSH_BEGIN
            item_of_work(p, item, pass, &arena, narrow);
            FLUSH_END
        }
        free(memory);
    }
    return failed;
}

int ssm_forward(const Problem *p) { return everything(p, 0); }
int ssm_backward(const Problem *p) { return everything(p, 1); }


#elif !defined(KIND)

#define KIND float
#define ARITHMETIC 0
#include "kernel.c"
#undef KIND
#undef ARITHMETIC
#define KIND double
#define ARITHMETIC 1
#include "kernel.c"
#undef KIND
#undef ARITHMETIC
#define KIND complex
#define ARITHMETIC 2
#include "kernel.c"
#undef KIND
#undef ARITHMETIC

#else
/* ------------------------------------------------------------------------------------------------ the body
 * R: a real number; vec: LANES of them; S: a state, one vec or two; PARTS: numbers in a state. */

#define GLUE_(a, b, c) a##_##b##_##c
#define GLUE(a, b, c) GLUE_(a, b, c)
#define X(name) GLUE(name, KIND, ISA)

#if ARITHMETIC == 0
#define R float
#define INTEGER int32_t
#define R_TYPE FLOAT
#define LANES (BYTES / 4)
#else
#define R double
#define INTEGER int64_t
#define R_TYPE DOUBLE
#define LANES (BYTES / 8)
#endif

#define vec X(vec)
#define ivec X(ivec)
typedef R vec __attribute__((vector_size(BYTES), aligned(sizeof(R)), may_alias));
typedef INTEGER ivec __attribute__((vector_size(BYTES), aligned(sizeof(R)), may_alias));

#define splat X(splat)
INLINE vec splat(R x) { return x - (vec){0}; }

#define choose X(choose)
INLINE vec choose(ivec mask, vec yes, vec no) { return (vec)(((ivec)yes & mask) | ((ivec)no & ~mask)); }

#define any X(any)
INLINE int any(ivec mask) {
    INTEGER found = 0;
    for (int i = 0; i < LANES; i++) found |= mask[i];
    return found != 0;
}

#define magnitude X(magnitude)
INLINE vec magnitude(vec x) { return choose(x < splat(0), -x, x); }

#define load X(load)
INLINE vec load(const R *p, int64_t lanes) {
    vec v = splat(0);
    if (lanes >= LANES) memcpy(&v, p, sizeof v);
    else for (int64_t i = 0; i < lanes; i++) v[i] = p[i];
    return v;
}

#define store X(store)
INLINE void store(R *p, vec v, int64_t lanes) {
    if (lanes >= LANES) memcpy(p, &v, sizeof v);
    else for (int64_t i = 0; i < lanes; i++) p[i] = v[i];
}

/* The sums of the pairs of a, then of the pairs of b. */
#define pairs X(pairs)
INLINE vec pairs(vec a, vec b) {
#if LANES == 2
    return SHUFFLE(a, b, 0, 2) + SHUFFLE(a, b, 1, 3);
#elif LANES == 4
    return SHUFFLE(a, b, 0, 2, 4, 6) + SHUFFLE(a, b, 1, 3, 5, 7);
#elif LANES == 8
    return SHUFFLE(a, b, 0, 2, 4, 6, 8, 10, 12, 14) + SHUFFLE(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
#else
    return SHUFFLE(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) +
           SHUFFLE(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
#endif
}

/* Lane i of the result is the sum over the lanes of v[i]; v is overwritten. */
#define sums X(sums)
INLINE vec sums(vec *v) {
    for (int width = LANES / 2; width >= 1; width /= 2)
        for (int i = 0; i < width; i++) v[i] = pairs(v[2 * i], v[2 * i + 1]);
    return v[0];
}

/* ---- exponentials. exp(m) = 2^k (1 + q), q = expm1(r), m = k ln 2 + r: q keeps its digits where m is small.
 * Coefficients: interpolation of (expm1(r) - r) / r^2 on |r| <= (ln 2) / 2, and of (atanh(s) / s - 1) / s^2 on
 * s^2 <= 1/9, at Chebyshev points; below one unit in the last place. MAGIC rounds to an integer, biased as an
 * exponent, in the low bits of the mantissa. */
#if ARITHMETIC == 0
#define MAGIC 12583039.0f /* 1.5 2^23 + 127 */
#define MANTISSA 23
#define LIMIT 87.0f
#define LN2_HIGH 0.693359375f
#define LN2_LOW -2.12194440e-4f
#define EXPM1 {0.5f, 0.16666577f, 0.041666555f, 0.0083631791f, 0.0013926184f}
#define ATANH {0.33333320f, 0.20003782f, 0.14118273f, 0.13426014f}
#else
#define MAGIC 6755399441056767.0 /* 1.5 2^52 + 1023 */
#define MANTISSA 52
#define LIMIT 708.0
#define LN2_HIGH 6.93147180369123816490e-01
#define LN2_LOW 1.90821492927058770002e-10
#define EXPM1 {0.5, 0.16666666666666671, 0.0416666666666666698, 0.00833333333332613513, 0.00138888888888837483, \
    0.000198412698748206253, 0.0000248015873255477412, 2.75572554002064244e-6, 2.75572736431102953e-7, \
    2.51052170047207452e-8, 2.09146869680868772e-9}
#define ATANH {0.333333333333333334, 0.19999999999999761, 0.142857142858001321, 0.111111110991080563, \
    0.0909090994963397949, 0.0769227195887658227, 0.0666758983075785514, 0.0586713258968829656, \
    0.0542264551638990638, 0.0374581973033663279, 0.0781576735371561224}
#endif

#define polynomial X(polynomial)
INLINE vec polynomial(vec x, const R *c, int count) {
    vec p = splat(c[count - 1]);
    for (int i = count - 2; i >= 0; i--) p = p * x + splat(c[i]);
    return p;
}

/* 2^k and expm1(r), for |m| <= LIMIT. */
#define exponential X(exponential)
INLINE void exponential(vec m, vec *scale, vec *q, int exact) {
    static const R c[] = EXPM1;
    const vec t = m * splat((R)1.4426950408889634) + splat(MAGIC), k = t - splat(MAGIC);
    vec r;
    if (exact) r = (m - k * splat(LN2_HIGH)) - k * splat(LN2_LOW);
    else r = m - k * splat((R)0.6931471805599453); /* an error of k 2e-9, on a decay of 2^k */
    *q = polynomial(r, c, sizeof c / sizeof *c) * (r * r) + r;
    *scale = (vec)((ivec)t << MANTISSA);
}

/* exp(x) for x <= 0; NaN stays NaN. */
#define exp_negative X(exp_negative)
INLINE vec exp_negative(vec x) {
    vec scale, q;
    const ivec low = x < splat(-LIMIT);
    exponential(choose(low, splat(-LIMIT), x), &scale, &q, 1);
    return choose(low, splat(0), scale * q + scale);
}

/* log(1 + exp(x)) = max(x, 0) + log1p(v), v = exp(-|x|), log1p(v) = 2 atanh(v / (2 + v)): no digit is lost for small
 * results. The derivative is the sigmoid. */
#define log_one_plus_exp X(log_one_plus_exp)
INLINE vec log_one_plus_exp(vec x, vec *sigmoid) {
    static const R c[] = ATANH;
    const vec v = exp_negative(-magnitude(x)), s = v / (splat(2) + v), s2 = s * s;
    const vec inverse = splat(1) / (splat(1) + v);
    *sigmoid = choose(x < splat(0), v * inverse, inverse);
    const vec half = polynomial(s2, c, sizeof c / sizeof *c) * s2 * s + s;
    return choose(x > splat(0), x, splat(0)) + (half + half);
}

/* z sigmoid(z) and its derivative. */
#define silu X(silu)
INLINE vec silu(vec z, vec *slope) {
    const vec v = exp_negative(-magnitude(z)), large = splat(1) / (splat(1) + v), little = v * large;
    const vec s = choose(z < splat(0), little, large), rest = choose(z < splat(0), large, little);
    *slope = s * (splat(1) + z * rest);
    return z * s;
}

/* ---- states and decays */
#define S X(state)
#define Decay X(decay)
#define s_splat X(s_splat)
#define s_conj X(s_conj)
#define s_scale X(s_scale)
#define s_add X(s_add)
#define s_mul X(s_mul)
#define s_dot X(s_dot)
#define decay_of X(decay_of)
#define conj_decay X(conj_decay)
#define decayed X(decayed)
#define advance X(advance)
#define is_careful X(is_careful)
#define careful_decay X(careful_decay)

#if ARITHMETIC != 2
#define PARTS 1
typedef vec S;
typedef struct { vec scale, q; } Decay;
INLINE S s_splat(const R *p) { return splat(p[0]); }
INLINE S s_conj(S a) { return a; }
INLINE S s_scale(S a, vec x) { return a * x; }
INLINE S s_add(S a, S b) { return a + b; }
INLINE S s_mul(S a, S b) { return a * b; }
INLINE vec s_dot(S a, S b) { return a * b; }

INLINE Decay decay_of(vec x, S A) {
    Decay d;
    exponential(x * A, &d.scale, &d.q, ARITHMETIC != 0);
    return d;
}

INLINE Decay conj_decay(Decay d) { return d; }
INLINE S decayed(Decay d, S h) { const vec s = d.scale * h; return d.q * s + s; }

/* exp(m) h + x, where *low + h is the state: the rounding error of each sum is kept (Kahan's summation). */
INLINE S advance(Decay d, S h, S *low, S x) {
    const vec s = d.scale * h;
#if ARITHMETIC == 0
    const vec change = d.scale * *low + (d.q * s + x), sum = s + change;
    *low = change - (sum - s);
    return sum;
#else
    return s + (d.q * s + x);
#endif
}

/* Whether exp(x A) for |x| <= most needs care: it may leave the range of R, or is NaN. */
INLINE ivec is_careful(vec most, S A) { return ~(most * magnitude(A) <= splat(LIMIT)); }

/* Any x: 0 where exp(x A) is negligible; where it is larger than R can hold, a factor and, in *second, another one, so
 * that a state of zero stays zero and a tiny one finite. */
INLINE Decay careful_decay(vec x, S A, vec *second) {
    Decay d;
    vec m = x * A, scale, q;
    const ivec low = m < splat(-LIMIT), high = m > splat(LIMIT);
    m = choose(low, splat(0), choose(m > splat(2 * LIMIT), splat(2 * LIMIT), m));
    m = choose(high, m * splat((R)0.5), m);
    exponential(m, &scale, &q, 1);
    *second = choose(high, scale * q + scale, splat(1));
    d.scale = choose(low, splat(0), scale);
    d.q = q;
    return d;
}
#else
#define PARTS 2
typedef struct { vec re, im; } S;
typedef S Decay;
INLINE S s_splat(const R *p) { return (S){splat(p[0]), splat(p[1])}; }
INLINE S s_conj(S a) { return (S){a.re, -a.im}; }
INLINE S s_scale(S a, vec x) { return (S){a.re * x, a.im * x}; }
INLINE S s_add(S a, S b) { return (S){a.re + b.re, a.im + b.im}; }
INLINE S s_mul(S a, S b) { return (S){a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }
INLINE vec s_dot(S a, S b) { return a.re * b.re - a.im * b.im; }

/* Quarter turns are taken off the angle in three pieces of pi/2; then two Taylor series on |r| <= pi/4. */
INLINE Decay decay_of(vec x, S A) {
    static const R sine[] = {-1.0 / 6, 1.0 / 120, -1.0 / 5040, 1.0 / 362880, -1.0 / 39916800, 1.0 / 6227020800.0,
                             -1.0 / 1307674368000.0};
    static const R cosine[] = {-0.5, 1.0 / 24, -1.0 / 720, 1.0 / 40320, -1.0 / 3628800, 1.0 / 479001600,
                               -1.0 / 87178291200.0, 1.0 / 20922789888000.0};
    vec scale, q;
    exponential(x * A.re, &scale, &q, 1);
    const vec size = scale * q + scale, angle = x * A.im;
    const vec t = angle * splat(0.63661977236758134) + splat(MAGIC - 1023), k = t - splat(MAGIC - 1023);
    vec r = angle - k * splat(1.57079632673412561417e+00);
    r = r - k * splat(6.07710050630396597660e-11);
    r = r - k * splat(2.02226624879595063154e-21);
    const vec r2 = r * r;
    const vec s = polynomial(r2, sine, 7) * r2 * r + r, c = polynomial(r2, cosine, 8) * r2 + splat(1);
    const ivec turn = (ivec)t, swap = -(turn & 1), minus_s = (turn & 2) << 62, minus_c = ((turn + 1) & 2) << 62;
    return (Decay){size * (vec)((ivec)choose(swap, s, c) ^ minus_c), size * (vec)((ivec)choose(swap, c, s) ^ minus_s)};
}

INLINE Decay conj_decay(Decay d) { return s_conj(d); }
INLINE S decayed(Decay d, S h) { return s_mul(d, h); }
INLINE S advance(Decay d, S h, S *low, S x) {
    (void)low;
    return s_add(s_mul(d, h), x);
}
INLINE ivec is_careful(vec most, S A) {
    return ~((most * magnitude(A.re) <= splat(LIMIT)) & (most * magnitude(A.im) <= splat(1e5)));
}
INLINE Decay careful_decay(vec x, S A, vec *second) {
    Decay d;
    *second = splat(1);
    for (int i = 0; i < LANES; i++) {
        double m = x[i] * A.re[i], angle = x[i] * A.im[i];
        if (m > LIMIT) {
            m = fmin(m, 2 * LIMIT) / 2;
            (*second)[i] = exp(m);
        }
        const double size = exp(m);
        d.re[i] = size * cos(angle);
        d.im[i] = size * sin(angle);
    }
    return d;
}
#endif

/* ---- staging */

/* Channels first .. first + count of an array (time, channel) to [vector][step][lane], zeros after the last channel.
 * `per` channels share one entry (heads). */
#define stage X(stage)
static void stage(R *to, const char *from, int64_t type, int64_t step, int64_t stride, int64_t per, int64_t first,
                  int64_t count, int steps) {
    const int64_t vectors = (count + LANES - 1) / LANES;
    const int64_t whole = type == R_TYPE && stride == sizeof(R) && per == 1 ? count / LANES : 0;
    for (int i = 0; i < steps; i++)
        for (int64_t v = 0; v < whole; v++)
            memcpy(to + (v * SEG + i) * LANES, from + i * step + (first + v * LANES) * stride, sizeof(vec));
    for (int64_t v = whole; v < vectors; v++)
        for (int64_t j = 0; j < LANES; j++) {
            R *lane = to + v * SEG * LANES + j;
            const char *p = from + (first + v * LANES + j) / per * stride;
            if (v * LANES + j >= count) for (int i = 0; i < steps; i++) lane[i * LANES] = 0;
            else if (type == FLOAT) for (int i = 0; i < steps; i++) lane[i * LANES] = *(const float *)(p + i * step);
            else for (int i = 0; i < steps; i++) lane[i * LANES] = (R)*(const double *)(p + i * step);
        }
}

#define unstage X(unstage)
static void unstage(const R *from, char *to, int64_t type, int64_t step, int64_t stride, int64_t first, int64_t count,
                    int steps) {
    const int64_t vectors = (count + LANES - 1) / LANES;
    const int64_t whole = type == R_TYPE && stride == sizeof(R) ? count / LANES : 0;
    for (int i = 0; i < steps; i++)
        for (int64_t v = 0; v < whole; v++)
            memcpy(to + i * step + (first + v * LANES) * stride, from + (v * SEG + i) * LANES, sizeof(vec));
    for (int64_t v = whole; v < vectors; v++)
        for (int64_t j = 0; j < LANES && v * LANES + j < count; j++) {
            const R *lane = from + v * SEG * LANES + j;
            char *p = to + (first + v * LANES + j) * stride;
            if (type == FLOAT) for (int i = 0; i < steps; i++) *(float *)(p + i * step) = (float)lane[i * LANES];
            else for (int i = 0; i < steps; i++) *(double *)(p + i * step) = lane[i * LANES];
        }
}

/* B or C of one segment for one group, [step][state][part]. */
#define stage_shared X(stage_shared)
static void stage_shared(R *to, const Run *run, const View *v, int64_t t0, int steps) {
    const int64_t N = run->p->states;
    for (int i = 0; i < steps; i++) {
        const char *row = origin(run->p, v, run->b) + (t0 + i) * pace(run->p, v) + run->group * v->stride[2];
        for (int64_t n = 0; n < N; n++) {
            const char *p = row + n * v->stride[3];
            to[(i * N + n) * PARTS] = (R)real_of(p, v->type);
            if (PARTS == 2) to[(i * N + n) * PARTS + 1] = (R)imag_of(p, v->type);
        }
    }
}

/* The same where each lane has its own: [step][state][part][lane]. */
#define stage_mixed X(stage_mixed)
static void stage_mixed(R *to, const Run *run, const View *v, int64_t t0, int steps, int64_t c) {
    const int64_t N = run->p->states, per = run->p->channels / run->p->groups;
    for (int64_t j = 0; j < LANES; j++) {
        const int64_t group = least(c + j, run->c1 - 1) / per;
        for (int i = 0; i < steps; i++) {
            const char *row = origin(run->p, v, run->b) + (t0 + i) * pace(run->p, v) + group * v->stride[2];
            for (int64_t n = 0; n < N; n++) {
                const char *p = row + n * v->stride[3];
                to[((i * N + n) * PARTS) * LANES + j] = (R)real_of(p, v->type);
                if (PARTS == 2) to[((i * N + n) * PARTS + 1) * LANES + j] = (R)imag_of(p, v->type);
            }
        }
    }
}

/* ---- a segment of one vector of channels, `count` states from n */
#define Block X(block)
typedef struct {
    const Run *run;
    int steps;
    const uint8_t *reset;    /* by step, or NULL */
    const vec *dt, *x;       /* Delta and Delta u */
    vec *y;
    const R *B, *C;
    const S *A;
    int64_t rate, width;     /* of A and decays, from state to state and step to step: 0, 1 where one serves all states */
    Decay *decays;           /* [step][width], and after the last step one that changes nothing */
    vec *second;             /* as decays, or NULL */
    S *h, *low;              /* by state */
    S *kept;                 /* [step][NB]: the states, that before the first step included */
} Block;

#define coefficient X(coefficient)
INLINE S coefficient(const R *p, int64_t i, int mixed) {
    return mixed ? ((const S *)p)[i] : s_splat(p + i * PARTS);
}

#define fill X(fill)
INLINE void fill(Block *k, vec *memory, int careful, int64_t n, int count) {
    const int64_t w = k->width;
    k->second = NULL;
    for (int j = 0; j < (k->rate ? count : 1); j++) {
        const S A = k->A[(n + j) * k->rate];
        if (careful)
            for (int i = 0; i < k->steps; i++) {
                k->decays[i * w + j] = careful_decay(k->dt[i], A, &memory[i * w + j]);
                if (any(memory[i * w + j] != splat(1))) k->second = memory;
            }
        else for (int i = 0; i < k->steps; i++) k->decays[i * w + j] = decay_of(k->dt[i], A);
        k->decays[k->steps * w + j] = (Decay){splat(1), splat(0)};
        memory[k->steps * w + j] = splat(1);
    }
}


/* Run the block: y += Re(C h) where `want`, the states kept where `keep`; the decays are those of fill() where
 * `filled`. The last five arguments are constants. */
#define run_block X(run_block)
INLINE void run_block(const Block *k, int64_t n, const int count, const int mixed, const int filled, const int keep,
                      const int want) {
    /* copies, because a store of a vector could change *k for all that the compiler knows */
    const int64_t N = k->run->p->states, w = k->width, rate = k->rate;
    const int steps = k->steps;
    const uint8_t *const reset = k->reset;
    const vec *const dt = k->dt, *const x = k->x, *const second = k->second;
    vec *const y = k->y;
    const S *const A = k->A + n * rate;
    const Decay *const decays = k->decays;
    const R *const B = k->B + (n * PARTS) * (mixed ? LANES : 1), *const C = k->C + (n * PARTS) * (mixed ? LANES : 1);
    S *const kept = k->kept, h[NB], low[NB];
    const S zero = {0};
    for (int j = 0; j < count; j++) h[j] = k->h[n + j], low[j] = k->low[n + j];
    if (keep) for (int j = 0; j < count; j++) kept[j] = h[j];
    for (int i = 0; i < steps; i++) {
        vec sum = want ? y[i] : splat(0);
        if (reset && reset[i]) for (int j = 0; j < count; j++) h[j] = low[j] = zero;
        if (filled && second)
            for (int j = 0; j < count; j++) {
                h[j] = s_scale(h[j], second[i * w + j * rate]);
                low[j] = s_scale(low[j], second[i * w + j * rate]);
            }
        UNROLL for (int j = 0; j < count; j++) {
            const Decay d = filled ? decays[i * w + j * rate] : decay_of(dt[i], A[j]);
            h[j] = advance(d, h[j], &low[j], s_scale(coefficient(B, i * N + j, mixed), x[i]));
            if (want) sum += s_dot(coefficient(C, i * N + j, mixed), h[j]);
            if (keep) kept[(i + 1) * NB + j] = h[j];
        }
        if (want) y[i] = sum;
    }
    for (int j = 0; j < count; j++) k->h[n + j] = h[j], k->low[n + j] = low[j];
}

#define Adjoint X(adjoint)
typedef struct {
    const vec *dy;
    vec *dx, *ddt;           /* of Delta u, and of Delta but for what comes through Delta u */
    S *g, *low;              /* by state: cotangent of the state before the segment that follows */
    S *dB, *dC;              /* [step][NB] */
    double *dA;              /* [state or 1][part][lane] */
} Adjoint;

/* The adjoint scan g[t] = conj(C) dy + conj(exp(delta[t+1] A)) g[t+1] of the block, whose states are kept. */
#define adjoint_block X(adjoint_block)
INLINE void adjoint_block(const Block *k, const Adjoint *a, int64_t n, const int count, const int mixed) {
    const int64_t N = k->run->p->states, w = k->width, rate = k->rate;
    const uint8_t *const reset = k->reset;
    const vec *const dt = k->dt, *const x = k->x, *const dy = a->dy, *const second = k->second;
    vec *const dx = a->dx, *const ddt = a->ddt;
    const S *const A = k->A + n * rate, *const kept = k->kept, zero = {0};
    S *const dB = a->dB, *const dC = a->dC;
    const Decay *const decays = k->decays;
    const R *const B = k->B + (n * PARTS) * (mixed ? LANES : 1), *const C = k->C + (n * PARTS) * (mixed ? LANES : 1);
    S g[NB], low[NB], total[NB];
    for (int j = 0; j < count; j++) g[j] = a->g[n + j], low[j] = a->low[n + j], total[j] = zero;
    for (int i = k->steps - 1; i >= 0; i--) {
        vec x_sum = dx[i], dt_sum = ddt[i];
        if (second)
            for (int j = 0; j < count; j++) {
                g[j] = s_scale(g[j], second[(i + 1) * w + j * rate]);
                low[j] = s_scale(low[j], second[(i + 1) * w + j * rate]);
            }
        UNROLL for (int j = 0; j < count; j++) {
            g[j] = advance(conj_decay(decays[(i + 1) * w + j * rate]), g[j], &low[j],
                           s_scale(s_conj(coefficient(C, i * N + j, mixed)), dy[i]));
            dC[i * NB + j] = s_add(dC[i * NB + j], s_scale(s_conj(kept[(i + 1) * NB + j]), dy[i]));
            dB[i * NB + j] = s_add(dB[i * NB + j], s_scale(g[j], x[i]));
            x_sum += s_dot(s_conj(coefficient(B, i * N + j, mixed)), g[j]);
        }
        dx[i] = x_sum;
        if (reset && reset[i]) {
            for (int j = 0; j < count; j++) g[j] = low[j] = zero;
            continue;
        }
        UNROLL for (int j = 0; j < count; j++) {
            S before = decayed(decays[i * w + j * rate], kept[i * NB + j]);
            if (second) before = s_scale(before, second[i * w + j * rate]);
            const S q = s_mul(s_conj(before), g[j]);
            dt_sum += s_dot(s_conj(A[j * rate]), q);
            total[j] = s_add(total[j], s_scale(q, dt[i]));
        }
        ddt[i] = dt_sum;
    }
    for (int j = 0; j < count; j++) {
        if (second) g[j] = s_scale(g[j], second[j * rate]), low[j] = s_scale(low[j], second[j * rate]);
        a->g[n + j] = advance(conj_decay(decays[j * rate]), g[j], &low[j], zero);
        a->low[n + j] = low[j];
        const R *lanes = (const R *)&total[j];
        double *sum = a->dA + (n + j) * rate * PARTS * LANES;
        for (int i = 0; i < PARTS * LANES; i++) sum[i] += lanes[i];
    }
}

/* ---- whole passes */
#define Work X(work)
typedef struct {
    const Run *run;
    int64_t count, vectors, N;
    S *A, *h, *low;          /* [vector][state] */
    R *B, *C;
    uint8_t flags[SEG];
    R *dt, *u, *x, *y, *z, *slope;
    vec *second;
    Decay *decays;
    char *delta_from, *u_from, *z_from;
} Work;

#define prepare X(prepare)
static Work prepare(const Run *run, Arena *arena) {
    const Problem *p = run->p;
    const int64_t count = run->c1 - run->c0, V = (count + LANES - 1) / LANES, N = p->states;
    Work w = {.run = run, .count = count, .vectors = V, .N = N};
    w.A = take(arena, V * p->rate_states * sizeof(S));
    w.h = take(arena, V * N * sizeof(S));
    w.low = take(arena, V * N * sizeof(S));
    w.B = take(arena, SEG * N * PARTS * (run->mixed ? LANES : 1) * sizeof(R));
    w.C = take(arena, SEG * N * PARTS * (run->mixed ? LANES : 1) * sizeof(R));
    R **tiles[] = {&w.dt, &w.u, &w.x, &w.y, &w.z, &w.slope};
    for (int i = 0; i < 6; i++) *tiles[i] = take(arena, TILE * SEG * sizeof(R));
    w.decays = take(arena, TILE / LANES * (SEG + 1) * NB * sizeof(Decay));
    w.second = take(arena, TILE / LANES * (SEG + 1) * NB * sizeof(vec));
    if (!arena->memory) return w;
    const int64_t per = p->channels / p->rates;
    for (int64_t v = 0; v < V; v++)
        for (int64_t n = 0; n < p->rate_states; n++)
            for (int64_t j = 0; j < LANES; j++) {
                const int64_t c = run->c0 + v * LANES + j;
                R *to = (R *)(w.A + v * p->rate_states + n) + j;
                for (int part = 0; part < PARTS; part++)
                    to[part * LANES] = c < run->c1 ? (R)p->A[(c / per * p->rate_states + n) * PARTS + part] : 0;
            }
    w.delta_from = origin(p, &p->delta, run->b);
    w.u_from = origin(p, &p->u, run->b);
    w.z_from = origin(p, &p->z, run->b);
    return w;
}

/* A state array (batch, channel, state) to value and rounding error, and back. */
#define read_states X(read_states)
static void read_states(const Work *w, const View *from, S *h, S *low) {
    const Run *run = w->run;
    memset(h, 0, w->vectors * w->N * sizeof(S));
    memset(low, 0, w->vectors * w->N * sizeof(S));
    if (!from->data) return;
    for (int64_t c = 0; c < w->count; c++)
        for (int64_t n = 0; n < w->N; n++) {
            const char *p = from->data + run->b * from->stride[0] + (run->c0 + c) * from->stride[1] + n * from->stride[2];
            const int64_t at = c / LANES * w->N + n;
            for (int part = 0; part < PARTS; part++) {
                const double x = part ? imag_of(p, from->type) : real_of(p, from->type);
                const R high = (R)x;
                ((R *)(h + at))[part * LANES + c % LANES] = high;
                ((R *)(low + at))[part * LANES + c % LANES] = isfinite(high) ? (R)(x - high) : 0;
            }
        }
}

#define write_states X(write_states)
static void write_states(const Work *w, const View *to, const S *h, const S *low) {
    const Run *run = w->run;
    if (!to->data) return;
    for (int64_t c = 0; c < w->count; c++)
        for (int64_t n = 0; n < w->N; n++) {
            char *p = to->data + run->b * to->stride[0] + (run->c0 + c) * to->stride[1] + n * to->stride[2];
            double x[2] = {0, 0};
            for (int part = 0; part < PARTS; part++) {
                const int64_t at = part * LANES + c % LANES, i = c / LANES * w->N + n;
                const double high = ((const R *)(h + i))[at], rest = ((const R *)(low + i))[at];
                x[part] = ARITHMETIC == 0 && isfinite(high) ? high + rest : high;
            }
            put(p, to->type, x[0], x[1]);
        }
}

/* Where the checkpoint of state n of vector v lies; planes of channels for real and imaginary part. */
#define checkpoint X(checkpoint)
INLINE R *checkpoint(const Work *w, int64_t segment, int64_t v, int64_t n, int part) {
    const Problem *p = w->run->p;
    const int64_t segments = (p->length + SEG - 1) / SEG;
    return (R *)p->kept + (((w->run->b * segments + segment) * w->N + n) * PARTS + part) * p->channels + w->run->c0 + v * LANES;
}

#define read_flags X(read_flags)
static const uint8_t *read_flags(Work *w, int64_t t0, int steps) {
    const Problem *p = w->run->p;
    const char *from = origin(p, &p->reset, w->run->b);
    int some = 0;
    if (from) for (int i = 0; i < steps; i++) some |= w->flags[i] = from[(t0 + i) * pace(p, &p->reset)] != 0;
    return some ? w->flags : NULL;
}

/* Delta, u and Delta u of a tile; the derivative of softplus to `slope` where that is not NULL. */
#define stage_inputs X(stage_inputs)
static void stage_inputs(Work *w, int64_t t0, int steps, int64_t c, int64_t count, R *slope) {
    const Problem *p = w->run->p;
    const int64_t d_step = pace(p, &p->delta), u_step = pace(p, &p->u), per = p->channels / p->steps;
    stage(w->dt, w->delta_from + t0 * d_step, p->delta.type, d_step, p->delta.stride[2], per, c, count, steps);
    stage(w->u, w->u_from + t0 * u_step, p->u.type, u_step, p->u.stride[2], 1, c, count, steps);
    for (int64_t v = 0; v * LANES < count; v++) {
        vec *dt = (vec *)w->dt + v * SEG, *u = (vec *)w->u + v * SEG, *x = (vec *)w->x + v * SEG, bias = splat(0), s;
        if (p->bias)
            for (int64_t j = 0; j < LANES && v * LANES + j < count; j++) bias[j] = (R)p->bias[(c + v * LANES + j) / per];
        for (int i = 0; i < steps; i++) {
            if (p->bias) dt[i] += bias;
            if (p->softplus) {
                dt[i] = log_one_plus_exp(dt[i], &s);
                if (slope) ((vec *)slope)[v * SEG + i] = s;
            }
            x[i] = dt[i] * u[i];
        }
    }
}

#define skip_of X(skip_of)
INLINE vec skip_of(const Problem *p, int64_t c, int64_t count) {
    vec D = splat(0);
    if (p->D) for (int64_t j = 0; j < LANES && j < count; j++) D[j] = (R)p->D[(c + j) / (p->channels / p->skips)];
    return D;
}

/* The largest |Delta| of the segment, by lane; NaN where one is not finite. */
#define largest X(largest)
INLINE vec largest(const vec *dt, int steps) {
    vec most = splat(0), poison = splat(0);
    for (int i = 0; i < steps; i++) {
        const vec x = magnitude(dt[i]);
        most = choose(x > most, x, most);
        poison += x * splat(0);
    }
    return most + poison;
}

#define needs_care X(needs_care)
INLINE int needs_care(const Block *k, vec most, int64_t n, int count) {
    ivec care = is_careful(most, k->A[n * k->rate]);
    for (int j = 1; j < (k->rate ? count : 1); j++) care |= is_careful(most, k->A[(n + j) * k->rate]);
    return any(care);
}

/* Hand the kept states of a block to the array of all states. */
#define emit X(emit)
static void emit(const Block *k, int64_t t0, int64_t c, int64_t n, int count) {
    const Run *run = k->run;
    const View *to = &run->p->all;
    for (int i = 0; i < k->steps; i++) {
        char *row = origin(run->p, to, run->b) + (t0 + i) * pace(run->p, to);
        for (int64_t lane = 0; lane < LANES && c + lane < run->c1; lane++)
            for (int j = 0; j < count; j++) {
                const R *from = (const R *)(k->kept + (i + 1) * NB + j) + lane;
                put(row + (c + lane) * to->stride[2] + (n + j) * to->stride[3], to->type, from[0], from[(PARTS - 1) * LANES]);
            }
    }
}

static void X(forward)(const Run *run, Arena *arena) {
    const Problem *p = run->p;
    Work w = prepare(run, arena);
    S *kept = take(arena, (SEG + 1) * NB * sizeof(S));
    if (!arena->memory) return;
    const int64_t N = w.N;
    read_states(&w, &p->h0, w.h, w.low);
    for (int64_t t0 = p->start; t0 < p->stop; t0 += SEG) {
        const int steps = (int)least(SEG, p->stop - t0);
        const uint8_t *flags = read_flags(&w, t0, steps);
        if (!run->mixed) stage_shared(w.B, run, &p->B, t0, steps), stage_shared(w.C, run, &p->C, t0, steps);
        if (p->kept)
            for (int64_t n = 0; n < N; n++)
                for (int part = 0; part < PARTS; part++)
                    for (int64_t v = 0; v < w.vectors; v++)
                        store(checkpoint(&w, t0 / SEG, v, n, part), ((vec *)(w.h + v * N + n))[part], w.count - v * LANES);
        for (int64_t c = run->c0; c < run->c1; c += TILE) {
            const int64_t count = least(TILE, run->c1 - c);
            stage_inputs(&w, t0, steps, c, count, NULL);
            if (p->z.data)
                stage(w.z, w.z_from + t0 * pace(p, &p->z), p->z.type, pace(p, &p->z), p->z.stride[2], 1, c, count, steps);
            for (int64_t v = 0; v * LANES < count; v++) {
                const int64_t vector = (c - run->c0) / LANES + v;
                vec *y = (vec *)w.y + v * SEG;
                Block k = {
                    .run = run, .steps = steps, .reset = flags, .dt = (vec *)w.dt + v * SEG, .x = (vec *)w.x + v * SEG,
                    .y = y, .B = w.B, .C = w.C, .A = w.A + vector * p->rate_states, .rate = p->rate_states == N,
                    .width = p->rate_states == N ? NB : 1, .decays = w.decays, .h = w.h + vector * N,
                    .low = w.low + vector * N, .kept = kept,
                };
                const vec most = largest(k.dt, steps);
                for (int i = 0; i < steps; i++) y[i] = splat(0);
                if (run->mixed)
                    stage_mixed(w.B, run, &p->B, t0, steps, c + v * LANES), stage_mixed(w.C, run, &p->C, t0, steps, c + v * LANES);
                if (!k.rate && N) fill(&k, w.second, needs_care(&k, most, 0, 1), 0, 1);
                for (int64_t n = 0; n < N;) {
                    const int block = N - n >= NB ? NB : 1, care = k.rate && needs_care(&k, most, n, block);
                    if (k.rate && (care || p->all.data)) fill(&k, w.second, care, n, block);
#define RUN(count, mixed) \
    if (p->all.data) run_block(&k, n, count, mixed, 1, 1, 1); \
    else if (care || !k.rate) run_block(&k, n, count, mixed, 1, 0, 1); \
    else run_block(&k, n, count, mixed, 0, 0, 1);
                    if (block == NB && !run->mixed) { RUN(NB, 0) }
                    else if (block == NB) { RUN(NB, 1) }
                    else if (!run->mixed) { RUN(1, 0) }
                    else { RUN(1, 1) }
#undef RUN
                    if (p->all.data) emit(&k, t0, c + v * LANES, n, block);
                    n += block;
                }
                const vec D = skip_of(p, c + v * LANES, count - v * LANES), scale = splat((R)p->scale);
                const vec *u = (vec *)w.u + v * SEG, *z = (vec *)w.z + v * SEG;
                vec slope;
                for (int i = 0; i < steps; i++) {
                    if (p->scale != 1) y[i] *= scale;
                    if (p->D) y[i] += D * u[i];
                    if (p->z.data) y[i] *= silu(z[i], &slope);
                }
            }
            unstage(w.y, origin(p, &p->y, run->b) + t0 * pace(p, &p->y), p->y.type, pace(p, &p->y), p->y.stride[2], c, count,
                    steps);
        }
    }
    write_states(&w, &p->last, w.h, w.low);
}

/* Sums over the lanes, added to `to` [step][state][part]; `from` [step][NB][part][lane] is overwritten. */
#define add_sums X(add_sums)
INLINE void add_sums(double *to, vec *from, int64_t N, int64_t n, int count) {
    R total[SEG * NB * PARTS];
    for (int row = 0; row < SEG * NB * PARTS; row += LANES) store(total + row, sums(from + row), LANES);
    if (count == NB)
        for (int i = 0; i < SEG; i++)
            for (int j = 0; j < NB * PARTS; j++) to[(i * N + n) * PARTS + j] += total[i * NB * PARTS + j];
    else
        for (int i = 0; i < SEG; i++)
            for (int j = 0; j < PARTS; j++) to[(i * N + n) * PARTS + j] += total[i * NB * PARTS + j];
}

#define write_sums X(write_sums)
static void write_sums(const Run *run, const View *to, const double *from, int64_t t0, int steps) {
    const int64_t N = run->p->states;
    for (int i = 0; i < steps; i++) {
        char *row = origin(run->p, to, run->b) + (t0 + i) * pace(run->p, to) + run->group * to->stride[2] + run->cut * to->stride[4];
        for (int64_t n = 0; n < N; n++) {
            const double *x = from + (i * N + n) * PARTS;
            put(row + n * to->stride[3], to->type, x[0], x[PARTS - 1]);
        }
    }
}

/* The same where each lane has its own group: groups narrower than a vector are summed in memory. */
#define scatter X(scatter)
static void scatter(const Run *run, const View *to, const S *from, int64_t t0, int steps, int64_t c, int64_t n, int count) {
    const int64_t per = run->p->channels / run->p->groups;
    for (int64_t lane = 0; lane < LANES && c + lane < run->c1; lane++)
        for (int i = 0; i < steps; i++) {
            char *row = origin(run->p, to, run->b) + (t0 + i) * pace(run->p, to) + (c + lane) / per * to->stride[2];
            for (int j = 0; j < count; j++) {
                const R *x = (const R *)(from + i * NB + j) + lane;
                char *p = row + (n + j) * to->stride[3];
                put(p, to->type, real_of(p, to->type) + x[0], imag_of(p, to->type) + x[(PARTS - 1) * LANES]);
            }
        }
}

#define write_tile X(write_tile)
static void write_tile(const Run *run, const View *to, const R *from, int64_t t0, int64_t c, int64_t count, int steps) {
    const Problem *p = run->p;
    unstage(from, origin(p, to, run->b) + t0 * pace(p, to), to->type, pace(p, to), to->stride[2], c, count, steps);
}

static void X(backward)(const Run *run, Arena *arena) {
    const Problem *p = run->p;
    Work w = prepare(run, arena);
    const int64_t N = w.N, V = w.vectors, rates = p->rate_states;
    S *kept = take(arena, (SEG + 1) * NB * sizeof(S)), *h = take(arena, NB * sizeof(S)), *low = take(arena, NB * sizeof(S));
    S *dB = take(arena, SEG * NB * sizeof(S)), *dC = take(arena, SEG * NB * sizeof(S));
    R *dy = take(arena, TILE * SEG * sizeof(R)), *core = take(arena, TILE * SEG * sizeof(R));
    R *dx = take(arena, TILE * SEG * sizeof(R)), *ddt = take(arena, TILE * SEG * sizeof(R));
    R *gate = take(arena, TILE * SEG * sizeof(R));
    double *B_sums = take(arena, SEG * N * PARTS * sizeof(double)), *C_sums = take(arena, SEG * N * PARTS * sizeof(double));
    double *dA = take(arena, V * rates * PARTS * LANES * sizeof(double));
    double *dD = take(arena, V * LANES * sizeof(double)), *dbias = take(arena, V * LANES * sizeof(double));
    if (!arena->memory) return;
    memset(dA, 0, V * rates * PARTS * LANES * sizeof(double));
    memset(dD, 0, V * LANES * sizeof(double));
    memset(dbias, 0, V * LANES * sizeof(double));
    /* w.h and w.low hold the cotangents of the states */
    read_states(&w, &p->dlast, w.h, w.low);
    for (int64_t s = (p->length + SEG - 1) / SEG - 1; s >= 0; s--) {
        const int64_t t0 = s * SEG;
        const int steps = (int)least(SEG, p->length - t0);
        const uint8_t *flags = read_flags(&w, t0, steps);
        if (!run->mixed) stage_shared(w.B, run, &p->B, t0, steps), stage_shared(w.C, run, &p->C, t0, steps);
        memset(B_sums, 0, SEG * N * PARTS * sizeof(double));
        memset(C_sums, 0, SEG * N * PARTS * sizeof(double));
        for (int64_t c = run->c0; c < run->c1; c += TILE) {
            const int64_t count = least(TILE, run->c1 - c), first = (c - run->c0) / LANES;
            const int64_t vectors = (count + LANES - 1) / LANES;
            stage_inputs(&w, t0, steps, c, count, w.slope);
            stage(dy, origin(p, &p->dy, run->b) + t0 * pace(p, &p->dy), p->dy.type, pace(p, &p->dy), p->dy.stride[2], 1, c,
                  count, steps);
            if (p->z.data) {
                stage(w.z, w.z_from + t0 * pace(p, &p->z), p->z.type, pace(p, &p->z), p->z.stride[2], 1, c, count, steps);
                memset(w.y, 0, TILE * SEG * sizeof(R));
            }
            memset(dx, 0, TILE * SEG * sizeof(R));
            memset(ddt, 0, TILE * SEG * sizeof(R));
            for (int64_t v = 0; v < vectors; v++)
                for (int64_t i = v * SEG; i < v * SEG + steps; i++) {
                    vec *to = (vec *)core + i, slope;
                    *to = ((vec *)dy)[i];
                    if (p->z.data) {
                        *to *= silu(((vec *)w.z)[i], &slope);
                        /* dz but for the factor that the pass below finds */
                        ((vec *)gate)[i] = ((vec *)dy)[i] * slope;
                        ((vec *)dy)[i] = *to;
                    }
                    if (p->scale != 1) *to *= splat((R)p->scale);
                }
            vec most[TILE / LANES], *seconds[TILE / LANES] = {0};
            Block k = {.run = run, .steps = steps, .reset = flags, .B = w.B, .C = w.C, .rate = rates == N,
                       .width = rates == N ? NB : 1, .kept = kept};
            for (int64_t v = 0; v < vectors; v++) {
                k.dt = (vec *)w.dt + v * SEG;
                k.A = w.A + (first + v) * rates;
                most[v] = largest(k.dt, steps);
                if (k.rate || !N) continue;
                k.decays = w.decays + v * (SEG + 1);
                fill(&k, w.second + v * (SEG + 1), needs_care(&k, most[v], 0, 1), 0, 1);
                seconds[v] = k.second;
            }
            for (int64_t n = 0; n < N;) {
                const int block = N - n >= NB ? NB : 1;
                memset(dB, 0, SEG * NB * sizeof(S));
                memset(dC, 0, SEG * NB * sizeof(S));
                for (int64_t v = 0; v < vectors; v++) {
                    k.dt = (vec *)w.dt + v * SEG, k.x = (vec *)w.x + v * SEG, k.y = (vec *)w.y + v * SEG;
                    k.A = w.A + (first + v) * rates;
                    for (int j = 0; j < block; j++)
                        for (int part = 0; part < PARTS; part++)
                            ((vec *)(h + j))[part] = load(checkpoint(&w, s, first + v, n + j, part), count - v * LANES);
                    memset(low, 0, NB * sizeof(S));
                    k.h = h - n, k.low = low - n;
                    if (run->mixed) {
                        stage_mixed(w.B, run, &p->B, t0, steps, c + v * LANES);
                        stage_mixed(w.C, run, &p->C, t0, steps, c + v * LANES);
                    }
                    k.decays = k.rate ? w.decays : w.decays + v * (SEG + 1);
                    k.second = seconds[v];
                    if (k.rate) fill(&k, w.second, needs_care(&k, most[v], n, block), n, block);
                    const Adjoint a = {
                        .dy = (vec *)core + v * SEG, .dx = (vec *)dx + v * SEG, .ddt = (vec *)ddt + v * SEG,
                        .g = w.h + (first + v) * N, .low = w.low + (first + v) * N, .dB = dB, .dC = dC,
                        .dA = dA + (first + v) * rates * PARTS * LANES,
                    };
#define RUN(count, mixed) \
    if (p->z.data) run_block(&k, n, count, mixed, 1, 1, 1); else run_block(&k, n, count, mixed, 1, 1, 0); \
    adjoint_block(&k, &a, n, count, mixed);
                    if (block == NB && !run->mixed) { RUN(NB, 0) }
                    else if (block == NB) { RUN(NB, 1) }
                    else if (!run->mixed) { RUN(1, 0) }
                    else { RUN(1, 1) }
#undef RUN
                    if (run->mixed) {
                        scatter(run, &p->dB, dB, t0, steps, c + v * LANES, n, block);
                        scatter(run, &p->dC, dC, t0, steps, c + v * LANES, n, block);
                        memset(dB, 0, SEG * NB * sizeof(S));
                        memset(dC, 0, SEG * NB * sizeof(S));
                    }
                }
                if (!run->mixed) {
                    add_sums(B_sums, (vec *)dB, N, n, block);
                    add_sums(C_sums, (vec *)dC, N, n, block);
                }
                n += block;
            }
            for (int64_t v = 0; v < vectors; v++) {
                const vec D = skip_of(p, c + v * LANES, count - v * LANES), scale = splat((R)p->scale);
                vec D_sum = splat(0), bias_sum = splat(0);
                for (int64_t i = v * SEG; i < v * SEG + steps; i++) {
                    vec *to_x = (vec *)dx + i, *to_dt = (vec *)ddt + i;
                    const vec u = ((vec *)w.u)[i], through_u = *to_x;
                    if (p->z.data) ((vec *)gate)[i] *= scale * ((vec *)w.y)[i] + D * u;
                    *to_x = through_u * ((vec *)w.dt)[i] + D * ((vec *)dy)[i];
                    *to_dt += through_u * u;
                    if (p->softplus) *to_dt *= ((vec *)w.slope)[i];
                    D_sum += ((vec *)dy)[i] * u;
                    bias_sum += *to_dt;
                }
                for (int j = 0; j < LANES; j++) {
                    dD[(first + v) * LANES + j] += D_sum[j];
                    dbias[(first + v) * LANES + j] += bias_sum[j];
                }
            }
            write_tile(run, &p->du, dx, t0, c, count, steps);
            write_tile(run, &p->ddelta, ddt, t0, c, count, steps);
            if (p->z.data) write_tile(run, &p->dz, gate, t0, c, count, steps);
        }
        if (!run->mixed) write_sums(run, &p->dB, B_sums, t0, steps), write_sums(run, &p->dC, C_sums, t0, steps);
    }
    write_states(&w, &p->dh0, w.h, w.low);
    for (int64_t c = 0; c < w.count; c++) {
        const int64_t at = run->b * p->channels + run->c0 + c;
        for (int64_t i = 0; i < rates * PARTS; i++) p->dA[at * rates * PARTS + i] = dA[(c / LANES * rates * PARTS + i) * LANES + c % LANES];
        if (p->dD) p->dD[at] = dD[c];
        if (p->dbias) p->dbias[at] = dbias[c];
    }
}

#undef GLUE
#undef GLUE_
#undef X
#undef R
#undef INTEGER
#undef R_TYPE
#undef LANES
#undef MAGIC
#undef MANTISSA
#undef LIMIT
#undef LN2_HIGH
#undef LN2_LOW
#undef EXPM1
#undef ATANH
#undef PARTS
#endif
