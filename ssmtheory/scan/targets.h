/* Compiles the body of a source for every instruction set, and says which is the best here.
 *
 * Before: SELF, the name of the source, which includes itself with ISA (its name) and BYTES (of a vector) defined.
 * After: FOR_EACH_ISA(KINDS, f), one KINDS(f, name) for each set, and `best()`, the number of the last that runs.
 */
#define ISA generic
#define BYTES 16
#include SELF
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
#include SELF
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
#include SELF
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
#define FOR_EACH_ISA(KINDS, f) KINDS(f, generic), KINDS(f, avx2), KINDS(f, avx512)
#else
static int best(void) { return 0; }
#define FOR_EACH_ISA(KINDS, f) KINDS(f, generic)
#endif

static const char *const names[] = {"generic", "avx2", "avx512"};

/* The name of an instruction set that this machine has, counted from 1; 0 is the best of them; else NULL. */
static const char *instruction_set(int number) {
    return number < 0 || number > best() + 1 ? NULL : names[number ? number - 1 : best()];
}
