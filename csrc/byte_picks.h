// The pass along a row for processors that pick any of 64 bytes at once (AVX-512 VBMI).
//
// Neighbouring pixels lie 3 bytes apart, so a result's 16 bytes need up to 64 source bytes that are
// no run. One instruction brings them in order, two taps to a word: the other way, turning rows on
// their side, takes twice as long.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(VMF_NO_BYTE_PICKS)
#include <immintrin.h>
#define VMF_BYTE_PICKS 1
#endif

namespace vmf {

// Sixteen bytes of a result's row.
struct alignas(64) BytePicks {
  static constexpr int64_t kBytes = 16;
  static constexpr int64_t kTaps = 4;  // at most
  static constexpr int kLowBits = 11;  // a weight of 23 bits as two signed words

  uint8_t from[2][64];  // taps 0 and 1, 2 and 3: byte 2k of a word is that of tap k
  int16_t low[2][32], high[2][32];
  uint64_t needed;  // which of the 64 bytes are read
  int64_t first;    // byte of the source's row that they begin at
};

inline bool picks_bytes() {
#if VMF_BYTE_PICKS
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
#else
  return false;
#endif
}

// The picks of a row of `width` pixels, or none where some result needs more than 4 taps or 64 bytes.
// A table's entry is a first pixel and `taps` weights; flipped, the last entry is the first pixel's.
inline std::vector<BytePicks> byte_picks(const int32_t* table, int64_t taps, int64_t width,
                                         bool flip) {
  if (taps > BytePicks::kTaps || !picks_bytes()) return {};
  const int64_t bytes = 3 * width;
  std::vector<BytePicks> row(
      static_cast<size_t>((bytes + BytePicks::kBytes - 1) / BytePicks::kBytes));
  int64_t begin = 0;
  for (BytePicks& picks : row) {
    picks = {};
    const int64_t end = std::min(begin + BytePicks::kBytes, bytes);
    const auto entry = [&](int64_t byte) {
      return table + (flip ? width - 1 - byte / 3 : byte / 3) * (1 + taps);
    };
    picks.first = std::numeric_limits<int64_t>::max();
    for (int64_t byte = begin; byte < end; ++byte) {
      picks.first = std::min<int64_t>(picks.first, 3 * entry(byte)[0]);
    }
    for (int64_t byte = begin; byte < end; ++byte) {
      const int32_t* found = entry(byte);
      for (int64_t k = 0; k < taps; ++k) {
        const int64_t place = 3 * (found[0] + k) + byte % 3 - picks.first;
        if (place >= 64) return {};
        const int64_t pair = k / 2, word = 2 * (byte - begin) + k % 2;
        picks.needed |= uint64_t{1} << place;
        picks.from[pair][2 * word] = static_cast<uint8_t>(place);
        picks.low[pair][word] =
            static_cast<int16_t>(found[1 + k] & ((1 << BytePicks::kLowBits) - 1));
        picks.high[pair][word] = static_cast<int16_t>(found[1 + k] >> BytePicks::kLowBits);
      }
    }
    begin = end;
  }
  return row;
}

#if VMF_BYTE_PICKS
// Sixteen bytes of `rows` rows that lie `stride` bytes apart, to rows `out_stride` bytes apart.
template <bool two_pairs>
__attribute__((target("avx512f,avx512bw,avx512vl,avx512vbmi,avx512vnni"))) inline void blend_picked(
    const BytePicks& picks, int precision, const uint8_t* source, int64_t stride, int64_t rows,
    uint8_t* out, int64_t out_stride) {
  constexpr __mmask64 kEven = 0x5555555555555555;  // a byte per word, the other is 0
  // Without a mask, GCC 12 warns of its own header's undefined operand; the code is the same.
  constexpr __mmask16 kAll = 0xffff;
  const __m512i half = _mm512_set1_epi32(1 << (precision - 1)), none = _mm512_setzero_si512();
  const __m512i from = _mm512_load_si512(picks.from[0]), more = _mm512_load_si512(picks.from[1]);
  const __m512i low = _mm512_load_si512(picks.low[0]), more_low = _mm512_load_si512(picks.low[1]);
  const __m512i high = _mm512_load_si512(picks.high[0]),
                more_high = _mm512_load_si512(picks.high[1]);
  source += picks.first;
  for (int64_t r = 0; r < rows; ++r, source += stride, out += out_stride) {
    const __m512i bytes = _mm512_maskz_loadu_epi8(picks.needed, source);
    const __m512i pair = _mm512_maskz_permutexvar_epi8(kEven, from, bytes);
    __m512i lows = _mm512_dpwssd_epi32(half, pair, low);
    __m512i highs = _mm512_dpwssd_epi32(none, pair, high);
    if constexpr (two_pairs) {
      const __m512i other = _mm512_maskz_permutexvar_epi8(kEven, more, bytes);
      lows = _mm512_dpwssd_epi32(lows, other, more_low);
      highs = _mm512_dpwssd_epi32(highs, other, more_high);
    }
    const __m512i sum =
        _mm512_add_epi32(lows, _mm512_maskz_slli_epi32(kAll, highs, BytePicks::kLowBits));
    const __m512i level = _mm512_maskz_srl_epi32(kAll, sum, _mm_cvtsi32_si128(precision));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_maskz_cvtepi32_epi8(kAll, level));
  }
}
#endif

// All rows of a frame's box. The result's rows are `out_stride` bytes apart, room for whole picks.
inline void across_picked(const std::vector<BytePicks>& row, int64_t taps, int precision,
                          const uint8_t* source, int64_t stride, int64_t rows, uint8_t* out,
                          int64_t out_stride) {
#if VMF_BYTE_PICKS
  constexpr int64_t kBand = 16;  // rows whose bytes stay in the L1 cache
  for (int64_t y = 0; y < rows; y += kBand) {
    const int64_t count = std::min(kBand, rows - y);
    const uint8_t* from = source + y * stride;
    uint8_t* to = out + y * out_stride;
    for (const BytePicks& picks : row) {
      if (taps > 2) {
        blend_picked<true>(picks, precision, from, stride, count, to, out_stride);
      } else {
        blend_picked<false>(picks, precision, from, stride, count, to, out_stride);
      }
      to += BytePicks::kBytes;
    }
  }
#else
  (void)row, (void)taps, (void)precision, (void)source, (void)stride, (void)rows;
  (void)out, (void)out_stride;
#endif
}

}  // namespace vmf
