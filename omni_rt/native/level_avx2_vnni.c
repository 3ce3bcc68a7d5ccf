/* The bodies for x86-64 with AVX2, FMA, F16C and AVX-VNNI (int8 dot products of 256 bits). */
#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#include <string.h>

#include "omni.h"

static int supported(void) {
    unsigned a, b, c, d;
    int vnni = __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
    return vnni && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

#define OMNI_TARGET "avx2,fma,f16c,avxvnni"
#define OMNI_VNNI
#include "target_begin.h"
#include "simd_avx2.h"
#define OMNI_LEVEL omni_level_avx2_vnni
#define OMNI_LEVEL_NAME "avx2-vnni"
#include "bodies.h"
#include "target_end.h"
#else
typedef int omni_not_x86;
#endif
