// Normalised-pixel MSE straight from uint8 frames: the loss, the prediction's gradient, or both in one
// pass.
//
// A row of a cube is 3 * patch contiguous bytes, colour fastest, and so is a row of the prediction
// (p0, p1, p2, c): both are walked side by side. The statistics are integers, so they are exact, and
// a backward pass of its own finds the very same target again instead of reading it from memory.
#include <cmath>
#include <cstring>
#include <limits>
#include <new>
#include <vector>

#include "common.h"
#include "parallel.h"

namespace vmf {
namespace {

// Sums of n = tubelet * patch² bytes' squares stay below 2^32.
constexpr int64_t kMaxPixels = 66'000;
constexpr int64_t kMaxRow = 3 * 256;

struct Target {  // target = (pixel - mean) * scale, per value of a row
  float mean[kMaxRow];
  float scale[kMaxRow];
  bool flat;
};

// Reads a cube once, and fetches the next one; fills the target's statistics. A patch size known at
// compile time (else 0) keeps the row's sums in registers.
template <int64_t known_patch>
VMF_INLINE void statistics(const uint8_t* cube, const uint8_t* next, const Cubes& cubes,
                           bool normalize, Target& out) {
  const int64_t patch = known_patch ? known_patch : cubes.patch;
  const int64_t row_values = 3 * patch, n = cubes.pixels();
  uint32_t sum[kMaxRow], square[kMaxRow];
  std::memset(sum, 0, sizeof(uint32_t) * row_values);
  std::memset(square, 0, sizeof(uint32_t) * row_values);
  for (int64_t t = 0; t < cubes.tubelet; ++t) {
    for (int64_t y = 0; y < patch; ++y) {
      const int64_t place = t * cubes.frame_stride() + y * cubes.row_stride();
      const uint8_t* row = cube + place;
      __builtin_prefetch(next + place);  // rows lie far apart: nothing else fetches them ahead
      __builtin_prefetch(next + place + row_values - 1);
#pragma omp simd
      for (int64_t x = 0; x < row_values; ++x) {
        const uint32_t value = row[x];
        sum[x] += value;
        square[x] += value * value;
      }
    }
  }
  out.flat = true;
  for (int64_t c = 0; c < 3; ++c) {
    int64_t total = 0, squares = 0;
    for (int64_t x = c; x < row_values; x += 3) {
      total += sum[x];
      squares += square[x];
    }
    const int64_t scatter = n * squares - total * total;  // n (n - 1) variance, in grey levels²
    out.flat = out.flat && scatter <= n * (n - 1);        // at most one grey level
    float mean = 0.0f, scale = 1.0f / 255.0f;
    if (normalize) {
      const double variance = double(scatter) / (double(n) * double(n - 1));
      mean = float(double(total) / double(n));
      scale = float(1.0 / (std::sqrt(variance) + 255.0 * 1e-6));
    }
    for (int64_t x = c; x < row_values; x += 3) {
      out.mean[x] = mean;
      out.scale[x] = scale;
    }
  }
}

struct Job {
  const float* prediction;
  const uint8_t* frames;
  const int32_t* index;
  const float* weight;
  Cubes cubes;
  int64_t per_clip;
  bool normalize, ignore_flat;

  const uint8_t* cube(int64_t i) const {
    return frames + (i / per_clip) * cubes.clip_stride() + cubes.offset(index[i]);
  }
  // The weight of token i; fills the target unless the weight is 0 without it. Fetches token `next`.
  template <int64_t known_patch>
  VMF_INLINE float prepare(int64_t i, int64_t next, Target& target) const {
    const float given = weight == nullptr ? 1.0f : weight[i];
    if (given == 0.0f) return 0.0f;
    statistics<known_patch>(cube(i), cube(next), cubes, normalize, target);
    return ignore_flat && target.flat ? 0.0f : given;
  }
};

struct Outputs {
  float* token_loss;    // one per token, with token_weight; both null where only the gradient is wanted
  float* token_weight;
  float* gradient;      // of scale * loss_sum, laid out like the prediction; null if not wanted
  double scale;
};

template <int64_t known_patch, bool with_loss, bool with_gradient>
VMF_INLINE void tokens(const Job& job, const Outputs& to, int64_t begin, int64_t end) {
  const Cubes& cubes = job.cubes;
  const int64_t patch = known_patch ? known_patch : cubes.patch;
  const int64_t row_values = 3 * patch, values = 3 * cubes.pixels();
  Target target;
  float sum[kMaxRow];
  for (int64_t i = begin; i < end; ++i) {
    const float weight = job.prepare<known_patch>(i, i + 1 < end ? i + 1 : i, target);
    float* out = with_gradient ? to.gradient + i * values : nullptr;
    if (with_loss) {
      to.token_weight[i] = weight;
      to.token_loss[i] = 0.0f;
      std::memset(sum, 0, sizeof(float) * row_values);
    }
    if (weight == 0.0f) {  // counts for nothing, even where the prediction is inf
      if (with_gradient) std::memset(out, 0, sizeof(float) * values);
      continue;
    }
    const float factor = float(to.scale * weight * 2.0 / double(values));
    const uint8_t* cube = job.cube(i);
    const float* guess = job.prediction + i * values;
    for (int64_t t = 0; t < cubes.tubelet; ++t) {
      for (int64_t y = 0; y < patch; ++y, guess += row_values) {
        const uint8_t* row = cube + t * cubes.frame_stride() + y * cubes.row_stride();
#pragma omp simd
        for (int64_t x = 0; x < row_values; ++x) {
          const float d = guess[x] - (float(row[x]) - target.mean[x]) * target.scale[x];
          if (with_loss) sum[x] += d * d;
          if (with_gradient) out[x] = factor * d;
        }
        if (with_gradient) out += row_values;
      }
    }
    if (with_loss) {
      double total = 0.0;
      for (int64_t x = 0; x < row_values; ++x) total += sum[x];
      to.token_loss[i] = float(total / double(values));
    }
  }
}

template <bool with_loss, bool with_gradient>
VMF_INLINE void any_patch(const Job& job, const Outputs& to, int64_t begin, int64_t end) {
  if (job.cubes.patch == 16) {
    tokens<16, with_loss, with_gradient>(job, to, begin, end);
  } else if (job.cubes.patch == 14) {
    tokens<14, with_loss, with_gradient>(job, to, begin, end);
  } else {
    tokens<0, with_loss, with_gradient>(job, to, begin, end);
  }
}

VMF_CLONES void run(const Job& job, const Outputs& to, int64_t begin, int64_t end) {
  if (to.gradient == nullptr) {
    any_patch<true, false>(job, to, begin, end);
  } else if (to.token_loss == nullptr) {
    any_patch<false, true>(job, to, begin, end);
  } else {
    any_patch<true, true>(job, to, begin, end);
  }
}

int64_t check(const Job& job, int64_t batch) {
  const Cubes& cubes = job.cubes;
  if (!cubes.valid() || batch < 0 || job.per_clip < 0) return kBadArgument;
  if (cubes.pixels() > kMaxPixels || 3 * cubes.patch > kMaxRow) return kBadArgument;
  if (job.normalize && cubes.pixels() < 2) return kBadArgument;
  return check_index(job.index, batch * job.per_clip, cubes.tokens());
}

}  // namespace
}  // namespace vmf

VMF_API int64_t vmf_pixel_mse(
    const float* prediction,  // [batch, per_clip, 3 * tubelet * patch²], order (p0, p1, p2, c)
    const uint8_t* frames,    // [batch, T, H, W, 3]
    const int32_t* index,     // [batch, per_clip], token positions
    const float* weight,      // [batch, per_clip] or null for ones
    float* token_loss,        // [batch, per_clip], mean squared error; 0 where the weight is 0
    float* token_weight,      // [batch, per_clip], 0 also where a flat cube is ignored
    double* sums,             // [2]: sum of weight * loss, sum of weights
    float* gradient,          // of scale * sums[0], like the prediction
    float scale,              // either the three before `gradient` or `gradient` may be null
    int64_t batch, int64_t per_clip, int64_t frame_count, int64_t height, int64_t width,
    int64_t tubelet, int64_t patch, int32_t normalize, int32_t ignore_flat, int64_t threads) {
  using namespace vmf;
  const Job job{prediction,     frames,           index,
                weight,         {frame_count, height, width, tubelet, patch},
                per_clip,       normalize != 0,   ignore_flat != 0};
  const Outputs to{token_loss, token_weight, gradient, double(scale)};
  if (const int64_t bad = check(job, batch)) return bad;
  const int64_t n = batch * per_clip;
  if (n > 0) {  // an empty tensor's pointer is null
    const bool with_loss = sums != nullptr;
    if ((token_loss != nullptr) != with_loss || (token_weight != nullptr) != with_loss ||
        (!with_loss && gradient == nullptr)) {
      return kBadArgument;
    }
  }
  try {
    parallel_for(n, job.cubes.pixels(), threads,
                 [&](int64_t begin, int64_t end) { run(job, to, begin, end); });
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
  if (sums == nullptr) return kOk;
  sums[0] = sums[1] = 0.0;  // in token order, so that the thread count does not show
  for (int64_t i = 0; i < n; ++i) {
    sums[0] += double(token_weight[i]) * double(token_loss[i]);
    sums[1] += double(token_weight[i]);
  }
  return kOk;
}
