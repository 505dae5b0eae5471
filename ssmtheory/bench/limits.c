/* What one core of this machine can do: fused multiply-adds, exponentials, reading and copying memory.
 *
 * Every function works for a given number of rounds and leaves the clock to its caller. GNU vector extensions: one
 * source for every width; a function's target attribute says which instructions it may use. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define LANES_FUNCTIONS(NAME, TARGET, WIDTH)                                                                          \
    typedef float NAME##_f __attribute__((vector_size(4 * WIDTH)));                                                   \
    typedef int32_t NAME##_i __attribute__((vector_size(4 * WIDTH)));                                                 \
    /* ten chains of dependent multiply-adds: enough to hide their latency, few enough for the registers */           \
    TARGET static float NAME##_fma(long rounds, float scale, float shift)                                             \
    {                                                                                                                 \
        NAME##_f a = (NAME##_f){0} + scale, b = (NAME##_f){0} + shift;                                                \
        NAME##_f x0 = a, x1 = b, x2 = a - b, x3 = a + b, x4 = -a, x5 = -b, x6 = b - a, x7 = a * b, x8 = a * a;        \
        NAME##_f x9 = b * b;                                                                                          \
        for (long i = 0; i < rounds; i++) {                                                                           \
            x0 = x0 * a + b, x1 = x1 * a + b, x2 = x2 * a + b, x3 = x3 * a + b, x4 = x4 * a + b;                      \
            x5 = x5 * a + b, x6 = x6 * a + b, x7 = x7 * a + b, x8 = x8 * a + b, x9 = x9 * a + b;                      \
        }                                                                                                             \
        x0 += x1 + x2 + x3 + x4 + x5 + x6 + x7 + x8 + x9;                                                             \
        return x0[0];                                                                                                 \
    }                                                                                                                 \
    /* exp(x) = 2^k p(r), a polynomial of degree 5, the exponent by integer addition; in cache, n a multiple of 16 */ \
    TARGET static void NAME##_exp(long rounds, const float *in, float *out, long n)                                   \
    {                                                                                                                 \
        const float magic = 12582912.0f;                                                                              \
        for (long r = 0; r < rounds; r++) {                                                                           \
            for (long i = 0; i + WIDTH <= n; i += WIDTH) {                                                            \
                NAME##_f x, t, f, p;                                                                                  \
                memcpy(&x, in + i, sizeof x);                                                                         \
                t = x * 1.44269504f + magic;                                                                          \
                f = x * 1.44269504f - (t - magic);                                                                    \
                p = f * 1.33333e-3f + 9.61812e-3f;                                                                    \
                p = p * f + 5.550411e-2f;                                                                             \
                p = p * f + 2.4022651e-1f;                                                                            \
                p = p * f + 6.9314718e-1f;                                                                            \
                p = p * f + 1.0f;                                                                                     \
                NAME##_i k = ((NAME##_i)t << 23) + (NAME##_i)p;                                                       \
                memcpy(out + i, &k, sizeof k);                                                                        \
            }                                                                                                         \
            __asm__ volatile("" ::: "memory");                                                                        \
        }                                                                                                             \
    }                                                                                                                 \
    TARGET static float NAME##_read(long rounds, const float *in, long n)                                             \
    {                                                                                                                 \
        NAME##_f s[4] = {{0}};                                                                                        \
        for (long r = 0; r < rounds; r++) {                                                                           \
            for (long i = 0; i + 4 * WIDTH <= n; i += 4 * WIDTH) {                                                    \
                _Pragma("GCC unroll 4") for (int j = 0; j < 4; j++) {                                                 \
                    NAME##_f x;                                                                                       \
                    memcpy(&x, in + i + j * WIDTH, sizeof x);                                                         \
                    s[j] += x;                                                                                        \
                }                                                                                                     \
            }                                                                                                         \
            __asm__ volatile("" ::: "memory");                                                                        \
        }                                                                                                             \
        s[0] += s[1] + s[2] + s[3];                                                                                   \
        return s[0][0];                                                                                               \
    }

#if defined(__x86_64__)
LANES_FUNCTIONS(wide, __attribute__((target("avx512f,avx512dq,fma"))), 16)
LANES_FUNCTIONS(middle, __attribute__((target("avx2,fma"))), 8)
static int level(void)
{
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) return 2;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
#define CHOOSE(CALL) (level() == 2 ? wide##CALL : level() == 1 ? middle##CALL : narrow##CALL)
#else
#define CHOOSE(CALL) (narrow##CALL)
static int level(void) { return 0; }
#endif
LANES_FUNCTIONS(narrow, , 4)

/* float32 numbers in a vector */
long ssm_limits_width(void) { return level() == 2 ? 16 : level() == 1 ? 8 : 4; }

/* vector multiply-adds in one round of ssm_limits_fma */
long ssm_limits_chains(void) { return 10; }

float ssm_limits_fma(long rounds, float scale, float shift) { return CHOOSE(_fma(rounds, scale, shift)); }

void ssm_limits_exp(long rounds, const float *in, float *out, long n) { CHOOSE(_exp(rounds, in, out, n)); }

float ssm_limits_read(long rounds, const float *in, long n) { return CHOOSE(_read(rounds, in, n)); }

void ssm_limits_copy(long rounds, const float *in, float *out, long n)
{
    for (long r = 0; r < rounds; r++) {
        memcpy(out, in, sizeof(float) * (size_t)n);
        __asm__ volatile("" ::: "memory");
    }
}
