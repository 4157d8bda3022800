// The pass across a row of floats, 3 to a pixel: each output pixel joins two pixels of the row.
//
// With AVX-512, 16 output floats pick theirs from 48 neighbours in registers, by two permutations, where
// the row shrinks to no less than four tenths; without, or where it shrinks more, one after the other.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "common.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(VMF_NO_FLOAT_PICKS)
#include <immintrin.h>
#define VMF_FLOAT_PICKS 1
#endif

namespace vmf {

// An output pixel: its two neighbours and their weights.
struct Place {
  int64_t first, second;
  float before, behind;
};

constexpr int64_t kPicked = 16;      // floats at a time
constexpr int64_t kPickWindow = 48;  // that they are picked from
constexpr int64_t kPickSlack = kPickWindow;  // floats behind a row that may be read

struct alignas(64) FloatPicks {
  int32_t from[2][kPicked];  // in the window
  float weight[2][kPicked];
  int64_t first;    // float of the row that the window begins at
  uint16_t far[2];  // which are picked from its last third
};

VMF_CLONES inline void across_one_by_one(const float* line, const Place* columns, int64_t width,
                                         float* out) {
  for (int64_t x = 0; x < width; ++x) {
    const Place& place = columns[x];
    const float *first = line + 3 * place.first, *second = line + 3 * place.second;
    for (int64_t c = 0; c < 3; ++c) out[3 * x + c] = place.before * first[c] + place.behind * second[c];
  }
}

#if VMF_FLOAT_PICKS
__attribute__((target("avx512f"))) inline void across_picked(const float* line,
                                                             const FloatPicks* picks, int64_t count,
                                                             float* out) {
  for (int64_t i = 0; i < count; ++i, out += kPicked) {
    const FloatPicks& one = picks[i];
    const float* window = line + one.first;
    const __m512 near = _mm512_loadu_ps(window), next = _mm512_loadu_ps(window + 16),
                 last = _mm512_loadu_ps(window + 32);
    const __m512i from[2] = {_mm512_load_si512(one.from[0]), _mm512_load_si512(one.from[1])};
    __m512 value[2];
    for (int k = 0; k < 2; ++k) {
      value[k] = _mm512_permutex2var_ps(near, from[k], next);
      value[k] = _mm512_mask_permutexvar_ps(value[k], one.far[k], from[k], last);
    }
    const __m512 sum = _mm512_mul_ps(value[0], _mm512_load_ps(one.weight[0]));
    _mm512_storeu_ps(out, _mm512_fmadd_ps(value[1], _mm512_load_ps(one.weight[1]), sum));
  }
}
#endif

class Across {
 public:
  explicit Across(std::vector<Place> columns) : columns_(std::move(columns)) {
#if VMF_FLOAT_PICKS
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx512f")) return;
    std::vector<FloatPicks> picks(static_cast<size_t>(length() / kPicked));
    for (size_t i = 0; i < picks.size(); ++i) {
      if (!fill(picks[i], static_cast<int64_t>(i) * kPicked)) return;
    }
    picks_ = std::move(picks);
#endif
  }

  // Floats of an output row.
  int64_t length() const { return 3 * static_cast<int64_t>(columns_.size()); }

  // `line` has kPickSlack floats behind it.
  void row(const float* line, float* out) const {
    int64_t done = 0;
#if VMF_FLOAT_PICKS
    const auto count = static_cast<int64_t>(picks_.size());
    if (count > 0) across_picked(line, picks_.data(), count, out);
    done = count * kPicked / 3;  // a pixel that is picked in part is made once more
#endif
    across_one_by_one(line, columns_.data() + done, length() / 3 - done, out + 3 * done);
  }

 private:
  const Place& at(int64_t place) const { return columns_[static_cast<size_t>(place / 3)]; }

  // Whether the floats from `begin` on can be picked.
  bool fill(FloatPicks& picks, int64_t begin) const {
    picks = {};
    picks.first = std::numeric_limits<int64_t>::max();
    for (int64_t i = begin; i < begin + kPicked; ++i) {
      picks.first = std::min(picks.first, 3 * at(i).first);
    }
    for (int64_t i = begin; i < begin + kPicked; ++i) {
      const Place& place = at(i);
      const int64_t pixels[2] = {place.first, place.second};
      const float weights[2] = {place.before, place.behind};
      for (int64_t k = 0; k < 2; ++k) {
        const int64_t from = 3 * pixels[k] + i % 3 - picks.first;
        if (from >= kPickWindow) return false;
        picks.from[k][i - begin] = static_cast<int32_t>(from);
        picks.weight[k][i - begin] = weights[k];
        if (from >= 32) picks.far[k] |= static_cast<uint16_t>(1u << (i - begin));
      }
    }
    return true;
  }

  std::vector<Place> columns_;
  std::vector<FloatPicks> picks_;
};

}  // namespace vmf
