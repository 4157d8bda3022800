// What the library says of itself.
#include "common.h"

// Raised with every change of a function's arguments; ops/_native/loader.py refuses another.
VMF_API int32_t vmf_interface_version() { return VMF_INTERFACE_VERSION; }

// The instruction set that the clones of this machine use, for `videomae-fast doctor`.
VMF_API const char* vmf_instruction_set() {
#if defined(VMF_HAVE_CLONES)
  __builtin_cpu_init();
#if defined(VMF_HAVE_AVX512)
  if (__builtin_cpu_supports("x86-64-v4")) return "x86-64-v4 (AVX-512)";
#endif
  if (__builtin_cpu_supports("x86-64-v3")) return "x86-64-v3 (AVX2)";
  return "x86-64 (SSE2)";
#elif defined(__aarch64__)
  return "aarch64 (NEON)";
#else
  return "baseline";
#endif
}
