/* Compile what follows for OMNI_TARGET, so that one build serves all processors. */
#define OMNI_TEXT(x) #x
#define OMNI_PRAGMA(x) _Pragma(OMNI_TEXT(x))
#if defined(__clang__)
OMNI_PRAGMA(clang attribute push(__attribute__((target(OMNI_TARGET))), apply_to = function))
#else
#pragma GCC push_options
OMNI_PRAGMA(GCC target(OMNI_TARGET))
#endif
