// Mixup and cutmix of a batch's clips: clip i with clip batch - 1 - i, rows of pixels at a time.
#include <algorithm>
#include <cstring>
#include <new>

#include "common.h"
#include "parallel.h"

namespace vmf {
namespace {

constexpr int64_t kChannels = 3;

// Both products are rounded (no fused multiply-add in this file), as the reference has them.
VMF_CLONES void blend(const float* __restrict own, const float* __restrict other,
                      float* __restrict out, float share, float rest, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) out[i] = own[i] * share + other[i] * rest;
}

void copy(const float* from, float* to, int64_t begin, int64_t end) {
  std::memcpy(to + begin, from + begin, sizeof(float) * static_cast<size_t>(end - begin));
}

}  // namespace
}  // namespace vmf

// A clip with a box is its own outside of it and its partner's inside, in all frames; with an empty
// box it is blended, `own` of itself.
VMF_API int64_t vmf_mix_clips(const float* clips,    // [batch, frames, height, width, 3]
                              const double* own,     // [batch]
                              const int64_t* boxes,  // [batch, 4]: top, bottom, left, right
                              float* out,            // as the clips
                              int64_t batch, int64_t frames, int64_t height, int64_t width,
                              int64_t threads) {
  using namespace vmf;
  if (batch < 0 || frames < 0 || height < 0 || width < 0) return kBadArgument;
  const int64_t values = width * kChannels, rows = frames * height;
  try {
    parallel_for(batch * rows, values / 4, threads, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t clip = i / rows, line = i % height;
        const float* mine = clips + i * values;
        const float* partner = clips + ((batch - 1 - clip) * rows + i % rows) * values;
        float* row = out + i * values;
        const int64_t* box = boxes + clip * 4;
        if (box[1] <= box[0] || box[3] <= box[2]) {
          blend(mine, partner, row, static_cast<float>(own[clip]),
                static_cast<float>(1.0 - own[clip]), values);
          continue;
        }
        const bool inside = line >= box[0] && line < box[1];
        const int64_t left = inside ? std::clamp<int64_t>(box[2], 0, width) * kChannels : 0;
        const int64_t right = inside ? std::clamp<int64_t>(box[3], 0, width) * kChannels : 0;
        copy(mine, row, 0, left);
        copy(partner, row, left, right);
        copy(mine, row, right, values);
      }
    });
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
  return kOk;
}
