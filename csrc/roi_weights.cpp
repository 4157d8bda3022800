// The weights of RoIAlign. A sample's bilinear weights are a product of one for its row and one for
// its column, so each axis has a table of its own.
//
// This file is compiled without fused multiply-adds: a bin's size is rounded up to its number of
// samples, so every rounding counts.
#include "roi_weights.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace vmf {
namespace {

void axis_weights(float low, float high, const RoiSampling& how, int64_t length, float* weights) {
  const float offset = how.aligned ? 0.5f : 0.0f;
  const float begin = low * how.scale - offset;
  float extent = high * how.scale - offset - begin;
  if (!how.aligned) extent = std::max(extent, 1.0f);
  const float bin = extent / static_cast<float>(how.size);
  const bool adaptive = how.ratio == 0;
  const float count = adaptive ? std::max(std::ceil(bin), 0.0f) : static_cast<float>(how.ratio);
  const float samples = std::max(count, 1.0f);
  const auto last = static_cast<float>(length - 1);
  std::fill_n(weights, how.size * length, 0.0f);
  for (int64_t k = 0; k < how.size; ++k) {
    float* row = weights + k * length;
    const float start = begin + static_cast<float>(k) * bin;
    float first = 0.0f;
    if (adaptive && count > 1.0f) {  // the first sample that may lie within the map
      const float step = std::max(bin / samples, 0.5f);
      first = std::max(std::floor((-1.0f - start) / step - 1.0f), 0.0f);
    }
    const int64_t reach = adaptive ? 2 * length + 6 : how.ratio;
    for (int64_t i = 0; i < reach; ++i) {
      const float sample = first + static_cast<float>(i);
      const float place = start + (sample + 0.5f) * bin / samples;
      if (!(sample < count) || !(place <= static_cast<float>(length))) break;
      if (!(place >= -1.0f)) continue;
      const float at = std::clamp(place, 0.0f, last);
      const auto cell = static_cast<int64_t>(at);
      const float share = at - static_cast<float>(cell);
      row[cell] += 1.0f - share;
      if (share > 0.0f) row[cell + 1] += share;
    }
    for (int64_t x = 0; x < length; ++x) row[x] /= samples;
  }
}

}  // namespace

void roi_weights(const float* box, const RoiSampling& how, int64_t height, int64_t width,
                 float* down, float* across) {
  const bool finite = std::isfinite(box[0]) && std::isfinite(box[1]) && std::isfinite(box[2]) &&
                      std::isfinite(box[3]);
  if (!finite || box[2] < box[0] || box[3] < box[1]) {
    constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
    std::fill_n(down, how.size * height, kNan);
    std::fill_n(across, how.size * width, kNan);
    return;
  }
  axis_weights(box[1], box[3], how, height, down);
  axis_weights(box[0], box[2], how, width, across);
}

}  // namespace vmf
