// Shifts of hue, saturation and value of uint8 frames: OpenCV's 8-bit arithmetic.
//
// To HSV in integers with 12-bit reciprocals; back in fp32, truncated. This file is compiled without
// fused multiply-adds, so that every rounding is the one that the reference has.
#include <algorithm>
#include <cmath>
#include <new>

#include "common.h"
#include "parallel.h"

namespace vmf {
namespace {

constexpr int32_t kHues = 180;

struct Reciprocals {
  int32_t saturation[256], hue[256];

  Reciprocals() {
    for (int32_t i = 0; i < 256; ++i) {
      const double level = std::max(i, 1);
      saturation[i] = static_cast<int32_t>(std::nearbyint((255 << 12) / level));
      hue[i] = static_cast<int32_t>(std::nearbyint((kHues << 12) / (6 * level)));
    }
  }
};

struct Shift {
  int32_t hue, saturation, value;
};

// 1 - a * b with one rounding: the product of two fp32 is exact in fp64.
VMF_INLINE float one_minus(float a, float b) {
  return static_cast<float>(1.0 - static_cast<double>(a) * static_cast<double>(b));
}

VMF_INLINE uint8_t level_of(float share) {
  return static_cast<uint8_t>(std::min(std::max(share * 255.0f, 0.0f), 255.0f));
}

void jitter(const uint8_t* from, uint8_t* to, int64_t pixels, const Reciprocals& by, Shift shift) {
  for (int64_t i = 0; i < pixels; ++i, from += 3, to += 3) {
    const int32_t red = from[0], green = from[1], blue = from[2];
    const int32_t top = std::max({red, green, blue});
    const int32_t spread = top - std::min({red, green, blue});
    const int32_t around = top == red     ? green - blue
                           : top == green ? blue - red + 2 * spread
                                          : red - green + 4 * spread;
    int32_t hue = (around * by.hue[spread] + 2048) >> 12;
    hue = (hue < 0 ? hue + kHues : hue) + shift.hue;
    const int32_t saturation = (spread * by.saturation[top] + 2048) >> 12;

    const float share =
        static_cast<float>(std::clamp(saturation + shift.saturation, 0, 255)) * (1.0f / 255);
    const float level = static_cast<float>(std::clamp(top + shift.value, 0, 255)) * (1.0f / 255);
    const float sixth = static_cast<float>(((hue % kHues) + kHues) % kHues) * (6.0f / kHues);
    const auto sector = static_cast<int32_t>(sixth);
    const float beyond = sixth - static_cast<float>(sector);
    const uint8_t levels[4] = {level_of(level), level_of(level * (1.0f - share)),
                               level_of(level * one_minus(share, beyond)),
                               level_of(level * one_minus(share, 1.0f - beyond))};
    constexpr int32_t kChannels[6][3] = {{0, 3, 1}, {2, 0, 1}, {1, 0, 3},
                                         {1, 2, 0}, {3, 1, 0}, {0, 1, 2}};
    const int32_t* channels = kChannels[sector % 6];
    for (int c = 0; c < 3; ++c) to[c] = levels[channels[c]];
  }
}

}  // namespace
}  // namespace vmf

VMF_API int64_t vmf_hsv_jitter(const uint8_t* frames,  // [clips, pixels, 3]
                               const int64_t* shifts,  // [clips, 3]: hue, saturation, value
                               uint8_t* out,           // as frames
                               int64_t clips, int64_t pixels, int64_t threads) {
  using namespace vmf;
  if (clips < 0 || pixels < 0) return kBadArgument;
  static const Reciprocals by;
  try {
    constexpr int64_t kRun = 256;  // pixels
    const int64_t runs = (pixels + kRun - 1) / kRun;
    parallel_for(clips * runs, 10 * kRun, threads, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t clip = i / runs, first = i % runs * kRun, at = 3 * (clip * pixels + first);
        const int64_t* shift = shifts + 3 * clip;
        // Within a turn of hues, and as far as levels can go: sums stay small.
        const Shift moved{static_cast<int32_t>(shift[0] % kHues),
                          static_cast<int32_t>(std::clamp<int64_t>(shift[1], -255, 255)),
                          static_cast<int32_t>(std::clamp<int64_t>(shift[2], -255, 255))};
        jitter(frames + at, out + at, std::min(kRun, pixels - first), by, moved);
      }
    });
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
  return kOk;
}
