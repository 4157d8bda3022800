// What the library says of itself.
#include "common.h"

// Raised with every change of a function's arguments; videomae_fast/ops/_native.py refuses another.
VMF_API int32_t vmf_interface_version() { return VMF_INTERFACE_VERSION; }

// The instruction set that the clones of this machine use, for `videomae-fast doctor`.
VMF_API const char* vmf_instruction_set() {
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(VMF_NO_CLONES)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
    return "avx512";
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return "avx2";
  return "sse2";
#elif defined(__aarch64__)
  return "neon";
#else
  return "baseline";
#endif
}
