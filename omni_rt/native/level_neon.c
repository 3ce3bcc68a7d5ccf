/* The bodies for AArch64. */
#if defined(__aarch64__)
#include <arm_neon.h>
#include <string.h>

#include "omni.h"
#include "simd_neon.h"
static int supported(void) { return 1; }
#define OMNI_LEVEL omni_level_neon
#define OMNI_LEVEL_NAME "neon"
#include "bodies.h"
#else
typedef int omni_not_arm;
#endif
