/* The bodies for x86-64 with AVX-512 (F, BW, VL, DQ) and its VNNI. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#include "omni.h"

static int supported(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("fma");
}

#define OMNI_TARGET "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c"
#include "target_begin.h"
#include "simd_avx512.h"
#define OMNI_LEVEL omni_level_avx512
#define OMNI_LEVEL_NAME "avx512"
#include "bodies.h"
#include "target_end.h"
#else
typedef int omni_not_x86;
#endif
