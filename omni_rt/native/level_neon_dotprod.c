/* The bodies for AArch64 with int8 dot products. */
#if defined(__aarch64__)
#include <arm_neon.h>
#include <string.h>
#if defined(__linux__)
#include <sys/auxv.h>
#endif

#include "omni.h"

static int supported(void) {
#if defined(__linux__)
    return getauxval(AT_HWCAP) >> 20 & 1; /* HWCAP_ASIMDDP */
#else
    return 1; /* every Apple processor that runs macOS on ARM has them */
#endif
}

#if defined(__clang__)
#define OMNI_TARGET "dotprod"
#else
#define OMNI_TARGET "arch=armv8.2-a+dotprod"
#endif
#define OMNI_DOTPROD
#include "target_begin.h"
#include "simd_neon.h"
#define OMNI_LEVEL omni_level_neon_dotprod
#define OMNI_LEVEL_NAME "neon-dotprod"
#include "bodies.h"
#include "target_end.h"
#else
typedef int omni_not_arm;
#endif
