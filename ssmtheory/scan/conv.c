/* Causal depthwise convolution along time with its activation, on the CPU: forward and backward.
 *
 *   p[t] = bias + sum_k weight[k] x[t - (width - 1) + k]        y[t] = silu(p[t]), or p[t]
 *
 * where the width - 1 inputs before the first are the initial state. Rows of channels are the vectors: every loop below
 * runs over channels that lie side by side. A row of the caller's array is read and written in place where its channels
 * do lie so, in the precision of the arithmetic; otherwise BLOCK rows at a time are copied, along whichever axis is the
 * denser. The backward pass recomputes p; it keeps nothing. Gradients of weight and bias are summed in float64.
 *
 * The file includes itself: the part below "the body" is compiled once for float and for double, for each instruction
 * set. Channels are independent, so that no result depends on how they are shared among threads.
 */
#ifndef ISA
#include "common.h"

#define BLOCK 32   /* steps at a time */
#define WIDEST 512 /* channels of one piece of work: its rows stay in the first-level cache */

enum { FLOAT, DOUBLE }; /* element types */

/* An array of any strides (in bytes, for the axes named below); data == NULL where it is not given. */
typedef struct {
    char *data;
    int64_t type, stride[3];
} View;

typedef struct {
    int64_t batch, length, channels, width;
    int64_t silu, kind, isa;        /* kind: 0 float, 1 double; isa: 0 the best, else 1 + its number */
    double *dweight, *dbias;        /* (batch, width, channel), (batch, channel): C-contiguous */
    View x, y;                      /* (batch, time, channel) */
    View weight, bias;              /* (channel, width), (channel) */
    View initial, last;             /* (batch, width - 1, channel): the inputs before the first; the last inputs */
    View dy, dx;                    /* (batch, time, channel) */
    View dlast, dinitial;           /* (batch, width - 1, channel) */
} Problem;


#define SELF "conv.c"
#include "targets.h"
#define KINDS(f, isa) {f(float_##isa), f(double_##isa)}

/* What one pass over time works on: channels c0 <= c < c0 + count of sequence b. */
typedef void Pass(const Problem *, int64_t b, int64_t c0, int64_t count, Arena *);
#define FORWARD(x) forward_##x
#define BACKWARD(x) backward_##x
static Pass *const forward_passes[][2] = {FOR_EACH_ISA(KINDS, FORWARD)};
static Pass *const backward_passes[][2] = {FOR_EACH_ISA(KINDS, BACKWARD)};

const char *conv_instruction_set(int number) { return instruction_set(number); }

int64_t conv_problem_bytes(void) { return sizeof(Problem); }

/* Returns 0, or 1 when the scratch memory could not be had (nothing is then complete). */
static int everything(const Problem *p, int backward) {
    const int isa = p->isa ? (int)p->isa - 1 : best();
    Pass *pass = (backward ? backward_passes : forward_passes)[isa][p->kind];
    /* a few pieces for every core, but none narrower than 128 channels */
    const int64_t wanted = (8 + p->batch - 1) / (p->batch > 0 ? p->batch : 1), even = (p->channels + wanted - 1) / wanted;
    const int64_t piece = least(WIDEST, even < 128 ? 128 : (even + 15) / 16 * 16);
    const int64_t pieces = (p->channels + piece - 1) / piece, items = p->batch * pieces;
    int failed = 0;
    #pragma omp parallel reduction(| : failed) if (items > 1)
    {
        Arena arena = {NULL, 0};
        pass(p, 0, 0, least(piece, p->channels), &arena);
        void *memory = NULL;
        failed |= posix_memalign(&memory, 64, arena.used) != 0;
        arena.memory = memory;
        #pragma omp for schedule(dynamic)
        for (int64_t item = 0; item < items; item++) {
            if (!memory) continue;
            FLUSH_BEGIN
            const int64_t c0 = item % pieces * piece;
            arena.used = 0;
            pass(p, item / pieces, c0, least(piece, p->channels - c0), &arena);
            FLUSH_END
        }
        free(memory);
    }
    return failed;
}

int conv_forward(const Problem *p) { return everything(p, 0); }
int conv_backward(const Problem *p) { return everything(p, 1); }


#elif !defined(DOUBLED)

#define KIND float
#define DOUBLED 0
#include "conv.c"
#undef KIND
#undef DOUBLED
#define KIND double
#define DOUBLED 1
#include "conv.c"
#undef KIND
#undef DOUBLED

#else
/* ------------------------------------------------------------------------------------------------ the body
 * R: a real number; n: channels of this piece of work, the length of every row. */

#define GLUE_(a, b, c) a##_##b##_##c
#define GLUE(a, b, c) GLUE_(a, b, c)
#define X(name) GLUE(name, KIND, ISA)

#define R KIND
#if DOUBLED
#define INTEGER uint64_t
#define R_TYPE DOUBLE
#define MAGIC 6755399441056767.0 /* 1.5 2^52 + 1023 */
#define MANTISSA 52
#define LIMIT 708.0
#define LN2_HIGH 6.93147180369123816490e-01
#define LN2_LOW 1.90821492927058770002e-10
#define EXPM1(r) ((((((((((2.09146869680868772e-9 * r + 2.51052170047207452e-8) * r + 2.75572736431102953e-7) * r + \
    2.75572554002064244e-6) * r + 0.0000248015873255477412) * r + 0.000198412698748206253) * r + \
    0.00138888888888837483) * r + 0.00833333333332613513) * r + 0.0416666666666666698) * r + \
    0.16666666666666671) * r + 0.5)
#else
#define INTEGER uint32_t
#define R_TYPE FLOAT
#define MAGIC 12583039.0f /* 1.5 2^23 + 127 */
#define MANTISSA 23
#define LIMIT 87.0f
#define LN2_HIGH 0.693359375f
#define LN2_LOW -2.12194440e-4f
#define EXPM1(r) ((((0.0013926184f * r + 0.0083631791f) * r + 0.041666555f) * r + 0.16666577f) * r + 0.5f)
#endif

/* yes where the condition holds, else no; without a branch, for which compilers would give up vectors. */
#define choose X(choose)
INLINE R choose(int condition, R yes, R no) {
    INTEGER a, b;
    memcpy(&a, &yes, sizeof a);
    memcpy(&b, &no, sizeof b);
    const INTEGER mask = -(INTEGER)condition, bits = (a & mask) | (b & ~mask);
    R chosen;
    memcpy(&chosen, &bits, sizeof chosen);
    return chosen;
}

/* exp(m) for m <= 0, and 0 where that is hardly a normal number. exp(m) = 2^k (1 + q), q = expm1(r), m = k ln 2 + r,
 * where EXPM1 interpolates (expm1(r) - r) / r^2 on |r| <= (ln 2) / 2 at Chebyshev points. Adding MAGIC rounds to the
 * integer k, biased as an exponent, in the low bits of the mantissa. */
#define exp_negative X(exp_negative)
INLINE R exp_negative(R m) {
    const int low = m < -LIMIT;
    const R kept = choose(low, -LIMIT, m), t = kept * (R)1.4426950408889634 + MAGIC, k = t - MAGIC;
    const R r = (kept - k * LN2_HIGH) - k * LN2_LOW, q = EXPM1(r) * (r * r) + r;
    INTEGER bits;
    memcpy(&bits, &t, sizeof bits);
    bits <<= MANTISSA;
    R scale;
    memcpy(&scale, &bits, sizeof scale);
    return choose(low, 0, scale * q + scale);
}

#define sigmoid X(sigmoid)
INLINE R sigmoid(R x) {
    const int negative = x < 0;
    const R v = exp_negative(choose(negative, x, -x)), large = 1 / (1 + v);
    return choose(negative, v * large, large);
}

/* out = silu'(p) */
#define slopes X(slopes)
static void slopes(R *restrict out, const R *restrict p, int64_t n) {
    #pragma omp simd
    for (int64_t c = 0; c < n; c++) out[c] = sigmoid(p[c]) * (1 + p[c] * sigmoid(-p[c]));
}

/* y[c] = silu(bias[c] + sum_k weight[k][c] x[k][c]); y may be the bias */
#define correlate_few X(correlate_few)
INLINE void correlate_few(R *y, const R *const *x, const R *w, const R *bias, int64_t n, int width, int silu) {
    const R *const x0 = x[0], *const x1 = x[width > 1 ? 1 : 0], *const x2 = x[width > 2 ? 2 : 0];
    const R *const x3 = x[width > 3 ? 3 : 0];
    #pragma omp simd
    for (int64_t c = 0; c < n; c++) {
        R p = bias[c] + w[c] * x0[c];
        if (width > 1) p += w[n + c] * x1[c];
        if (width > 2) p += w[2 * n + c] * x2[c];
        if (width > 3) p += w[3 * n + c] * x3[c];
        y[c] = silu ? p * sigmoid(p) : p;
    }
}

#define correlate X(correlate)
static void correlate(R *y, const R *const *x, const R *w, const R *bias, int64_t n, int64_t width, int silu) {
    for (; width > 4; bias = y, x += 4, w += 4 * n, width -= 4) correlate_few(y, x, w, bias, n, 4, 0);
    if (silu) {
        if (width == 4) correlate_few(y, x, w, bias, n, 4, 1);
        else if (width == 3) correlate_few(y, x, w, bias, n, 3, 1);
        else if (width == 2) correlate_few(y, x, w, bias, n, 2, 1);
        else correlate_few(y, x, w, bias, n, 1, 1);
    } else {
        if (width == 4) correlate_few(y, x, w, bias, n, 4, 0);
        else if (width == 3) correlate_few(y, x, w, bias, n, 3, 0);
        else if (width == 2) correlate_few(y, x, w, bias, n, 2, 0);
        else correlate_few(y, x, w, bias, n, 1, 0);
    }
}

/* ---- rows of the caller's arrays */
#define in_place X(in_place)
INLINE int in_place(const View *v) { return v->type == R_TYPE && v->stride[2] == (int64_t)sizeof(R); }

INLINE char *X(address)(const View *v, int64_t b, int64_t t, int64_t c) {
    return v->data + b * v->stride[0] + t * v->stride[1] + c * v->stride[2];
}
#define address X(address)

/* Read `rows` rows at `from` into buffer, (rows, n); zeros where there is no array. */
#define gather X(gather)
static void gather(R *buffer, const View *v, const char *from, int64_t rows, int64_t n) {
    if (!v->data) {
        memset(buffer, 0, rows * n * sizeof(R));
        return;
    }
    const int64_t st = v->stride[1], sc = v->stride[2];
#define EACH(type)                                                                                             \
    if (llabs(st) < llabs(sc))                                                                                 \
        for (int64_t c = 0; c < n; c++)                                                                        \
            for (int64_t t = 0; t < rows; t++) buffer[t * n + c] = (R)*(const type *)(from + t * st + c * sc); \
    else                                                                                                       \
        for (int64_t t = 0; t < rows; t++)                                                                     \
            for (int64_t c = 0; c < n; c++) buffer[t * n + c] = (R)*(const type *)(from + t * st + c * sc);
    if (v->type == FLOAT) { EACH(float) } else { EACH(double) }
#undef EACH
}

/* The opposite way. */
#define scatter X(scatter)
static void scatter(const R *buffer, const View *v, char *to, int64_t rows, int64_t n) {
    const int64_t st = v->stride[1], sc = v->stride[2];
#define EACH(type)                                                                                          \
    if (llabs(st) < llabs(sc))                                                                              \
        for (int64_t c = 0; c < n; c++)                                                                     \
            for (int64_t t = 0; t < rows; t++) *(type *)(to + t * st + c * sc) = (type)buffer[t * n + c];   \
    else                                                                                                    \
        for (int64_t t = 0; t < rows; t++)                                                                  \
            for (int64_t c = 0; c < n; c++) *(type *)(to + t * st + c * sc) = (type)buffer[t * n + c];
    if (v->type == FLOAT) { EACH(float) } else { EACH(double) }
#undef EACH
}

/* The inputs as a sliding window: row[i] is x[t0 - (width - 1) + i] for the block of steps that begins at t0. */
#define Window X(Window)
typedef struct {
    const R **row;
    R *before, *buffer; /* the initial state; the rows of a block that cannot be read in place */
} Window;

#define window_make X(window_make)
INLINE Window window_make(const Problem *p, int64_t n, Arena *arena) {
    const int64_t rows = p->width - 1 + BLOCK;
    Window w;
    w.row = take(arena, rows * sizeof *w.row);
    w.before = take(arena, (p->width - 1) * n * sizeof(R));
    w.buffer = in_place(&p->x) ? NULL : take(arena, rows * n * sizeof(R));
    return w;
}

#define window_move X(window_move)
static void window_move(Window *w, const Problem *p, int64_t b, int64_t c0, int64_t n, int64_t t0, int64_t steps) {
    const int64_t past = p->width - 1;
    if (t0 == 0) {
        const View *v = &p->initial;
        gather(w->before, v, v->data ? address(v, b, 0, c0) : NULL, past, n);
    }
    if (!in_place(&p->x)) {
        if (t0 == 0) memcpy(w->buffer, w->before, past * n * sizeof(R));
        else memmove(w->buffer, w->buffer + BLOCK * n, past * n * sizeof(R));
        gather(w->buffer + past * n, &p->x, address(&p->x, b, t0, c0), steps, n);
    }
    for (int64_t i = 0; i < past + steps; i++) {
        const int64_t t = t0 - past + i;
        if (!in_place(&p->x)) w->row[i] = w->buffer + i * n;
        else if (t < 0) w->row[i] = w->before + (past + t) * n;
        else w->row[i] = (const R *)address(&p->x, b, t, c0);
    }
}

/* weight as (width, n), bias as (n) */
#define parameters X(parameters)
static void parameters(R **weight, R **bias, const Problem *p, int64_t c0, int64_t n, Arena *arena) {
    *weight = take(arena, p->width * n * sizeof(R));
    *bias = take(arena, n * sizeof(R));
    if (!arena->memory) return;
    /* time is the tap here, and a bias a single row */
    const View w = {p->weight.data, p->weight.type, {0, p->weight.stride[1], p->weight.stride[0]}};
    const View b = {p->bias.data, p->bias.type, {0, 0, p->bias.stride[0]}};
    gather(*weight, &w, address(&w, 0, 0, c0), p->width, n);
    gather(*bias, &b, b.data ? address(&b, 0, 0, c0) : NULL, 1, n);
}

#define forward X(forward)
static void forward(const Problem *p, int64_t b, int64_t c0, int64_t n, Arena *arena) {
    R *weight, *bias;
    parameters(&weight, &bias, p, c0, n, arena);
    Window window = window_make(p, n, arena);
    R *made = in_place(&p->y) ? NULL : take(arena, BLOCK * n * sizeof(R));
    if (!arena->memory) return;
    const int64_t past = p->width - 1;
    for (int64_t t0 = 0; t0 < p->length; t0 += BLOCK) {
        const int64_t steps = least(BLOCK, p->length - t0);
        window_move(&window, p, b, c0, n, t0, steps);
        for (int64_t t = 0; t < steps; t++) {
            R *y = made ? made + t * n : (R *)address(&p->y, b, t0 + t, c0);
            correlate(y, window.row + t, weight, bias, n, p->width, (int)p->silu);
        }
        if (made) scatter(made, &p->y, address(&p->y, b, t0, c0), steps, n);
    }
    if (!p->last.data) return;
    /* the last inputs, from those before the first on */
    for (int64_t i = 0; i < past; i++) {
        const int64_t t = p->length - past + i;
        const View *from = t < 0 ? &p->initial : &p->x;
        R *row = window.before;
        gather(row, from, from->data ? address(from, b, t < 0 ? past + t : t, c0) : NULL, 1, n);
        scatter(row, &p->last, address(&p->last, b, i, c0), 1, n);
    }
}

/* Inputs are counted from the first of the initial state: the one at i is x[i - (width - 1)], and its cotangent
 * sum_k weight[k] g[i - k], where g is the cotangent of p, zero outside the sequence. */
#define backward X(backward)
static void backward(const Problem *p, int64_t b, int64_t c0, int64_t n, Arena *arena) {
    R *weight, *bias;
    parameters(&weight, &bias, p, c0, n, arena);
    Window window = window_make(p, n, arena);
    const int64_t past = p->width - 1, inputs = p->length + past;
    R *g = take(arena, (past + BLOCK) * n * sizeof(R));
    R *dy = in_place(&p->dy) ? NULL : take(arena, BLOCK * n * sizeof(R)), *slope = take(arena, n * sizeof(R));
    R *dx = take(arena, n * sizeof(R)), *extra = take(arena, n * sizeof(R));
    R *dweight = take(arena, p->width * n * sizeof(R)), *dbias = take(arena, n * sizeof(R));
    if (!arena->memory) return;
    double *total = p->dweight + b * p->width * p->channels + c0, *total_bias = p->dbias + b * p->channels + c0;
    for (int64_t k = 0; k < p->width; k++) memset(total + k * p->channels, 0, n * sizeof(double));
    memset(total_bias, 0, n * sizeof(double));
    memset(g, 0, past * n * sizeof(R));
    for (int64_t i0 = 0; i0 < inputs; i0 += BLOCK) {
        const int64_t rows = least(BLOCK, inputs - i0), steps = least(rows, p->length - i0);
        if (i0) memmove(g, g + BLOCK * n, past * n * sizeof(R));
        if (steps > 0) {
            window_move(&window, p, b, c0, n, i0, steps);
            if (dy) gather(dy, &p->dy, address(&p->dy, b, i0, c0), steps, n);
            memset(dweight, 0, p->width * n * sizeof(R));
            memset(dbias, 0, n * sizeof(R));
        }
        for (int64_t t = 0; t < rows; t++) {
            R *restrict row = g + (past + t) * n;
            if (t >= steps) {
                memset(row, 0, n * sizeof(R));
                continue;
            }
            const R *restrict given = dy ? dy + t * n : (const R *)address(&p->dy, b, i0 + t, c0);
            if (p->silu) {
                correlate(row, window.row + t, weight, bias, n, p->width, 0);
                slopes(slope, row, n);
                #pragma omp simd
                for (int64_t c = 0; c < n; c++) row[c] = given[c] * slope[c];
            } else memcpy(row, given, n * sizeof(R));
            #pragma omp simd
            for (int64_t c = 0; c < n; c++) dbias[c] += row[c];
            for (int64_t k = 0; k < p->width; k++) {
                const R *restrict x = window.row[t + k];
                R *restrict sum = dweight + k * n;
                #pragma omp simd
                for (int64_t c = 0; c < n; c++) sum[c] += row[c] * x[c];
            }
        }
        if (steps > 0) {
            for (int64_t k = 0; k < p->width; k++)
                for (int64_t c = 0; c < n; c++) total[k * p->channels + c] += dweight[k * n + c];
            for (int64_t c = 0; c < n; c++) total_bias[c] += dbias[c];
        }
        for (int64_t r = 0; r < rows; r++) {
            const int64_t i = i0 + r;
            const View *to = i < past ? &p->dinitial : &p->dx;
            if (!to->data) continue;
            const int64_t at = i < past ? i : i - past;
            const int direct = in_place(to);
            R *restrict row = direct ? (R *)address(to, b, at, c0) : dx;
            const R *newest = g + (past + r) * n;
            const R *start = NULL;
            if (i >= p->length && p->dlast.data) {
                gather(extra, &p->dlast, address(&p->dlast, b, i - p->length, c0), 1, n);
                start = extra;
            }
            if (start) memcpy(row, start, n * sizeof(R));
            else memset(row, 0, n * sizeof(R));
            for (int64_t k = 0; k < p->width; k++) {
                const R *restrict w = weight + k * n, *restrict past_g = newest - k * n;
                #pragma omp simd
                for (int64_t c = 0; c < n; c++) row[c] += w[c] * past_g[c];
            }
            if (!direct) scatter(row, to, address(to, b, at, c0), 1, n);
        }
    }
}

#undef GLUE_
#undef GLUE
#undef X
#undef R
#undef INTEGER
#undef R_TYPE
#undef MAGIC
#undef MANTISSA
#undef LIMIT
#undef LN2_HIGH
#undef LN2_LOW
#undef EXPM1
#undef choose
#undef exp_negative
#undef sigmoid
#undef slopes
#undef correlate_few
#undef correlate
#undef in_place
#undef address
#undef gather
#undef scatter
#undef Window
#undef window_make
#undef window_move
#undef parameters
#undef forward
#undef backward
#endif
