/* The bodies for x86-64 with AVX2, FMA and F16C. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#include "omni.h"

static int supported(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

#define OMNI_TARGET "avx2,fma,f16c"
#include "target_begin.h"
#include "simd_avx2.h"
#define OMNI_LEVEL omni_level_avx2
#define OMNI_LEVEL_NAME "avx2"
#include "bodies.h"
#include "target_end.h"
#else
typedef int omni_not_x86;
#endif
