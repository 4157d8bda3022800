// Bytes through tables of 256, one for each of three channels.
//
// With AVX-512 VBMI a table is four registers, and 64 bytes go through it in two instructions: one for
// levels below 128, one for those from there on. Elsewhere a byte is a look-up.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "common.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(VMF_NO_BYTE_TABLES)
#include <immintrin.h>
#define VMF_BYTE_TABLES 1
#endif

namespace vmf {

inline void through_tables_one_by_one(const uint8_t (&tables)[3][256], const uint8_t* from,
                                      uint8_t* to, int64_t pixels) {
  for (int64_t i = 0; i < pixels; ++i) {
    for (int64_t c = 0; c < 3; ++c) to[3 * i + c] = tables[c][from[3 * i + c]];
  }
}

#if VMF_BYTE_TABLES
// Whole pixels of 64 bytes at a time: 21 of them, and a byte that is made once more.
__attribute__((target("avx512f,avx512bw,avx512vbmi"))) inline int64_t through_tables_by_registers(
    const uint8_t (&tables)[3][256], const uint8_t* from, uint8_t* to, int64_t pixels) {
  constexpr int64_t kBytes = 64, kPixels = 21;
  // Which bytes are of the second and of the third channel
  constexpr __mmask64 kOf[3] = {0, 0x2492492492492492, 0x4924924924924924};
  const bool alike = std::memcmp(tables[0], tables[1], 256) == 0 &&
                     std::memcmp(tables[0], tables[2], 256) == 0;
  __m512i table[3][4];
  for (int c = 0; c < 3; ++c) {
    for (int k = 0; k < 4; ++k) table[c][k] = _mm512_loadu_si512(tables[c] + kBytes * k);
  }
  int64_t done = 0;
  for (; 3 * done + kBytes <= 3 * pixels; done += kPixels) {
    const __m512i levels = _mm512_loadu_si512(from + 3 * done);
    const __mmask64 upper = _mm512_movepi8_mask(levels);
    __m512i found = _mm512_setzero_si512();
    for (int c = 0; c < (alike ? 1 : 3); ++c) {
      const __m512i low = _mm512_permutex2var_epi8(table[c][0], levels, table[c][1]);
      const __m512i high = _mm512_permutex2var_epi8(table[c][2], levels, table[c][3]);
      const __m512i both = _mm512_mask_blend_epi8(upper, low, high);
      found = c == 0 ? both : _mm512_mask_blend_epi8(kOf[c], found, both);
    }
    _mm512_storeu_si512(to + 3 * done, found);
  }
  return done;
}
#endif

// `to` is `from`, or does not overlap it.
inline void through_tables(const uint8_t (&tables)[3][256], const uint8_t* from, uint8_t* to,
                           int64_t pixels) {
  int64_t done = 0;
#if VMF_BYTE_TABLES
  __builtin_cpu_init();
  if (from != to && __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512bw")) {
    done = through_tables_by_registers(tables, from, to, pixels);
  }
#endif
  through_tables_one_by_one(tables, from + 3 * done, to + 3 * done, pixels - done);
}

}  // namespace vmf
