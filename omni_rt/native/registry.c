/* What this build is made of: its sources, and its dispatch levels, best first. */
#include "omni.h"

const char *omni_built_from(void) { return OMNI_BUILT_FROM; }

extern const omni_level omni_level_portable;
#if defined(__x86_64__)
extern const omni_level omni_level_avx512, omni_level_avx2_vnni, omni_level_avx2;
#elif defined(__aarch64__)
extern const omni_level omni_level_neon_dotprod, omni_level_neon;
#endif

const omni_level *const omni_levels[] = {
#if defined(__x86_64__)
    &omni_level_avx512,
    &omni_level_avx2_vnni,
    &omni_level_avx2,
#elif defined(__aarch64__)
    &omni_level_neon_dotprod,
    &omni_level_neon,
#endif
    &omni_level_portable,
    0,
};
