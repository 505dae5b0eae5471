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
 * Two loops do the work of a block: `fill` computes the decays of 16 steps, four side by side, and `run_block` runs the
 * recurrence of NB states in PAIR vectors at once; one chain alone would wait for its own results most of the time.
 *
 * The file includes itself: the part below "the body" is compiled once for each arithmetic (float, double, complex
 * double) and instruction set. In float, each state is a pair of numbers, value and rounding error, and the decay is
 * split into 2^k (1 + q) with q from an expm1: a slow system (delta A = -1e-6) forgets nothing over a million steps.
 * Complex states are double whatever the inputs, because the phase of a slow oscillation needs it.
 *
 * Sums over channels are cut by the shape of the problem alone, never by the number of threads: results are repeatable.
 */
#ifndef ISA
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O2") /* O3 takes twice as long to compile and gains nothing: what must be unrolled says so */
#endif
#include "common.h"

#define SEG 16   /* steps between two checkpoints */
#define TILE 64  /* channels staged at once */
#define NB 4     /* states in registers; memory for them is padded to a multiple of it */
#define SIDE 4   /* steps whose elementary functions are computed side by side */
#define EACH(...) do { { enum { i = 0 }; __VA_ARGS__ } { enum { i = 1 }; __VA_ARGS__ } \
                       { enum { i = 2 }; __VA_ARGS__ } { enum { i = 3 }; __VA_ARGS__ } } while (0)
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define UNROLL _Pragma("GCC unroll 16") /* loops of constant length, over registers */
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (ivec){__VA_ARGS__})
#endif

/* Chains of operations written side by side stay side by side in the machine code, so that one computes while another
 * waits: the compiler takes v to change here. */
#if defined(__SSE__)
#define HOLD(v) __asm__("" : "+v"(v))
#elif defined(__aarch64__)
#define HOLD(v) __asm__("" : "+w"(v))
#else
#define HOLD(v)
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

#define SELF "kernel.c"
#include "targets.h"
#define KINDS(f, isa) {f(float_##isa), f(double_##isa), f(complex_##isa)}

typedef void Pass(const Run *, Arena *);
#define FORWARD(x) forward_##x
#define BACKWARD(x) backward_##x
static Pass *const forward_passes[][3] = {FOR_EACH_ISA(KINDS, FORWARD)};
static Pass *const backward_passes[][3] = {FOR_EACH_ISA(KINDS, BACKWARD)};

const char *ssm_instruction_set(int number) { return instruction_set(number); }

int64_t ssm_problem_bytes(void) { return sizeof(Problem); }

/* All passes of one item of work. */
static void item_of_work(const Problem *p, int64_t item, Pass *pass, Arena *arena, int narrow) {
    const int64_t cut = item % p->cuts, part = item / p->cuts % p->parts, b = item / p->cuts / p->parts;
    const int64_t g0 = p->groups * part / p->parts, g1 = p->groups * (part + 1) / p->parts;
    const int64_t per = p->channels / p->groups;
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

#if ARITHMETIC == 2
#define PAIR 1 /* vectors of channels side by side */
#else
#define PAIR 2
#endif

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
    int64_t parts[BYTES / 8], found = 0;
    memcpy(parts, &mask, BYTES);
    for (int i = 0; i < BYTES / 8; i++) found |= parts[i];
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
#define EXP2M1 {0.693147181f, 0.240226498f, 0.0555035743f, 0.00961823750f, 0.00133907355f, 0.000154035124f}
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

/* Below, arrays of SIDE vectors. */
#define polynomial X(polynomial)
INLINE void polynomial(const vec *x, const R *c, int count, vec *p) {
    EACH(p[i] = x[i] * splat(c[count - 1]) + splat(c[count - 2]); HOLD(p[i]););
    UNROLL for (int term = count - 3; term >= 0; term--) {
        EACH(p[i] = p[i] * x[i] + splat(c[term]););
        EACH(HOLD(p[i]););
    }
}

/* 2^k and expm1(r), for |m| <= LIMIT. */
#define exponential X(exponential)
INLINE void exponential(const vec *m, vec *scale, vec *q) {
    static const R c[] = EXPM1;
    vec r[SIDE], p[SIDE];
    EACH(const vec t = m[i] * splat((R)1.4426950408889634) + splat(MAGIC); const vec k = t - splat(MAGIC);
         r[i] = (m[i] - k * splat(LN2_HIGH)) - k * splat(LN2_LOW);
         scale[i] = (vec)((ivec)t << MANTISSA););
    polynomial(r, c, sizeof c / sizeof *c, p);
    EACH(q[i] = p[i] * (r[i] * r[i]) + r[i];);
}

/* exp(x), x limited to where that is a normal number; NaN stays NaN. */
#define exp_limited X(exp_limited)
INLINE void exp_limited(const vec *x, vec *e) {
    vec m[SIDE], scale[SIDE], q[SIDE];
    EACH(m[i] = choose(x[i] < splat(-LIMIT), splat(-LIMIT), x[i]););
    EACH(m[i] = choose(m[i] > splat(LIMIT), splat(LIMIT), m[i]););
    exponential(m, scale, q);
    EACH(e[i] = scale[i] * q[i] + scale[i];);
}

/* log(1 + exp(x)) = max(x, 0) + log1p(v), v = exp(-|x|), log1p(v) = 2 atanh(v / (2 + v)): no digit is lost for small
 * results. The derivative is the sigmoid; computed where `slope` is not NULL. */
#define log_one_plus_exp X(log_one_plus_exp)
INLINE void log_one_plus_exp(vec *x, vec *slope) {
    static const R c[] = ATANH;
    vec v[SIDE], s[SIDE], s2[SIDE], p[SIDE];
    EACH(v[i] = -magnitude(x[i]););
    exp_limited(v, v);
    EACH(v[i] = choose(magnitude(x[i]) > splat(LIMIT), splat(0), v[i]););
    EACH(s[i] = v[i] / (splat(2) + v[i]););
    EACH(s2[i] = s[i] * s[i];);
    polynomial(s2, c, sizeof c / sizeof *c, p);
    if (slope) EACH(const vec inverse = splat(1) / (splat(1) + v[i]);
                    slope[i] = choose(x[i] < splat(0), v[i] * inverse, inverse););
    EACH(p[i] = p[i] * (s2[i] * s[i]) + s[i];);
    EACH(x[i] = choose(x[i] > splat(0), x[i], splat(0)) + (p[i] + p[i]););
}

/* z sigmoid(z), and its derivative where `slope` is not NULL. */
#define silu X(silu)
INLINE void silu(const vec *z, vec *to, vec *slope) {
    vec e[SIDE], s[SIDE];
    EACH(e[i] = -z[i];);
    exp_limited(e, e);
    EACH(s[i] = splat(1) / (splat(1) + e[i]););
    if (slope) EACH(slope[i] = s[i] * (splat(1) + z[i] * (e[i] * s[i])););
    EACH(to[i] = z[i] * s[i];);
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
#define conj_decay X(conj_decay)
#define decays_of X(decays_of)
#define scaled X(scaled)
#define decayed X(decayed)
#define advance X(advance)
#define recall X(recall)
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

/* The decays of SIDE steps, NB apart. In float, A is in units of ln 2, so that r = x A - k is one operation. */
INLINE void decays_of(const vec *x, S A, Decay *to) {
    vec q[SIDE];
#if ARITHMETIC == 0
    static const R c[] = EXP2M1;
    vec r[SIDE];
    EACH(const vec t = x[i] * A + splat(MAGIC); to[i * NB].scale = (vec)((ivec)t << MANTISSA);
         r[i] = x[i] * A - (t - splat(MAGIC)););
    polynomial(r, c, sizeof c / sizeof *c, q);
    EACH(to[i * NB].q = q[i] * r[i];);
#else
    vec m[SIDE], scale[SIDE];
    EACH(m[i] = x[i] * A;);
    exponential(m, scale, q);
    EACH((to[i * NB] = (Decay){scale[i], q[i]}););
#endif
}

INLINE Decay conj_decay(Decay d) { return d; }
/* exp(m) h in two steps, and exp(m) h + x from the first. */
INLINE S scaled(Decay d, S h) { return d.scale * h; }
INLINE S decayed(Decay d, S s) { return d.q * s + s; }
INLINE S recall(Decay d, S s, S x) { return s + (d.q * s + x); }

/* recall(d, s, x) where *low + h is the state: the rounding error of each sum is kept (Kahan's
 * summation). */
INLINE S advance(Decay d, S s, S *low, S x) {
#if ARITHMETIC == 0
    const vec change = d.scale * *low + (d.q * s + x), sum = s + change;
    *low = change - (sum - s);
    return sum;
#else
    (void)low;
    return recall(d, s, x);
#endif
}

/* The largest |x A| that decays_of takes, |x| <= most, is left behind; or is NaN. */
INLINE ivec is_careful(vec most, S A) {
    return ~(most * magnitude(A) <= splat(ARITHMETIC ? LIMIT : LIMIT * 1.4426950f));
}

/* Any x: 0 where exp(x A) is negligible; where it is larger than R can hold, a factor and, in *second, another one, so
 * that a state of zero stays zero and a tiny one finite. */
INLINE Decay careful_decay(vec x, S A, vec *second) {
    Decay d;
    vec m = x * A, q[SIDE], scale[SIDE], side[SIDE];
    const ivec low = m < splat(-LIMIT), high = m > splat(LIMIT);
    m = choose(low, splat(0), choose(m > splat(2 * LIMIT), splat(2 * LIMIT), m));
    m = choose(high, m * splat((R)0.5), m);
    EACH(side[i] = m;);
    exponential(side, scale, q);
    *second = choose(high, *scale * *q + *scale, splat(1));
    d.scale = choose(low, splat(0), *scale);
    d.q = *q;
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
INLINE void decays_of(const vec *x, S A, Decay *to) {
    static const R sine[] = {-1.0 / 6, 1.0 / 120, -1.0 / 5040, 1.0 / 362880, -1.0 / 39916800, 1.0 / 6227020800.0,
                             -1.0 / 1307674368000.0};
    static const R cosine[] = {-0.5, 1.0 / 24, -1.0 / 720, 1.0 / 40320, -1.0 / 3628800, 1.0 / 479001600,
                               -1.0 / 87178291200.0, 1.0 / 20922789888000.0};
    vec m[SIDE], size[SIDE], q[SIDE], r[SIDE], r2[SIDE], s[SIDE], c[SIDE];
    ivec turn[SIDE];
    EACH(m[i] = x[i] * A.re;);
    exponential(m, size, q);
    EACH(size[i] = size[i] * q[i] + size[i];);
    EACH(const vec angle = x[i] * A.im; const vec t = angle * splat(0.63661977236758134) + splat(MAGIC - 1023);
         const vec k = t - splat(MAGIC - 1023); turn[i] = (ivec)t;
         r[i] = angle - k * splat(1.57079632673412561417e+00);
         r[i] = r[i] - k * splat(6.07710050630396597660e-11);
         r[i] = r[i] - k * splat(2.02226624879595063154e-21);
         r2[i] = r[i] * r[i];);
    polynomial(r2, sine, 7, s);
    polynomial(r2, cosine, 8, c);
    EACH(s[i] = s[i] * r2[i] * r[i] + r[i]; c[i] = c[i] * r2[i] + splat(1););
    EACH(const ivec swap = -(turn[i] & 1); const ivec minus_s = (turn[i] & 2) << 62;
         const ivec minus_c = ((turn[i] + 1) & 2) << 62;
         to[i * NB].re = size[i] * (vec)((ivec)choose(swap, s[i], c[i]) ^ minus_c);
         to[i * NB].im = size[i] * (vec)((ivec)choose(swap, c[i], s[i]) ^ minus_s););
}

INLINE Decay conj_decay(Decay d) { return s_conj(d); }
INLINE S scaled(Decay d, S h) {
    (void)d;
    return h;
}
INLINE S decayed(Decay d, S s) { return s_mul(d, s); }
INLINE S recall(Decay d, S s, S x) { return s_add(s_mul(d, s), x); }
INLINE S advance(Decay d, S s, S *low, S x) {
    (void)low;
    return recall(d, s, x);
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

/* Vectors for so many channels, in pairs. */
#define vectors_of X(vectors_of)
INLINE int64_t vectors_of(int64_t count) { return (count + PAIR * LANES - 1) / (PAIR * LANES) * PAIR; }

/* Channels first .. first + count of an array (time, channel) to [vector][step][lane], zeros after the last channel.
 * `per` channels share one entry (heads). */
#define stage X(stage)
static void stage(R *to, const char *from, int64_t type, int64_t step, int64_t stride, int64_t per, int64_t first,
                  int64_t count, int steps) {
    const int64_t vectors = vectors_of(count);
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

/* B or C of one segment for one group, [step][state][part]; zeros after the last state. */
#define stage_shared X(stage_shared)
static void stage_shared(R *to, const Run *run, const View *v, int64_t t0, int steps) {
    const int64_t N = run->p->states, padded = (N + NB - 1) / NB * NB;
    for (int i = 0; i < steps; i++) {
        const char *row = origin(run->p, v, run->b) + (t0 + i) * pace(run->p, v) + run->group * v->stride[2];
        for (int64_t n = 0; n < padded; n++, to += PARTS) {
            const char *p = row + n * v->stride[3];
            to[0] = n < N ? (R)real_of(p, v->type) : 0;
            if (PARTS == 2) to[1] = n < N ? (R)imag_of(p, v->type) : 0;
        }
    }
}

/* The same where each lane has its own: [vector of a pair][step][state][part][lane]. */
#define stage_mixed X(stage_mixed)
static void stage_mixed(R *to, const Run *run, const View *v, int64_t t0, int steps, int64_t c) {
    const int64_t N = run->p->states, padded = (N + NB - 1) / NB * NB, per = run->p->channels / run->p->groups;
    for (int64_t j = 0; j < PAIR * LANES; j++) {
        const int64_t group = least(c + j, run->c1 - 1) / per;
        for (int i = 0; i < steps; i++) {
            const char *row = origin(run->p, v, run->b) + (t0 + i) * pace(run->p, v) + group * v->stride[2];
            for (int64_t n = 0; n < padded; n++) {
                const char *p = row + n * v->stride[3];
                R *at = to + (((j / LANES * SEG + i) * padded + n) * PARTS) * LANES + j % LANES;
                at[0] = n < N ? (R)real_of(p, v->type) : 0;
                if (PARTS == 2) at[LANES] = n < N ? (R)imag_of(p, v->type) : 0;
            }
        }
    }
}

/* ---- a segment of PAIR vectors of channels, `count` <= NB states from n. There is nothing to compute for those that pad:
 * zero times an infinite input would be NaN. Where count is the constant NB the tests of it vanish. */
#define Block X(block)
typedef struct {
    const Run *run;
    int steps;
    const uint8_t *reset;    /* by step, or NULL */
    const vec *dt, *x;       /* Delta and Delta u, [vector][SEG] */
    vec *y;
    const R *B, *C;
    const S *A, *units;      /* [vector][state or 1]; A as decays_of takes it */
    int64_t N;               /* states, padded */
    int rate;                /* 0 where one A serves all states */
    Decay *decays;           /* [vector][step][NB], and after the last step one that changes nothing */
    vec *second;             /* as decays, or NULL */
    int careful;             /* some decay of the segment may need care */
    S *h, *low;              /* [vector][state] */
    S *kept;                 /* [vector][step][NB]: the states, that before the first step included */
} Block;

#define coefficient X(coefficient)
INLINE S coefficient(const R *p, int64_t i, int mixed) {
    return mixed ? ((const S *)p)[i] : s_splat(p + i * PARTS);
}

#define rate_of X(rate_of)
INLINE S rate_of(const Block *k, const S *A, int v, int64_t n) { return A[k->rate ? v * k->N + n : v]; }

/* Whether the decays of `count` states need care for some lane, with |Delta| <= most. */
#define needs_care X(needs_care)
static int needs_care(const Block *k, const vec *most, int64_t n, int64_t count) {
    ivec care = {0};
    for (int v = 0; v < PAIR; v++)
        for (int j = 0; j < (k->rate ? count : 1); j++) care |= is_careful(most[v], rate_of(k, k->units, v, n + j));
    return any(care);
}

#define fill_with_care X(fill_with_care)
static void fill_with_care(Block *k, vec *memory, int64_t n, int count) {
    for (int v = 0; v < PAIR; v++)
        for (int j = 0; j < count; j++)
            for (int i = 0; i < k->steps; i++) {
                const int64_t at = (v * (SEG + 1) + i) * NB + j;
                k->decays[at] = careful_decay(k->dt[v * SEG + i], rate_of(k, k->A, v, n + j), &memory[at]);
                if (any(memory[at] != splat(1))) k->second = memory;
            }
}

/* The decays of the block; memory may become k->second. Those after the last step hold anything, but that the first of
 * them changes nothing if `last`. */
#define fill X(fill)
INLINE void fill(Block *k, vec *memory, const vec *most, int64_t n, int count, const int last) {
    k->second = NULL;
    if (k->careful && needs_care(k, most, n, count)) fill_with_care(k, memory, n, count);
    else
        for (int v = 0; v < PAIR; v++)
            for (int j = 0; j < (k->rate ? count : 1); j++) {
                const S A = rate_of(k, k->units, v, n + j);
                Decay *const to = k->decays + v * (SEG + 1) * NB + j;
                for (int i = 0; i < SEG; i += SIDE) decays_of(k->dt + v * SEG + i, A, to + i * NB);
                if (!k->rate)
                    for (int i = 0; i < SEG; i++)
                        for (int other = 1; other < NB; other++) to[i * NB + other] = to[i * NB];
            }
    if (!last) return;
    for (int v = 0; v < PAIR; v++)
        for (int j = 0; j < NB; j++) {
            const int64_t at = (v * (SEG + 1) + k->steps) * NB + j;
            k->decays[at] = (Decay){splat(1), splat(0)};
            memory[at] = splat(1);
        }
}

/* Run the block, whose decays are filled in: y += Re(C h). With `keep` the states are kept, and their rounding errors
 * are not: a segment is too short for them to add up. `mixed` and `keep` are constants. */
#define run_block X(run_block)
INLINE void run_block(const Block *k, int64_t n, const int count, const int mixed, const int keep) {
    /* copies, because a store of a vector could change *k for all that the compiler knows */
    const int64_t N = k->N;
    const int steps = k->steps;
    const uint8_t *const reset = k->reset;
    const vec *const x = k->x, *const second = k->second;
    vec *const y = k->y;
    const Decay *const decays = k->decays;
    const int first = n == 0;
    const R *const B = k->B + (n * PARTS) * (mixed ? LANES : 1), *const C = k->C + (n * PARTS) * (mixed ? LANES : 1);
    S *const kept = k->kept, h[PAIR][NB], low[PAIR][NB];
    const S zero = {0};
    UNROLL for (int v = 0; v < PAIR; v++)
        UNROLL for (int j = 0; j < NB; j++) {
            h[v][j] = k->h[v * N + n + j], low[v][j] = keep ? zero : k->low[v * N + n + j];
            if (keep) kept[v * (SEG + 1) * NB + j] = h[v][j];
        }
    for (int i = 0; i < steps; i++) {
        vec sum[PAIR];
        UNROLL for (int v = 0; v < PAIR; v++) sum[v] = first ? splat(0) : y[v * SEG + i];
        if (reset && reset[i])
            UNROLL for (int v = 0; v < PAIR; v++)
                UNROLL for (int j = 0; j < NB; j++) h[v][j] = low[v][j] = zero;
        if (second)
            UNROLL for (int v = 0; v < PAIR; v++)
                UNROLL for (int j = 0; j < NB; j++) {
                    const vec more = second[(v * (SEG + 1) + i) * NB + j];
                    h[v][j] = s_scale(h[v][j], more), low[v][j] = s_scale(low[v][j], more);
                }
        UNROLL for (int j = 0; j < NB; j++)
            UNROLL for (int v = 0; v < PAIR; v++) {
                if (j >= count) continue;
                const Decay d = decays[(v * (SEG + 1) + i) * NB + j];
                const int64_t at = (mixed ? v * SEG + i : i) * N + j;
                S in = s_scale(coefficient(B, at, mixed), x[v * SEG + i]);
                if (PARTS == 1) HOLD(*(vec *)&in); /* else the product is fused into the sum, which waits for h */
                if (keep) kept[(v * (SEG + 1) + i + 1) * NB + j] = h[v][j] = recall(d, scaled(d, h[v][j]), in);
                else h[v][j] = advance(d, scaled(d, h[v][j]), &low[v][j], in);
                sum[v] += s_dot(coefficient(C, at, mixed), h[v][j]);
            }
        UNROLL for (int v = 0; v < PAIR; v++) y[v * SEG + i] = sum[v];
    }
    UNROLL for (int v = 0; v < PAIR; v++)
        UNROLL for (int j = 0; j < NB; j++) {
            k->h[v * N + n + j] = h[v][j];
            if (!keep) k->low[v * N + n + j] = low[v][j];
        }
}

#define Adjoint X(adjoint)
typedef struct {
    const vec *dy;
    vec *dx, *ddt;           /* of Delta u, and of Delta but for what comes through Delta u */
    S *g, *low;              /* by state: cotangent of the state before the segment that follows */
    S *dB, *dC;              /* [step][NB] */
    double *dA;              /* [state or 1][part][lane] */
} Adjoint;

/* The adjoint scan g[t] = conj(C) dy + conj(exp(delta[t+1] A)) g[t+1] of the block, whose states are kept, for vector v
 * of the pair. */
#define adjoint_block X(adjoint_block)
INLINE void adjoint_block(const Block *k, const Adjoint *a, int v, int64_t n, const int count, const int mixed) {
    const int64_t N = k->N, first = mixed ? v * SEG * N : 0;
    const uint8_t *const reset = k->reset;
    const vec *const dt = k->dt + v * SEG, *const x = k->x + v * SEG, *const dy = a->dy;
    const vec *const second = k->second ? k->second + v * (SEG + 1) * NB : NULL;
    vec *const dx = a->dx, *const ddt = a->ddt;
    const S *const kept = k->kept + v * (SEG + 1) * NB, zero = {0};
    S *const dB = a->dB, *const dC = a->dC;
    const Decay *const decays = k->decays + v * (SEG + 1) * NB;
    const R *const B = k->B + ((first + n) * PARTS) * (mixed ? LANES : 1);
    const R *const C = k->C + ((first + n) * PARTS) * (mixed ? LANES : 1);
    S g[NB], low[NB], total[NB], rates[NB]; /* g: scaled by the decay of the step that follows */
    UNROLL for (int j = 0; j < NB; j++) {
        g[j] = a->g[n + j], low[j] = a->low[n + j], total[j] = zero;
        rates[j] = s_conj(rate_of(k, k->A, v, n + j));
    }
    for (int i = k->steps - 1; i >= 0; i--) {
        vec x_sum = n ? dx[i] : splat(0), dt_sum = n ? ddt[i] : splat(0);
        UNROLL for (int j = 0; j < NB; j++) {
            if (j >= count) continue;
            g[j] = advance(conj_decay(decays[(i + 1) * NB + j]), g[j], &low[j],
                           s_scale(s_conj(coefficient(C, i * N + j, mixed)), dy[i]));
            dC[i * NB + j] = s_add(dC[i * NB + j], s_scale(s_conj(kept[(i + 1) * NB + j]), dy[i]));
            dB[i * NB + j] = s_add(dB[i * NB + j], s_scale(g[j], x[i]));
            x_sum += s_dot(s_conj(coefficient(B, i * N + j, mixed)), g[j]);
        }
        dx[i] = x_sum;
        if (reset && reset[i]) {
            UNROLL for (int j = 0; j < NB; j++) g[j] = low[j] = zero;
            ddt[i] = dt_sum;
            continue;
        }
        UNROLL for (int j = 0; j < NB; j++) {
            if (j >= count) continue;
            const Decay d = conj_decay(decays[i * NB + j]);
            S before = s_conj(kept[i * NB + j]);
            g[j] = scaled(d, g[j]);
            /* the state takes the second factor in the product: a zero stays zero even where g overflows */
            if (second) before = s_scale(before, second[i * NB + j]);
            const S q = s_mul(before, decayed(d, g[j]));
            if (second) g[j] = s_scale(g[j], second[i * NB + j]), low[j] = s_scale(low[j], second[i * NB + j]);
            dt_sum += s_dot(rates[j], q);
            total[j] = s_add(total[j], s_scale(q, dt[i]));
        }
        ddt[i] = dt_sum;
    }
    UNROLL for (int j = 0; j < NB; j++) {
        a->g[n + j] = advance(conj_decay(decays[j]), g[j], &low[j], zero);
        a->low[n + j] = low[j];
        const R *lanes = (const R *)&total[j];
        double *sum = a->dA + (k->rate ? n + j : 0) * PARTS * LANES;
        for (int i = 0; i < PARTS * LANES; i++) sum[i] += lanes[i];
    }
}

/* ---- whole passes */
#define Work X(work)
typedef struct {
    const Run *run;
    int64_t count, vectors, N, rates; /* N, rates: states, padded, and those of A */
    S *A, *units, *h, *low;  /* [vector][state] */
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
    const int64_t count = run->c1 - run->c0, V = vectors_of(count), N = (p->states + NB - 1) / NB * NB;
    const int64_t rates = p->rate_states == p->states ? N : 1;
    Work w = {.run = run, .count = count, .vectors = V, .N = N, .rates = rates};
    w.A = take(arena, V * rates * sizeof(S));
    w.units = ARITHMETIC ? w.A : take(arena, V * rates * sizeof(S));
    w.h = take(arena, V * N * sizeof(S));
    w.low = take(arena, V * N * sizeof(S));
    w.B = take(arena, SEG * N * PARTS * (run->mixed ? PAIR * LANES : 1) * sizeof(R));
    w.C = take(arena, SEG * N * PARTS * (run->mixed ? PAIR * LANES : 1) * sizeof(R));
    R **tiles[] = {&w.dt, &w.u, &w.x, &w.y, &w.z, &w.slope};
    for (int i = 0; i < 6; i++) *tiles[i] = take(arena, TILE * SEG * sizeof(R));
    w.decays = take(arena, TILE / LANES * (SEG + 1) * NB * sizeof(Decay));
    w.second = take(arena, TILE / LANES * (SEG + 1) * NB * sizeof(vec));
    if (!arena->memory) return w;
    const int64_t per = p->channels / p->rates;
    for (int64_t v = 0; v < V; v++)
        for (int64_t n = 0; n < rates; n++)
            for (int64_t j = 0; j < LANES; j++) {
                const int64_t c = run->c0 + v * LANES + j;
                const int some = c < run->c1 && n < p->rate_states;
                for (int part = 0; part < PARTS; part++) {
                    const double A = some ? p->A[(c / per * p->rate_states + n) * PARTS + part] : 0;
                    const int64_t at = ((v * rates + n) * PARTS + part) * LANES + j;
                    ((R *)w.A)[at] = (R)A;
                    /* of the rounded A: its digits are then those of the float64 scan of the same numbers */
                    if (!ARITHMETIC) ((R *)w.units)[at] = (R)((R)A * 1.4426950408889634);
                }
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
        for (int64_t n = 0; n < run->p->states; n++) {
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
        for (int64_t n = 0; n < run->p->states; n++) {
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
    return (R *)p->kept + (((w->run->b * segments + segment) * p->states + n) * PARTS + part) * p->channels + w->run->c0 + v * LANES;
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
    for (int64_t v = 0; v < vectors_of(count); v++) {
        vec *dt = (vec *)w->dt + v * SEG, *u = (vec *)w->u + v * SEG, *x = (vec *)w->x + v * SEG, bias = splat(0);
        if (p->bias)
            for (int64_t j = 0; j < LANES && v * LANES + j < count; j++) bias[j] = (R)p->bias[(c + v * LANES + j) / per];
        for (int i = 0; i < steps; i += SIDE) {
            if (p->bias) for (int j = i; j < i + SIDE; j++) dt[j] += bias;
            if (p->softplus && slope) log_one_plus_exp(dt + i, (vec *)slope + v * SEG + i);
            else if (p->softplus) log_one_plus_exp(dt + i, NULL);
            for (int j = i; j < i + SIDE; j++) x[j] = dt[j] * u[j];
        }
    }
}

#define skip_of X(skip_of)
INLINE vec skip_of(const Problem *p, int64_t c, int64_t count) {
    vec D = splat(0);
    if (p->D) for (int64_t j = 0; j < LANES && j < count; j++) D[j] = (R)p->D[(c + j) / (p->channels / p->skips)];
    return D;
}

/* Ask for what PAIR vectors of the tile that follows will read and write, `lane` channels from its first: rows lie too
 * far apart for the machine to foresee. The segment `next`, from t0 on, follows the last tile. */
#define fetch_next X(fetch_next)
INLINE void fetch_next(const Run *run, int64_t t0, int64_t next, int64_t c, int64_t lane, const View *const *views,
                       int count) {
    const int later = c + TILE >= run->c1;
    const int64_t t = later ? next : t0, at = (later ? run->c0 : c + TILE) + lane, rows = least(SEG, run->p->stop - t);
    if (at >= run->c1 || t < 0) return;
    for (int k = 0; k < count; k++) {
        if (views[k]->stride[2] != sizeof(R)) continue; /* not given, or not side by side */
        const int64_t step = pace(run->p, views[k]);
        const char *row = origin(run->p, views[k], run->b) + t * step + at * sizeof(R);
        for (int64_t i = 0; i < rows; i++, row += step)
            for (size_t byte = 0; byte < PAIR * sizeof(vec); byte += 64) __builtin_prefetch(row + byte);
    }
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

/* Hand the kept states of a block to the array of all states. */
#define emit X(emit)
static void emit(const Block *k, int64_t t0, int64_t c, int64_t n) {
    const Run *run = k->run;
    const View *to = &run->p->all;
    const int64_t count = least(NB, run->p->states - n);
    for (int i = 0; i < k->steps; i++) {
        char *row = origin(run->p, to, run->b) + (t0 + i) * pace(run->p, to);
        for (int64_t lane = 0; lane < PAIR * LANES && c + lane < run->c1; lane++)
            for (int j = 0; j < count; j++) {
                const R *from = (const R *)(k->kept + (lane / LANES * (SEG + 1) + i + 1) * NB + j) + lane % LANES;
                put(row + (c + lane) * to->stride[2] + (n + j) * to->stride[3], to->type, from[0], from[(PARTS - 1) * LANES]);
            }
    }
}

#define block_of X(block_of)
INLINE Block block_of(const Work *w, int steps, const uint8_t *flags, int64_t v, int64_t vector, S *kept) {
    return (Block){
        .run = w->run, .steps = steps, .reset = flags, .dt = (vec *)w->dt + v * SEG, .x = (vec *)w->x + v * SEG,
        .y = (vec *)w->y + v * SEG, .B = w->B, .C = w->C, .A = w->A + vector * w->rates,
        .units = w->units + vector * w->rates, .N = w->N, .rate = w->rates == w->N,
        .decays = w->decays, .kept = kept,
    };
}

static void X(forward)(const Run *run, Arena *arena) {
    const Problem *p = run->p;
    Work w = prepare(run, arena);
    S *kept = take(arena, PAIR * (SEG + 1) * NB * sizeof(S));
    if (!arena->memory) return;
    const int64_t N = w.N;
    read_states(&w, &p->h0, w.h, w.low);
    for (int64_t t0 = p->start; t0 < p->stop; t0 += SEG) {
        const int steps = (int)least(SEG, p->stop - t0);
        const uint8_t *flags = read_flags(&w, t0, steps);
        if (!run->mixed) stage_shared(w.B, run, &p->B, t0, steps), stage_shared(w.C, run, &p->C, t0, steps);
        if (p->kept)
            for (int64_t n = 0; n < p->states; n++)
                for (int part = 0; part < PARTS; part++)
                    for (int64_t v = 0; v < w.vectors; v++)
                        store(checkpoint(&w, t0 / SEG, v, n, part), ((vec *)(w.h + v * N + n))[part], w.count - v * LANES);
        for (int64_t c = run->c0; c < run->c1; c += TILE) {
            const int64_t count = least(TILE, run->c1 - c);
            stage_inputs(&w, t0, steps, c, count, NULL);
            if (p->z.data)
                stage(w.z, w.z_from + t0 * pace(p, &p->z), p->z.type, pace(p, &p->z), p->z.stride[2], 1, c, count, steps);
            for (int64_t v = 0; v * LANES < count; v += PAIR) {
                const int64_t vector = (c - run->c0) / LANES + v;
                fetch_next(run, t0, t0 + SEG, c, v * LANES, (const View *[]){&p->u, &p->delta, &p->z, &p->y}, 4);
                vec *y = (vec *)w.y + v * SEG, most[PAIR];
                Block k = block_of(&w, steps, flags, v, vector, kept);
                k.h = w.h + vector * N, k.low = w.low + vector * N;
                for (int i = 0; i < PAIR; i++) most[i] = largest(k.dt + i * SEG, steps);
                if (!N) for (int i = 0; i < PAIR * SEG; i++) y[i] = splat(0);
                k.careful = needs_care(&k, most, 0, N);
                if (run->mixed)
                    stage_mixed(w.B, run, &p->B, t0, steps, c + v * LANES), stage_mixed(w.C, run, &p->C, t0, steps, c + v * LANES);
                for (int64_t n = 0; n < N; n += NB) {
                    const int states = (int)least(NB, p->states - n);
                    if (k.rate || !n) fill(&k, w.second, most, n, states, 0);
                    if (p->all.data) {
                        if (run->mixed) run_block(&k, n, states, 1, 1); else run_block(&k, n, states, 0, 1);
                        emit(&k, t0, c + v * LANES, n);
                    }
                    else if (run->mixed) run_block(&k, n, states, 1, 0);
                    else if (states == NB) run_block(&k, n, NB, 0, 0);
                    else run_block(&k, n, states, 0, 0);
                }
                for (int j = 0; j < PAIR; j++) {
                    const int64_t first = (v + j) * LANES;
                    const vec D = skip_of(p, c + first, count - first), scale = splat((R)p->scale);
                    const vec *u = (vec *)w.u + (v + j) * SEG, *z = (vec *)w.z + (v + j) * SEG;
                    vec *const to = y + j * SEG, gate[SIDE];
                    for (int t = 0; t < steps; t += SIDE) {
                        if (p->scale != 1) EACH(to[t + i] *= scale;);
                        if (p->D) EACH(to[t + i] += D * u[t + i];);
                        if (p->z.data) {
                            silu(z + t, gate, NULL);
                            EACH(to[t + i] *= gate[i];);
                        }
                    }
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
INLINE void add_sums(double *to, vec *from, int64_t N, int64_t n) {
    R total[SEG * NB * PARTS];
    for (int row = 0; row < SEG * NB * PARTS; row += LANES) store(total + row, sums(from + row), LANES);
    for (int i = 0; i < SEG; i++)
        for (int j = 0; j < NB * PARTS; j++) to[(i * N + n) * PARTS + j] += total[i * NB * PARTS + j];
}

#define write_sums X(write_sums)
static void write_sums(const Run *run, const View *to, const double *from, int64_t t0, int steps) {
    const int64_t N = run->p->states, padded = (N + NB - 1) / NB * NB;
    for (int i = 0; i < steps; i++) {
        char *row = origin(run->p, to, run->b) + (t0 + i) * pace(run->p, to) + run->group * to->stride[2] + run->cut * to->stride[4];
        for (int64_t n = 0; n < N; n++) {
            const double *x = from + (i * padded + n) * PARTS;
            put(row + n * to->stride[3], to->type, x[0], x[PARTS - 1]);
        }
    }
}

/* The same where each lane has its own group: groups narrower than a vector are summed in memory. */
#define scatter X(scatter)
static void scatter(const Run *run, const View *to, const S *from, int64_t t0, int steps, int64_t c, int64_t n) {
    const int64_t per = run->p->channels / run->p->groups, count = least(NB, run->p->states - n);
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
    const int64_t N = w.N, V = w.vectors, rates = w.rates;
    S *kept = take(arena, PAIR * (SEG + 1) * NB * sizeof(S)), *h = take(arena, PAIR * N * sizeof(S));
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
            const int64_t vectors = vectors_of(count);
            stage_inputs(&w, t0, steps, c, count, w.slope);
            stage(dy, origin(p, &p->dy, run->b) + t0 * pace(p, &p->dy), p->dy.type, pace(p, &p->dy), p->dy.stride[2], 1, c,
                  count, steps);
            if (p->z.data)
                stage(w.z, w.z_from + t0 * pace(p, &p->z), p->z.type, pace(p, &p->z), p->z.stride[2], 1, c, count, steps);
            if (!N) memset(w.y, 0, TILE * SEG * sizeof(R)), memset(dx, 0, TILE * SEG * sizeof(R)), memset(ddt, 0, TILE * SEG * sizeof(R));
            for (int64_t v = 0; v < vectors; v++)
                for (int64_t t = v * SEG; t < v * SEG + steps; t += SIDE) {
                    vec *const to = (vec *)core + t, *const from = (vec *)dy + t, s[SIDE], slope[SIDE];
                    if (p->z.data) {
                        silu((vec *)w.z + t, s, slope);
                        /* dz but for the factor that the pass below finds */
                        EACH(((vec *)gate)[t + i] = from[i] * slope[i]; from[i] *= s[i];);
                    }
                    EACH(to[i] = from[i] * splat((R)p->scale););
                }
            vec most[TILE / LANES], *seconds[TILE / LANES];
            int careful[TILE / LANES];
            for (int64_t v = 0; v < vectors; v++) most[v] = largest((vec *)w.dt + v * SEG, steps);
            const View *const rows[] = {&p->u, &p->delta, &p->dy, &p->z, &p->du, &p->ddelta, &p->dz};
            for (int64_t n = 0; n < N; n += NB) {
                const int states = (int)least(NB, p->states - n);
                memset(dB, 0, SEG * NB * sizeof(S));
                memset(dC, 0, SEG * NB * sizeof(S));
                for (int64_t v = 0; v < vectors; v += PAIR) {
                    Block k = block_of(&w, steps, flags, v, first + v, kept);
                    if (!n) fetch_next(run, t0, t0 - SEG, c, v * LANES, rows, 7);
                    k.h = h;
                    if (!n) careful[v] = needs_care(&k, most + v, 0, N);
                    k.careful = careful[v];
                    for (int i = 0; i < PAIR; i++)
                        for (int64_t j = n; j < n + NB; j++)
                            for (int part = 0; part < PARTS; part++)
                                ((vec *)(h + i * N + j))[part] = j < p->states
                                    ? load(checkpoint(&w, s, first + v + i, j, part), count - (v + i) * LANES) : splat(0);
                    if (run->mixed) {
                        stage_mixed(w.B, run, &p->B, t0, steps, c + v * LANES);
                        stage_mixed(w.C, run, &p->C, t0, steps, c + v * LANES);
                    }
                    /* decays that serve all states are kept for the tile */
                    vec *const second = k.rate ? w.second : w.second + v * (SEG + 1) * NB;
                    if (!k.rate) k.decays += v * (SEG + 1) * NB;
                    if (k.rate || !n) fill(&k, second, most + v, n, states, 1), seconds[v] = k.second;
                    else k.second = seconds[v];
                    if (run->mixed) run_block(&k, n, states, 1, 1);
                    else if (states == NB) run_block(&k, n, NB, 0, 1);
                    else run_block(&k, n, states, 0, 1);
                    for (int i = 0; i < PAIR; i++) {
                        const int64_t at = first + v + i;
                        const Adjoint a = {
                            .dy = (vec *)core + (v + i) * SEG, .dx = (vec *)dx + (v + i) * SEG,
                            .ddt = (vec *)ddt + (v + i) * SEG, .g = w.h + at * N, .low = w.low + at * N, .dB = dB,
                            .dC = dC, .dA = dA + at * rates * PARTS * LANES,
                        };
                        if (!run->mixed) {
                            if (states == NB) adjoint_block(&k, &a, i, n, NB, 0); else adjoint_block(&k, &a, i, n, states, 0);
                            continue;
                        }
                        adjoint_block(&k, &a, i, n, states, 1);
                        scatter(run, &p->dB, dB, t0, steps, c + (v + i) * LANES, n);
                        scatter(run, &p->dC, dC, t0, steps, c + (v + i) * LANES, n);
                        memset(dB, 0, SEG * NB * sizeof(S));
                        memset(dC, 0, SEG * NB * sizeof(S));
                    }
                }
                if (!run->mixed) add_sums(B_sums, (vec *)dB, N, n), add_sums(C_sums, (vec *)dC, N, n);
            }
            for (int64_t v = 0; v < vectors; v++) {
                const vec D = skip_of(p, c + v * LANES, count - v * LANES), scale = splat((R)p->scale);
                vec D_sum = splat(0), bias_sum = splat(0);
                for (int64_t i = v * SEG; i < v * SEG + steps; i++) {
                    vec *to_x = (vec *)dx + i, *to_dt = (vec *)ddt + i;
                    const vec u = ((vec *)w.u)[i], through_u = *to_x;
                    vec ungated = scale * ((vec *)w.y)[i];
                    *to_x = through_u * ((vec *)w.dt)[i];
                    /* no D is not a D of zero: the others may be infinite */
                    if (p->D) ungated += D * u, *to_x += D * ((vec *)dy)[i];
                    if (p->z.data) ((vec *)gate)[i] *= ungated;
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
        for (int64_t i = 0; i < p->rate_states * PARTS; i++) p->dA[at * p->rate_states * PARTS + i] = dA[(c / LANES * rates * PARTS + i) * LANES + c % LANES];
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
#undef EXP2M1
#undef EXPM1
#undef ATANH
#undef PARTS
#undef PAIR
#endif
