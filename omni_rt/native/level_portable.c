/* The bodies for any processor. */
#include <string.h>

#include "omni.h"
#include "simd_portable.h"
static int supported(void) { return 1; }
#define OMNI_LEVEL omni_level_portable
#define OMNI_LEVEL_NAME "portable"
#include "bodies.h"
