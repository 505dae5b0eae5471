/* Recurrences whose coefficients do not depend on what they multiply, forward and backward, on the CPU.
 *
 * rec_linear:  h[t] = a[t] h[t-1] + b[t], elementwise, a and b given. A sweep over memory: rows of lanes, one step after
 *   another, the state in double precision. Arrays whose lanes are not adjacent pass through tiles of STEPS steps.
 *
 * rec_lti:     h[t] = w h[t-1] + B u[t],  y[t] = scale Re(sum_n C h[t]) + D u[t], one input and N modes to a channel.
 *   Time is cut into chunks of T steps. Inside a chunk everything is a product with a table of exact powers of w, rounded
 *   once: the chunk's contribution U to the state (u times w^(T-1-k)), and its output (u times the Toeplitz matrix of the
 *   first T values of the kernel, plus the state before the chunk times C w^(r+1)). Between chunks the state is carried
 *   in complex double, so that no phase is lost over a million steps. Without input the same code makes the convolution
 *   kernel K[l] = scale Re(sum_n h0 w^l).
 *   Backward, the same products on the cotangents, in reversed order of the steps of a chunk; the derivative in w
 *   needs the table of (T-1-k) w^(T-2-k) beside that of w^(T-1-k).
 *
 * The file includes itself: the part below "the body" is compiled for float and double and each instruction set.
 * Sums are cut by the shape of the problem alone, never by the number of threads: results are repeatable.
 */
#ifndef ISA
#include "common.h"

#define T 32        /* steps of a chunk */
#define CHUNKS 36   /* chunks of a segment: a multiple of the rows of the product */
#define STEPS (T * CHUNKS)
#define GROUP 16    /* channels whose steps are staged together: one cache line of float */
#define TILE 16     /* steps staged at once by rec_linear */
#define WIDE 512    /* lanes of a row where all arrays have them adjacent, else NARROW */
#define NARROW 64

/* An array of any strides, in bytes; data == NULL where it is not given. */
typedef struct { char *data; int64_t stride[5]; } View;

typedef struct {
    int64_t length, outer[3], lanes;   /* a step of b has the axes outer and lanes */
    int64_t wide, complex_a, complex_b, reverse, isa;
    int64_t fixed;                     /* a does not depend on time, and da is summed over it in double precision */
    View a, b, h, h0, last, reset;     /* axes: time, outer, lanes; the states without time have stride 0 there */
    View dh, dlast, da, db, dh0;
} Linear;

typedef struct {
    int64_t batch, length, channels, states, wide, reverse, isa;
    double scale;
    const double *w, *B, *C, *D;       /* (channel, state) complex, D (channel); B, C of no use without u */
    double *kept;                      /* (batch, segment, channel, 2, padded states): state before each segment */
    View u, y, h0, last;               /* (batch, time, channel); states (batch, channel, state) complex; h0 double without u */
    View dy, du, dlast, dh0;
    double *dw, *dB, *dC, *dD;         /* as w, ...; sums over the batch; all NULL, or none with u */
} Lti;

INLINE int64_t padded(int64_t n) { return (n + 15) / 16 * 16; }
INLINE int64_t segments(const Lti *p) { return (p->length + STEPS - 1) / STEPS; }

INLINE char *origin(const View *v, int64_t length, int64_t reverse, int64_t axis, int64_t offset) {
    return v->data ? v->data + offset + (reverse ? (length - 1) * v->stride[axis] : 0) : NULL;
}

typedef struct { uint64_t half[2]; } Sixteen;

#define COPY(type) { \
    if (by_row) \
        for (int64_t i = 0; i < n0; i++) for (int64_t j = 0; j < n1; j++) \
            *(type *)(dst + i * d0 + j * d1) = *(const type *)(src + i * s0 + j * s1); \
    else \
        for (int64_t j = 0; j < n1; j++) for (int64_t i = 0; i < n0; i++) \
            *(type *)(dst + i * d0 + j * d1) = *(const type *)(src + i * s0 + j * s1); }

/* An (n0, n1) block of elements of `size` bytes from one pair of strides to another. */
static void copy(char *dst, int64_t d0, int64_t d1, const char *src, int64_t s0, int64_t s1, int64_t n0, int64_t n1, size_t size) {
    /* the scratch side is in the cache; of the array in memory, whole lines are to be used */
    const int by_row = llabs(d1) + llabs(s1) <= llabs(d0) + llabs(s0);
    if (size == 4) COPY(uint32_t)
    else if (size == 8) COPY(uint64_t)
    else COPY(Sixteen)
}

#define SELF "recurrence.c"
#include "targets.h"
#define KINDS(f, isa) {f(float_##isa), f(double_##isa)}

typedef void LinearPass(const Linear *, const int64_t *, int64_t, int64_t, char *, int);
typedef void LtiPass(const Lti *, int64_t, int64_t, Arena *, int);
#define LINEAR(x) linear_##x
#define FORWARD(x) lti_forward_##x
#define BACKWARD(x) lti_backward_##x
static LinearPass *const linear_passes[][2] = {FOR_EACH_ISA(KINDS, LINEAR)};
static LtiPass *const lti_passes[2][3][2] = {{FOR_EACH_ISA(KINDS, FORWARD)}, {FOR_EACH_ISA(KINDS, BACKWARD)}};

const char *rec_instruction_set(int number) { return instruction_set(number); }

int64_t rec_sizes(int which) {
    const int64_t sizes[] = {sizeof(Linear), sizeof(Lti), STEPS};
    return sizes[which];
}

/* Returns 0, or 1 when the scratch memory could not be had (nothing is then complete). */
int rec_linear(const Linear *p, int backward) {
    LinearPass *pass = linear_passes[p->isa ? p->isa - 1 : best()][p->wide];
    const int64_t size = (p->wide ? 8 : 4), element = p->complex_b ? 2 * size : size;
    const View *rows[] = {&p->b, &p->h, &p->dh, &p->db, &p->da, &p->a};
    int64_t width = WIDE;
    for (int i = 0; i < 6; i++) {
        const int64_t e = i < 4 ? element : p->complex_a ? 2 * size : size;
        const int once = i >= 4 && p->fixed;
        if (rows[i]->data && !once && rows[i]->stride[4] != e) width = NARROW;
    }
    const int64_t cuts = (p->lanes + width - 1) / width, outer = p->outer[0] * p->outer[1] * p->outer[2], items = outer * cuts;
    /* rows of at most 16 bytes a lane, and tiles */
    const size_t bytes = 16 * (5 * width + 6 * TILE * NARROW);
    int failed = 0;
    #pragma omp parallel reduction(| : failed) if (items > 1)
    {
        void *memory = NULL;
        failed |= posix_memalign(&memory, 64, bytes) != 0;
        #pragma omp for schedule(dynamic)
        for (int64_t item = 0; item < items; item++) {
            if (!memory) continue;
            const int64_t cut = item % cuts, o = item / cuts;
            const int64_t at[3] = {o / p->outer[2] / p->outer[1], o / p->outer[2] % p->outer[1], o % p->outer[2]};
            FLUSH_BEGIN
            pass(p, at, cut * width, least(width, p->lanes - cut * width), memory, backward);
            FLUSH_END
        }
        free(memory);
    }
    return failed;
}

int rec_lti(const Lti *p, int backward) {
    LtiPass *pass = lti_passes[backward][p->isa ? p->isa - 1 : best()][p->wide];
    const int64_t items = (p->channels + GROUP - 1) / GROUP;
    /* where the steps of a channel are adjacent, one channel at a time needs fewer tables at once */
    const View *first = backward ? &p->dy : &p->y;
    const int64_t group = llabs(first->stride[1]) <= llabs(first->stride[2]) ? 1 : GROUP;
    int failed = 0;
    #pragma omp parallel reduction(| : failed) if (items > 1)
    {
        Arena arena = {NULL, 0};
        pass(p, 0, least(GROUP, p->channels), &arena, 0);
        void *memory = NULL;
        failed |= posix_memalign(&memory, 64, arena.used) != 0;
        arena.memory = memory;
        #pragma omp for schedule(dynamic)
        for (int64_t item = 0; item < items; item++) {
            if (!memory) continue;
            const int64_t stop = least((item + 1) * GROUP, p->channels);
            FLUSH_BEGIN
            for (int64_t c = item * GROUP; c < stop; c += group) {
                arena.used = 0;
                pass(p, c, least(c + group, stop), &arena, 1);
            }
            FLUSH_END
        }
        free(memory);
    }
    return failed;
}

#elif !defined(KIND)

#define KIND float
#include "recurrence.c"
#undef KIND
#define KIND double
#include "recurrence.c"
#undef KIND

#else
/* ------------------------------------------------------------------------------------------------ the body
 * R: a real number of the arrays; vec: LANES of them. */

#define GLUE_(a, b, c) a##_##b##_##c
#define GLUE(a, b, c) GLUE_(a, b, c)
#define X(name) GLUE(name, KIND, ISA)
#define R KIND
#define vec X(vec)
#define LANES ((int64_t)(BYTES / sizeof(R)))

typedef R vec __attribute__((vector_size(BYTES)));

/* ---------------------------------------------------------------- h[t] = a[t] h[t-1] + b[t] */

/* n lanes over `steps` steps. The pitches, in numbers, lead from row to row; those of the backward pass are negative. */
INLINE void X(real_forward)(int64_t n, int64_t steps, double *restrict h, const R *a, int64_t pa, const R *b, int64_t pb, R *out, int64_t po) {
    for (int64_t t = 0; t < steps; t++, a += pa, b += pb, out += po) {
        const R *restrict x = a, *restrict y = b;
        R *z = out;
        #pragma GCC ivdep
        for (int64_t i = 0; i < n; i++) {
            h[i] = (double)x[i] * h[i] + (double)y[i];
            z[i] = (R)h[i];
        }
    }
}

INLINE void X(complex_forward)(int64_t n, int64_t steps, double *restrict h, const R *a, int64_t pa, const R *b, int64_t pb, R *out, int64_t po, int complex_a) {
    for (int64_t t = 0; t < steps; t++, a += pa, b += pb, out += po) {
        const R *restrict x = a, *restrict y = b;
        R *z = out;
        #pragma GCC ivdep
        for (int64_t i = 0; i < n; i++) {
            const double re = h[2 * i], im = h[2 * i + 1];
            double r, s;
            if (complex_a) {
                const double c = x[2 * i], d = x[2 * i + 1];
                r = c * re - d * im + (double)y[2 * i];
                s = c * im + d * re + (double)y[2 * i + 1];
            } else {
                r = (double)x[i] * re + (double)y[2 * i];
                s = (double)x[i] * im + (double)y[2 * i + 1];
            }
            h[2 * i] = r;
            h[2 * i + 1] = s;
            z[2 * i] = (R)r;
            z[2 * i + 1] = (R)s;
        }
    }
}

/* One step back: g += dh is the cotangent of the state, and of b; before: the state before the step. The cotangent of a
 * goes to da, or is added to sum; g becomes conj(a) g. dh == NULL stands for zeros. */
INLINE void X(real_backward)(int64_t n, double *restrict g, double *restrict sum, const R *restrict a, const R *restrict before, const R *restrict dh, R *da, R *db, int given) {
    #pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) {
        const double x = given ? g[i] + (double)dh[i] : g[i], product = x * (double)before[i];
        db[i] = (R)x;
        if (da) da[i] = (R)product;
        else sum[i] += product;
        g[i] = (double)a[i] * x;
    }
}

INLINE void X(complex_backward)(int64_t n, double *restrict g, double *restrict sum, const R *restrict a, const R *restrict before, const R *restrict dh, R *da, R *db, int given, int complex_a) {
    #pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) {
        const double x = given ? g[2 * i] + (double)dh[2 * i] : g[2 * i];
        const double y = given ? g[2 * i + 1] + (double)dh[2 * i + 1] : g[2 * i + 1];
        const double p = before[2 * i], q = before[2 * i + 1];
        db[2 * i] = (R)x;
        db[2 * i + 1] = (R)y;
        if (complex_a) {
            const double re = x * p + y * q, im = y * p - x * q, c = a[2 * i], d = a[2 * i + 1];
            if (da) { da[2 * i] = (R)re; da[2 * i + 1] = (R)im; }
            else { sum[2 * i] += re; sum[2 * i + 1] += im; }
            g[2 * i] = c * x + d * y;
            g[2 * i + 1] = c * y - d * x;
        } else {
            const double re = x * p + y * q, c = a[i];
            if (da) da[i] = (R)re;
            else sum[i] += re;
            g[2 * i] = c * x;
            g[2 * i + 1] = c * y;
        }
    }
}

/* Where one block of lanes of an array lies, and how rows of it are had: in place, or through a tile. */
typedef struct { char *base, *tile; int64_t step, lane; size_t size; int direct; } X(Rows);

INLINE X(Rows) X(rows)(const Linear *p, const View *v, const int64_t *at, int64_t first, size_t size, char *tile) {
    int64_t offset = first * v->stride[4];
    for (int i = 0; i < 3; i++) offset += at[i] * v->stride[1 + i];
    X(Rows) rows = {
        origin(v, p->length, p->reverse, 0, offset), tile, p->reverse ? -v->stride[0] : v->stride[0], v->stride[4], size,
        v->stride[4] == (int64_t)size,
    };
    return rows;
}

/* Rows t, t + 1, ..., for reading or to be written; the pitch is in numbers. */
INLINE R *X(reach)(const X(Rows) *rows, int64_t t, int64_t steps, int64_t n, int64_t *pitch, int read) {
    *pitch = 0;
    if (!rows->base) return NULL;
    char *place = rows->base + t * rows->step;
    *pitch = (rows->direct ? rows->step : NARROW * (int64_t)rows->size) / (int64_t)sizeof(R);
    if (rows->direct) return (R *)place;
    if (read) copy(rows->tile, NARROW * rows->size, rows->size, place, rows->step, rows->lane, steps, n, rows->size);
    return (R *)rows->tile;
}

INLINE void X(written)(const X(Rows) *rows, int64_t t, int64_t steps, int64_t n) {
    if (rows->base && !rows->direct)
        copy(rows->base + t * rows->step, rows->step, rows->lane, rows->tile, NARROW * rows->size, rows->size, steps, n, rows->size);
}

/* One state, without time, into h or out of it. */
INLINE void X(state)(const X(Rows) *rows, int64_t n, double *h, int out) {
    const int64_t parts = rows->size / sizeof(R);
    if (!rows->base) return;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < parts; j++) {
            R *x = (R *)(rows->base + i * rows->lane) + j;
            if (out) *x = (R)h[parts * i + j];
            else h[parts * i + j] = *x;
        }
}

/* The block of lanes first <= lane < first + n at the outer indices `at`. */
static void X(linear)(const Linear *p, const int64_t *at, int64_t first, int64_t n, char *memory, int backward) {
    const int64_t width = n > NARROW ? WIDE : NARROW, length = p->length;
    const int ca = p->complex_a ? 2 : 1, cb = p->complex_b ? 2 : 1;
    const size_t ea = ca * sizeof(R), eb = cb * sizeof(R);
    double *h = (double *)memory, *sum = h + 2 * width;
    R *row = (R *)(sum + 2 * width), *zero = (R *)((char *)row + 16 * width), *edge = (R *)((char *)zero + 16 * width);
    char *tiles = (char *)edge + 16 * width;
    const size_t tile = (size_t)TILE * 16 * NARROW;
    X(Rows) a = X(rows)(p, &p->a, at, first, ea, tiles);
    const X(Rows) b = X(rows)(p, &p->b, at, first, eb, tiles + tile), states = X(rows)(p, &p->h, at, first, eb, tiles + 2 * tile);
    const X(Rows) h0 = X(rows)(p, &p->h0, at, first, eb, NULL);
    const X(Rows) flags = X(rows)(p, &p->reset, at, first, 1, NULL);
    const int64_t flagged = !flags.base ? 0 : flags.lane ? n : 1;
    int64_t pa, pb, ph, pd, pdb, pda;
    if (p->fixed && !a.direct) {
        copy((char *)row, 0, ea, a.base, 0, a.lane, 1, n, ea);
        a.base = (char *)row;
        a.direct = 1;
    }
    /* whether any lane is reset before step t */
    #define CUT(t) ({ int cut = 0; for (int64_t i = 0; i < flagged; i++) cut |= flags.base[(t) * flags.step + i * flags.lane]; cut; })
    /* zero those lanes of x */
    #define CLEAR(x, t) \
        for (int64_t i = 0; i < n; i++) if (flags.base[(t) * flags.step + i * flags.lane]) \
            for (int j = 0; j < cb; j++) x[cb * i + j] = 0;
    memset(h, 0, 16 * n);
    if (!backward) {
        X(state)(&h0, n, h, 0);
        for (int64_t start = 0; start < length; start += TILE) {
            const int64_t steps = least(TILE, length - start);
            const R *x = X(reach)(&a, start, steps, n, &pa, 1), *y = X(reach)(&b, start, steps, n, &pb, 1);
            R *out = X(reach)(&states, start, steps, n, &ph, 0);
            for (int64_t t = 0, more; t < steps; t += more) {
                more = 1;
                if (!flagged) more = steps;
                else if (CUT(start + t)) { CLEAR(h, start + t) }
                const R *xt = x + t * pa, *yt = y + t * pb;
                if (cb == 1) {
                    /* a few lanes live in registers */
                    if (n == 1) X(real_forward)(1, more, h, xt, pa, yt, pb, out + t * ph, ph);
                    else if (n == 4) X(real_forward)(4, more, h, xt, pa, yt, pb, out + t * ph, ph);
                    else if (n == 8) X(real_forward)(8, more, h, xt, pa, yt, pb, out + t * ph, ph);
                    else X(real_forward)(n, more, h, xt, pa, yt, pb, out + t * ph, ph);
                } else if (ca == 2) X(complex_forward)(n, more, h, xt, pa, yt, pb, out + t * ph, ph, 1);
                else X(complex_forward)(n, more, h, xt, pa, yt, pb, out + t * ph, ph, 0);
            }
            X(written)(&states, start, steps, n);
        }
        const X(Rows) last = X(rows)(p, &p->last, at, first, eb, NULL);
        X(state)(&last, n, h, 1);
        return;
    }
    const X(Rows) dh = X(rows)(p, &p->dh, at, first, eb, tiles + 3 * tile), db = X(rows)(p, &p->db, at, first, eb, tiles + 4 * tile);
    const X(Rows) dlast = X(rows)(p, &p->dlast, at, first, eb, NULL);
    X(Rows) da = X(rows)(p, &p->da, at, first, ea, tiles + 5 * tile);
    const X(Rows) sums = da;
    if (p->fixed) da.base = NULL;
    memset(sum, 0, 16 * n);
    memset(zero, 0, 16 * n);
    X(state)(&dlast, n, h, 0);
    double *g = h;
    /* the state before the first step as a row of the arrays */
    for (int64_t i = 0; h0.base && i < n; i++) memcpy((char *)zero + i * eb, h0.base + i * h0.lane, eb);
    for (int64_t start = (length - 1) / TILE * TILE; length && start >= 0; start -= TILE) {
        const int64_t steps = least(TILE, length - start), earlier = start ? start - 1 : 0;
        const R *x = X(reach)(&a, start, steps, n, &pa, 1), *d = X(reach)(&dh, start, steps, n, &pd, 1);
        const R *s = X(reach)(&states, earlier, start ? steps : steps - 1, n, &ph, 1);
        R *y = X(reach)(&db, start, steps, n, &pdb, 0), *z = X(reach)(&da, start, steps, n, &pda, 0);
        for (int64_t t = steps - 1; t >= 0; t--) {
            const R *before = start ? s + t * ph : t ? s + (t - 1) * ph : zero;
            const int cut = CUT(start + t);
            if (cut) {
                memcpy(edge, before, n * eb);
                CLEAR(edge, start + t)
                before = edge;
            }
            const R *dt = d + t * pd;
            R *zt = z ? z + t * pda : NULL;
            #define STEP(given) \
                if (cb == 1) X(real_backward)(n, g, sum, x + t * pa, before, dt, zt, y + t * pdb, given); \
                else if (ca == 2) X(complex_backward)(n, g, sum, x + t * pa, before, dt, zt, y + t * pdb, given, 1); \
                else X(complex_backward)(n, g, sum, x + t * pa, before, dt, zt, y + t * pdb, given, 0);
            if (d) { STEP(1) } else { STEP(0) }
            #undef STEP
            if (cut) { CLEAR(g, start + t) }
        }
        X(written)(&db, start, steps, n);
        X(written)(&da, start, steps, n);
    }
    if (p->fixed && sums.base)
        for (int64_t i = 0; i < n; i++) memcpy(sums.base + i * sums.lane, sum + ca * i, 8 * ca);
    const X(Rows) dh0 = X(rows)(p, &p->dh0, at, first, eb, NULL);
    X(state)(&dh0, n, g, 1);
    #undef CUT
    #undef CLEAR
}

/* ---------------------------------------------------------------- one input, N modes */

#define ROWS 6
#define PIECE 16 /* terms of a sum that are added up before they join the rest: fewer roundings of large numbers */
INLINE void X(panel)(R *out, int64_t cols, const R *x, int64_t ar, int64_t ak, int64_t K, const R *y, int add) {
    vec acc[ROWS][2] = {{{0}}};
    for (int64_t k = 0; k < K; k++, x += ak, y += cols) {
        const vec y0 = *(const vec *)y, y1 = *(const vec *)(y + LANES);
        #pragma GCC unroll 6
        for (int i = 0; i < ROWS; i++) {
            acc[i][0] += x[i * ar] * y0;
            acc[i][1] += x[i * ar] * y1;
        }
    }
    #pragma GCC unroll 6
    for (int i = 0; i < ROWS; i++) {
        vec *to = (vec *)(out + i * cols), *more = (vec *)(out + i * cols + LANES);
        *to = add ? *to + acc[i][0] : acc[i][0];
        *more = add ? *more + acc[i][1] : acc[i][1];
    }
}

/* out (rows, cols) = A B + A2 B2, with B (K, cols) and B2 (K2, cols) C-contiguous, A2 (rows, K2) too, and A of strides ar, ak.
 * cols is a multiple of 2 LANES; rows is rounded up to ROWS, and A, A2 and out have memory for that. `upper`: B[k][c] is zero
 * for k > c. */
static void X(product)(R *out, int64_t rows, int64_t cols, const R *A, int64_t ar, int64_t ak, int64_t K, const R *B, int upper,
                       const R *A2, int64_t K2, const R *B2) {
    for (int64_t r = 0; r < rows; r += ROWS)
        for (int64_t c = 0; c < cols; c += 2 * LANES) {
            const int64_t some = upper ? least(K, c + 2 * LANES) : K;
            R *to = out + r * cols + c;
            X(panel)(to, cols, A + r * ar, ar, ak, least(some, PIECE), B + c, 0);
            for (int64_t k = PIECE; k < some; k += PIECE)
                X(panel)(to, cols, A + r * ar + k * ak, ar, ak, least(some - k, PIECE), B + k * cols + c, 1);
            for (int64_t k = 0; k < K2; k += PIECE)
                X(panel)(to, cols, A2 + r * K2 + k, K2, 1, least(K2 - k, PIECE), B2 + k * cols + c, 1);
        }
}
#undef PIECE

/* What one channel needs: tables, coefficients re | im padded with zeros to S numbers each, and state or sums. */
typedef struct {
    R *gather;    /* (T, M) w^(T-1-k), for the sums of the backward pass followed in each row by (T-1-k) w^(T-2-k) */
    R *spread;    /* (M, T) scale C w^(r+1); without input w^r. Backward B w^k */
    R *toeplitz;  /* (T, T) K[c - k] */
    double *w, *far, *far_end, *slope, *slope_end, *B, *C;  /* w, w^T, w^m, T w^(T-1), m w^(m-1); m: steps of the last chunk */
    double *state, *dw, *dB, *dC, *rho;
} X(Channel);

/* (re | im) z = x y */
INLINE void X(times)(int64_t S, double *restrict z, const double *restrict x, const double *restrict y) {
    for (int64_t n = 0; n < S; n++) {
        z[n] = x[n] * y[n] - x[S + n] * y[S + n];
        z[S + n] = x[n] * y[S + n] + x[S + n] * y[n];
    }
}

INLINE void X(plane)(double *out, const double *given, int64_t states, int64_t S, double scale, double otherwise) {
    memset(out, 0, 16 * S);
    for (int64_t n = 0; n < states; n++) {
        out[n] = scale * (given ? given[2 * n] : otherwise);
        out[S + n] = scale * (given ? given[2 * n + 1] : 0);
    }
}

static void X(tables)(const Lti *p, int64_t c, X(Channel) *q, double *powers, int backward, int sums) {
    const int64_t N = p->states, S = padded(N), M = 2 * S, last = p->length ? (p->length - 1) % T + 1 : T;
    const int input = p->u.data != NULL;
    X(plane)(q->w, p->w + 2 * c * N, N, S, 1, 0);
    X(plane)(q->B, input && p->B ? p->B + 2 * c * N : NULL, N, S, 1, 1);
    X(plane)(q->C, input ? p->C + 2 * c * N : NULL, N, S, p->scale, 1);
    /* each power is a product of two of half its exponent: rounding grows with the logarithm */
    for (int64_t n = 0; n < S; n++) { powers[n] = 1; powers[S + n] = 0; }
    memcpy(powers + M, q->w, 8 * M);
    for (int64_t k = 2; k <= T; k++) X(times)(S, powers + k * M, powers + (k / 2) * M, powers + (k - k / 2) * M);
    memcpy(q->far, powers + T * M, 8 * M);
    memcpy(q->far_end, powers + last * M, 8 * M);
    for (int64_t n = 0; sums && n < M; n++) {
        q->slope[n] = T * powers[(T - 1) * M + n];
        q->slope_end[n] = last * powers[(last - 1) * M + n];
    }
    const int64_t pitch = sums ? 2 * M : M;
    if (input || backward)
        for (int64_t k = 0; k < T; k++) {
            const double *x = powers + (T - 1 - k) * M, *dx = powers + (k < T - 1 ? T - 2 - k : 0) * M;
            for (int64_t n = 0; n < M; n++) q->gather[k * pitch + n] = (R)x[n];
            for (int64_t n = 0; sums && n < M; n++) q->gather[k * pitch + M + n] = (R)((double)(T - 1 - k) * dx[n]);
        }
    const double *factor = backward ? q->B : q->C;
    if (input || !backward)
        for (int64_t r = 0; r < T; r++) {
            const double *x = powers + (r + (input && !backward ? 1 : 0)) * M;
            for (int64_t n = 0; n < S; n++) {
                q->spread[n * T + r] = (R)(factor[n] * x[n] - factor[S + n] * x[S + n]);
                q->spread[(S + n) * T + r] = (R)(-factor[n] * x[S + n] - factor[S + n] * x[n]);
            }
        }
    if (!input) return;
    double lags[T], both[M];
    X(times)(S, both, q->B, q->C);
    for (int64_t l = 0; l < T; l++) {
        const double *x = powers + l * M;
        double value = l || !p->D ? 0 : p->D[c];
        for (int64_t n = 0; n < S; n++) value += both[n] * x[n] - both[S + n] * x[S + n];
        lags[l] = value;
    }
    for (int64_t k = 0; k < T; k++)
        for (int64_t r = 0; r < T; r++) q->toeplitz[k * T + r] = r < k ? 0 : (R)lags[r - k];
}

INLINE X(Channel) X(channel)(const Lti *p, Arena *arena, int backward) {
    const int64_t M = 2 * padded(p->states);
    X(Channel) q;
    q.gather = take(arena, sizeof(R) * T * M * (backward ? 2 : 1));
    q.spread = take(arena, sizeof(R) * T * M);
    q.toeplitz = take(arena, sizeof(R) * T * T);
    double **rows[] = {&q.w, &q.far, &q.far_end, &q.slope, &q.slope_end, &q.B, &q.C, &q.state, &q.dw, &q.dB, &q.dC};
    for (int i = 0; i < 11; i++) *rows[i] = take(arena, 8 * M);
    q.rho = take(arena, 8 * T);
    return q;
}

/* The state of a channel from or to an array; conjugated where it is a cotangent. A kernel starts from its coefficients,
 * which are doubles: rounded, they would cost as much as all the products. */
INLINE void X(modes)(const Lti *p, const View *v, int64_t b, int64_t c, double *h, double sign, int out) {
    const int64_t S = padded(p->states);
    if (!out) memset(h, 0, 16 * S);
    if (!v->data) return;
    const int exact = v == &p->h0 && !p->u.data;
    for (int64_t n = 0; n < p->states; n++) {
        if (exact) {
            const double *x = (const double *)(v->data + b * v->stride[0] + c * v->stride[1] + n * v->stride[2]);
            h[n] = x[0];
            h[S + n] = x[1];
            continue;
        }
        R *x = (R *)(v->data + b * v->stride[0] + c * v->stride[1] + n * v->stride[2]);
        if (out) { x[0] = (R)h[n]; x[1] = (R)(sign * h[S + n]); }
        else { h[n] = x[0]; h[S + n] = sign * x[1]; }
    }
}

/* `steps` steps of all channels of a group between (channel, step) scratch and an array. */
INLINE void X(stage)(const Lti *p, const View *v, int64_t b, int64_t start, int64_t steps, int64_t c0, int64_t c1, R *scratch, int64_t pitch, int out) {
    char *x = origin(v, p->length, p->reverse, 1, b * v->stride[0] + c0 * v->stride[2]);
    const int64_t step = p->reverse ? -v->stride[1] : v->stride[1], channel = v->stride[2], e = sizeof(R);
    x += start * step;
    if (out) copy(x, channel, step, (char *)scratch, pitch * e, e, c1 - c0, steps, e);
    else copy((char *)scratch, pitch * e, e, x, channel, step, c1 - c0, steps, e);
}

#define PITCH ((CHUNKS + ROWS) * T)

/* Whether n numbers, a multiple of T of them, are finite. */
INLINE int X(finite)(const R *x, int64_t n) {
    vec sum = {0};
    for (int64_t i = 0; i < n; i += LANES) sum += *(const vec *)(x + i) * (R)0;
    int all = 1;
    for (int64_t i = 0; i < LANES; i++) all &= sum[i] == 0;
    return all;
}

/* The steps of a chunk before its first input that is not finite once more: in a product it times zero is NaN. */
static void X(causal)(const X(Channel) *q, R *y, const R *x, const R *h, int64_t M) {
    int64_t bad = 0;
    while (bad < T && x[bad] * 0 == 0) bad++;
    for (int64_t r = 0; r < bad; r++) {
        double sum = 0;
        for (int64_t k = 0; k <= r; k++) sum += (double)x[k] * (double)q->toeplitz[k * T + r];
        for (int64_t n = 0; n < M; n++) sum += (double)h[n] * (double)q->spread[n * T + r];
        y[r] = (R)sum;
    }
}

static void X(lti_forward)(const Lti *p, int64_t c0, int64_t c1, Arena *arena, int run) {
    const int64_t S = padded(p->states), M = 2 * S, count = c1 - c0;
    const int input = p->u.data != NULL;
    X(Channel) channels[GROUP];
    for (int64_t i = 0; i < count; i++) channels[i] = X(channel)(p, arena, 0);
    double *powers = take(arena, 8 * (T + 1) * M);
    R *u = take(arena, sizeof(R) * count * PITCH), *y = take(arena, sizeof(R) * count * PITCH);
    R *U = take(arena, sizeof(R) * (CHUNKS + ROWS) * M), *H = take(arena, sizeof(R) * CHUNKS * M);
    if (!run) return;
    memset(u, 0, sizeof(R) * count * PITCH);
    memset(H, 0, sizeof(R) * CHUNKS * M);
    for (int64_t i = 0; i < count; i++) X(tables)(p, c0 + i, &channels[i], powers, 0, 0);
    for (int64_t b = 0; b < p->batch; b++) {
        for (int64_t i = 0; i < count; i++) X(modes)(p, &p->h0, b, c0 + i, channels[i].state, 1, 0);
        for (int64_t s = 0; s < segments(p); s++) {
            const int64_t start = s * STEPS, steps = least(STEPS, p->length - start), J = (steps + T - 1) / T;
            const int64_t m = steps - (J - 1) * T;  /* steps of the last chunk */
            if (input) X(stage)(p, &p->u, b, start, steps, c0, c1, u, PITCH, 0);
            for (int64_t i = 0; i < count; i++) {
                const X(Channel) *q = &channels[i];
                R *x = u + i * PITCH;
                double *restrict h = q->state;
                if (p->kept) memcpy(p->kept + ((b * segments(p) + s) * p->channels + c0 + i) * M, h, 8 * M);
                if (input) {
                    if (m < T) {
                        /* the incomplete chunk once more, its steps at the end of a row, as the table of powers counts */
                        memset(x + steps, 0, sizeof(R) * (2 * T - m + T - m));
                        memcpy(x + J * T + T - m, x + (J - 1) * T, sizeof(R) * m);
                    }
                    X(product)(U, J + (m < T), M, x, T, 1, T, q->gather, 0, NULL, 0, NULL);
                    if (m < T) memcpy(U + (J - 1) * M, U + J * M, sizeof(R) * M);
                }
                for (int64_t j = 0; j < J; j++) {
                    const double *restrict w = j == J - 1 && m < T ? q->far_end : q->far, *restrict B = q->B;
                    const R *restrict v = U + j * M;
                    R *restrict to = H + j * M;
                    for (int64_t n = 0; n < S; n++) {
                        const double re = h[n], im = h[S + n];
                        to[n] = (R)re;
                        to[S + n] = (R)im;
                        double x_ = w[n] * re - w[S + n] * im, y_ = w[n] * im + w[S + n] * re;
                        if (input) {
                            x_ += B[n] * (double)v[n] - B[S + n] * (double)v[S + n];
                            y_ += B[n] * (double)v[S + n] + B[S + n] * (double)v[n];
                        }
                        h[n] = x_;
                        h[S + n] = y_;
                    }
                }
                X(product)(y + i * PITCH, J, T, x, T, 1, input ? T : 0, q->toeplitz, 1, H, M, q->spread);
                if (input && !X(finite)(x, J * T))
                    for (int64_t j = 0; j < J; j++)
                        if (!X(finite)(x + j * T, T)) X(causal)(q, y + i * PITCH + j * T, x + j * T, H + j * M, M);
            }
            X(stage)(p, &p->y, b, start, steps, c0, c1, y, PITCH, 1);
        }
        for (int64_t i = 0; i < count; i++) X(modes)(p, &p->last, b, c0 + i, channels[i].state, 1, 1);
    }
}

static void X(lti_backward)(const Lti *p, int64_t c0, int64_t c1, Arena *arena, int run) {
    const int64_t S = padded(p->states), M = 2 * S, count = c1 - c0, N = p->states;
    /* what is asked for: derivatives in the parameters, which need u and the states again, or in u, or both */
    const int input = p->u.data != NULL, sums = p->dw != NULL, wide = sums ? 2 * M : M;
    X(Channel) channels[GROUP];
    for (int64_t i = 0; i < count; i++) channels[i] = X(channel)(p, arena, 1);
    double *powers = take(arena, 8 * (T + 1) * M), *H = take(arena, 8 * CHUNKS * M);
    R *u = take(arena, sizeof(R) * count * PITCH), *dy = take(arena, sizeof(R) * count * PITCH), *du = take(arena, sizeof(R) * count * PITCH);
    R *U = take(arena, sizeof(R) * (CHUNKS + ROWS) * 2 * M), *Q = take(arena, sizeof(R) * (CHUNKS + ROWS) * 2 * M);
    R *L = take(arena, sizeof(R) * CHUNKS * M), *back = take(arena, sizeof(R) * PITCH), *lags = take(arena, sizeof(R) * PITCH);
    if (!run) return;
    memset(u, 0, sizeof(R) * count * PITCH);
    memset(dy, 0, sizeof(R) * count * PITCH);
    memset(back, 0, sizeof(R) * PITCH);
    memset(L, 0, sizeof(R) * CHUNKS * M);
    memset(U, 0, sizeof(R) * (CHUNKS + ROWS) * 2 * M);
    for (int64_t i = 0; i < count; i++) {
        X(Channel) *q = &channels[i];
        X(tables)(p, c0 + i, q, powers, 1, sums);
        memset(q->dw, 0, 8 * M);
        memset(q->dB, 0, 8 * M);
        memset(q->dC, 0, 8 * M);
        memset(q->rho, 0, 8 * T);
    }
    for (int64_t b = 0; b < p->batch; b++) {
        /* q->state is now the derivative of the loss in the state, without the conjugate of the cotangent */
        for (int64_t i = 0; i < count; i++) X(modes)(p, &p->dlast, b, c0 + i, channels[i].state, -1, 0);
        for (int64_t s = segments(p) - 1; s >= 0; s--) {
            const int64_t start = s * STEPS, steps = least(STEPS, p->length - start), J = (steps + T - 1) / T;
            const int64_t m = steps - (J - 1) * T;
            const size_t rest = sizeof(R) * (2 * T - m + T - m);
            if (input && sums) X(stage)(p, &p->u, b, start, steps, c0, c1, u, PITCH, 0);
            X(stage)(p, &p->dy, b, start, steps, c0, c1, dy, PITCH, 0);
            for (int64_t i = 0; i < count; i++) {
                const X(Channel) *q = &channels[i];
                R *x = u + i * PITCH, *d = dy + i * PITCH;
                if (m < T) memset(d + steps, 0, rest);
                if (input && sums) {
                    if (m < T) {
                        memset(x + steps, 0, rest);
                        memcpy(x + J * T + T - m, x + (J - 1) * T, sizeof(R) * m);
                    }
                    X(product)(U, J + (m < T), 2 * M, x, T, 1, T, q->gather, 0, NULL, 0, NULL);
                    if (m < T) {
                        memcpy(U + (J - 1) * 2 * M, U + J * 2 * M, sizeof(R) * 2 * M);
                        memset(x + J * T, 0, sizeof(R) * T);
                    }
                }
                /* chunks of dy back to front; the incomplete one from its own end, and in row J from that of a whole chunk */
                for (int64_t j = 0; j < J; j++) {
                    const int64_t e = j == J - 1 ? m : T;
                    for (int64_t k = 0; k < e; k++) back[j * T + k] = d[j * T + e - 1 - k];
                    for (int64_t k = e; k < T; k++) back[j * T + k] = 0;
                }
                if (m < T) for (int64_t k = 0; k < T; k++) back[J * T + k] = d[J * T - 1 - k];
                X(product)(Q, J + (m < T), wide, back, T, 1, T, q->gather, 0, NULL, 0, NULL);
                if (m < T) memcpy(Q + (J - 1) * wide, Q + J * wide, sizeof(R) * wide);
                /* the states before each chunk once more */
                if (sums) memcpy(H, p->kept + ((b * segments(p) + s) * p->channels + c0 + i) * M, 8 * M);
                for (int64_t j = 0; sums && j + 1 < J; j++) {
                    const double *restrict h = H + j * M, *restrict w = q->far, *restrict B = q->B;
                    double *restrict to = H + (j + 1) * M;
                    const R *restrict v = U + j * 2 * M;
                    for (int64_t n = 0; n < S; n++) {
                        to[n] = w[n] * h[n] - w[S + n] * h[S + n] + B[n] * (double)v[n] - B[S + n] * (double)v[S + n];
                        to[S + n] = w[n] * h[S + n] + w[S + n] * h[n] + B[n] * (double)v[S + n] + B[S + n] * (double)v[n];
                    }
                }
                for (int64_t j = J - 1; j >= 0; j--) {
                    const int end = j == J - 1 && m < T;
                    const double *restrict h = H + j * M, *restrict far = end ? q->far_end : q->far, *restrict slope = end ? q->slope_end : q->slope;
                    const double *restrict w = q->w, *restrict B = q->B, *restrict C = q->C;
                    double *restrict l = q->state, *restrict dw = q->dw, *restrict dB = q->dB, *restrict dC = q->dC;
                    const R *restrict v = U + j * 2 * M, *restrict g = Q + j * wide;
                    R *restrict to = L + j * M;
                    for (int64_t n = 0; !sums && n < S; n++) {
                        const double a = l[n], b_ = l[S + n];
                        to[n] = (R)a;
                        to[S + n] = (R)b_;
                        double x = far[n] * a - far[S + n] * b_, y = far[n] * b_ + far[S + n] * a;
                        if (input) {
                            const double qr = w[n] * (double)g[n] - w[S + n] * (double)g[S + n];
                            const double qi = w[n] * (double)g[S + n] + w[S + n] * (double)g[n];
                            x += C[n] * qr - C[S + n] * qi;
                            y += C[n] * qi + C[S + n] * qr;
                        } else {
                            x += C[n] * (double)g[n] - C[S + n] * (double)g[S + n];
                            y += C[n] * (double)g[S + n] + C[S + n] * (double)g[n];
                        }
                        l[n] = x;
                        l[S + n] = y;
                    }
                    if (!sums) continue;
                    for (int64_t n = 0; n < S; n++) {
                        const double a = l[n], b_ = l[S + n], hr = h[n], hi = h[S + n];
                        double qr = g[n], qi = g[S + n], pr = g[M + n], pi = g[M + S + n];
                        to[n] = (R)a;
                        to[S + n] = (R)b_;
                        double xr = slope[n] * hr - slope[S + n] * hi, xi = slope[n] * hi + slope[S + n] * hr;
                        if (input) {
                            /* the output is one power ahead of what was gathered: w q, and its derivative w p + q */
                            const double q0 = qr, p0 = pr;
                            pr = w[n] * p0 - w[S + n] * pi + qr;
                            pi = w[n] * pi + w[S + n] * p0 + qi;
                            qr = w[n] * q0 - w[S + n] * qi;
                            qi = w[n] * qi + w[S + n] * q0;
                            const double ur = v[n], ui = v[S + n], tr = v[M + n], ti = v[M + S + n];
                            dB[n] += a * ur - b_ * ui;
                            dB[S + n] += a * ui + b_ * ur;
                            dC[n] += hr * qr - hi * qi;
                            dC[S + n] += hr * qi + hi * qr;
                            xr += B[n] * tr - B[S + n] * ti;
                            xi += B[n] * ti + B[S + n] * tr;
                        }
                        const double cr = C[n] * hr - C[S + n] * hi, ci = C[n] * hi + C[S + n] * hr;
                        dw[n] += cr * pr - ci * pi + a * xr - b_ * xi;
                        dw[S + n] += cr * pi + ci * pr + a * xi + b_ * xr;
                        l[n] = far[n] * a - far[S + n] * b_ + C[n] * qr - C[S + n] * qi;
                        l[S + n] = far[n] * b_ + far[S + n] * a + C[n] * qi + C[S + n] * qr;
                    }
                }
                if (p->du.data) {
                    R *out = du + i * PITCH;
                    X(product)(lags, J, T, back, T, 1, T, q->toeplitz, 1, L, M, q->spread);
                    for (int64_t j = 0; j < J; j++) {
                        const int64_t e = j == J - 1 ? m : T;
                        for (int64_t k = 0; k < e; k++) out[j * T + e - 1 - k] = lags[j * T + k];
                    }
                }
                if (!input || !sums) continue;
                /* rho[l] = sum over the pairs of a chunk of u[t - l] dy[t] */
                X(product)(lags, T, T, x, 1, T, J, d, 0, NULL, 0, NULL);
                for (int64_t k = 0; k < T; k++)
                    for (int64_t r = k; r < T; r++) q->rho[r - k] += lags[k * T + r];
            }
            if (p->du.data) X(stage)(p, &p->du, b, start, steps, c0, c1, du, PITCH, 1);
        }
        for (int64_t i = 0; i < count; i++) X(modes)(p, &p->dh0, b, c0 + i, channels[i].state, -1, 1);
    }
    for (int64_t i = 0; sums && i < count; i++) {
        const X(Channel) *q = &channels[i];
        for (int64_t n = 0; n < N; n++) {
            /* sum_l rho[l] w^l and its derivative, by Horner's rule */
            double vr = 0, vi = 0, dr = 0, di = 0;
            const double wr = q->w[n], wi = q->w[S + n], br = q->B[n], bi = q->B[S + n], cr = q->C[n], ci = q->C[S + n];
            for (int64_t l = T - 1; input && l >= 0; l--) {
                const double t = dr;
                dr = wr * t - wi * di + vr;
                di = wr * di + wi * t + vi;
                const double z = vr;
                vr = wr * z - wi * vi + q->rho[l];
                vi = wr * vi + wi * z;
            }
            const double er = br * cr - bi * ci, ei = br * ci + bi * cr;
            double *dw = p->dw + 2 * ((c0 + i) * N + n);
            dw[0] = q->dw[n] + er * dr - ei * di;
            dw[1] = -(q->dw[S + n] + er * di + ei * dr);
            if (!input) continue;
            double *dB = p->dB + 2 * ((c0 + i) * N + n), *dC = p->dC + 2 * ((c0 + i) * N + n);
            dB[0] = q->dB[n] + cr * vr - ci * vi;
            dB[1] = -(q->dB[S + n] + cr * vi + ci * vr);
            dC[0] = p->scale * (q->dC[n] + br * vr - bi * vi);
            dC[1] = -p->scale * (q->dC[S + n] + br * vi + bi * vr);
        }
        if (input) p->dD[c0 + i] = q->rho[0];
    }
}

#undef GLUE_
#undef GLUE
#undef X
#undef R
#undef vec
#undef LANES
#undef ROWS
#undef PITCH
#endif
