/* What the C sources of the scan share: inlining, flush-to-zero, scratch memory. */
#ifndef SSMTHEORY_COMMON_H
#define SSMTHEORY_COMMON_H
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))

/* Flush-to-zero for the call alone: a decaying state would otherwise spend its life in denormals. */
#if defined(__SSE__)
#define FLUSH_BEGIN const unsigned csr = _mm_getcsr(); _mm_setcsr(csr | 0x8040);
#define FLUSH_END _mm_setcsr(csr);
#else
#define FLUSH_BEGIN
#define FLUSH_END
#endif

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Cache-line aligned pieces of one allocation; with memory == NULL it only counts. */
typedef struct { char *memory; size_t used; } Arena;

INLINE void *take(Arena *arena, size_t bytes) {
    void *p = arena->memory ? arena->memory + arena->used : NULL;
    arena->used += (bytes + 63) & ~(size_t)63;
    return p;
}
#endif
