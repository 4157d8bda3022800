// RandAugment's operations on the uint8 frames of one clip, one after the other: Pillow's bytes.
//
// Operations that change a level whatever its place (most of them) become tables of 256 levels per
// channel, one after the other joined to one, and pass over the pixels together with what comes next.
// Statistics of a frame are taken from its histogram, which goes through the tables too. Of what the
// others make, only the part is made that the next one reads.
//
// This file is compiled without fused multiply-adds: results are truncated, so every rounding counts.
#include "rand_augment.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>

#include "byte_tables.h"
#include "common.h"
#include "parallel.h"

#if defined(VMF_HAVE_CLONES)  // which are of x86-64; plain vectors are widened byte by byte
#include <immintrin.h>
#endif

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi"  // vectors are passed to inlined functions alone
#endif

namespace vmf {
namespace {

enum Kind : int64_t {
  kAutoContrast,
  kEqualize,
  kInvert,
  kPosterize,
  kSolarize,
  kSolarizeAdd,
  kColor,
  kContrast,
  kBrightness,
  kSharpness,
  kAffine,
  kKinds
};

constexpr uint8_t kFill = 128;

VMF_INLINE int32_t grey_of(int32_t r, int32_t g, int32_t b) {
  return (19595 * r + 38470 * g + 7471 * b + 32768) >> 16;
}

VMF_INLINE uint8_t cut(float exact) {
  return static_cast<uint8_t>(exact < 0.0f ? 0.0f : exact > 255.0f ? 255.0f : exact);
}

// How many pixels of the frame have each level, behind the tables.
VMF_CLONES void count_levels(const Tables& tables, const uint8_t* from, int64_t pixels,
                             int64_t (&counts)[3][kLevels]) {
  uint32_t raw[2][3][kLevels] = {};  // two, so that equal neighbours don't wait for one another
  for (int64_t i = 0; i < pixels; ++i) {
    for (int64_t c = 0; c < 3; ++c) ++raw[i & 1][c][from[3 * i + c]];
  }
  std::memset(counts, 0, sizeof counts);
  for (int64_t c = 0; c < 3; ++c) {
    for (int64_t i = 0; i < kLevels; ++i) {
      counts[c][tables.level[c][i]] += raw[0][c][i] + raw[1][c][i];
    }
  }
}

VMF_CLONES double mean_grey(const Tables& tables, const uint8_t* from, int64_t pixels) {
  int64_t sum = 0;
  if (tables.plain) {
    for (int64_t i = 0; i < pixels; ++i) sum += grey_of(from[3 * i], from[3 * i + 1], from[3 * i + 2]);
    return static_cast<double>(sum) / static_cast<double>(pixels);
  }
  for (int64_t i = 0; i < pixels; ++i) {
    sum += grey_of(tables.level[0][from[3 * i]], tables.level[1][from[3 * i + 1]],
                   tables.level[2][from[3 * i + 2]]);
  }
  return static_cast<double>(sum) / static_cast<double>(pixels);
}

// The lowest and the highest level of each channel.
struct Range {
  int64_t low[3], high[3];
};

Range range_of(const int64_t (&counts)[3][kLevels]) {
  Range range;
  for (int64_t c = 0; c < 3; ++c) {
    int64_t low = 0, high = kLevels - 1;
    while (low < high && counts[c][low] == 0) ++low;
    while (high > low && counts[c][high] == 0) --high;
    range.low[c] = low, range.high[c] = high;
  }
  return range;
}

// The same of pixels that go through no tables, without counting them.
VMF_CLONES Range range_of(const uint8_t* from, int64_t pixels) {
  constexpr int64_t kBlock = 192;  // bytes, whole pixels
  const int64_t bytes = 3 * pixels, whole = bytes - bytes % kBlock;
  uint8_t low[kBlock], high[kBlock];
  std::memset(low, 255, kBlock);
  std::memset(high, 0, kBlock);
  for (int64_t i = 0; i < whole; i += kBlock) {
    for (int64_t k = 0; k < kBlock; ++k) {
      low[k] = from[i + k] < low[k] ? from[i + k] : low[k];
      high[k] = from[i + k] > high[k] ? from[i + k] : high[k];
    }
  }
  Range range = {{255, 255, 255}, {0, 0, 0}};
  const auto take = [&](int64_t c, int64_t least, int64_t most) {
    range.low[c] = std::min(range.low[c], least);
    range.high[c] = std::max(range.high[c], most);
  };
  for (int64_t i = whole; i < bytes; ++i) take(i % 3, from[i], from[i]);
  for (int64_t k = 0; k < kBlock; ++k) take(k % 3, low[k], high[k]);
  return range;
}

void auto_contrast(const Range& range, uint8_t (&next)[3][kLevels]) {
  for (int64_t c = 0; c < 3; ++c) {
    const int64_t low = range.low[c], high = range.high[c];
    for (int64_t i = 0; i < kLevels; ++i) next[c][i] = static_cast<uint8_t>(i);
    if (high == low) continue;
    const double scale = 255.0 / static_cast<double>(high - low);
    const double offset = static_cast<double>(low) * scale;
    for (int64_t i = 0; i < kLevels; ++i) {
      const double exact = std::trunc(static_cast<double>(i) * scale - offset);
      next[c][i] = static_cast<uint8_t>(std::clamp(exact, 0.0, 255.0));
    }
  }
}

void equalize(const int64_t (&counts)[3][kLevels], int64_t pixels, uint8_t (&next)[3][kLevels]) {
  for (int64_t c = 0; c < 3; ++c) {
    int64_t present = 0, highest = 0;
    for (int64_t i = 0; i < kLevels; ++i) {
      if (counts[c][i] > 0) ++present, highest = i;
    }
    const int64_t step = (pixels - counts[c][highest]) / 255;
    int64_t below = 0;
    for (int64_t i = 0; i < kLevels; ++i) {
      const int64_t level = present <= 1 || step == 0 ? i : (step / 2 + below) / step;
      next[c][i] = static_cast<uint8_t>(std::min<int64_t>(255, level));
      below += counts[c][i];
    }
  }
}

void blend_levels(float ground, float factor, uint8_t (&next)[kLevels]) {
  for (int64_t i = 0; i < kLevels; ++i) {
    next[i] = cut(ground + factor * (static_cast<float>(i) - ground));
  }
}

VMF_CLONES void color_row(const uint8_t* from, uint8_t* to, int64_t pixels, float factor) {
  for (int64_t i = 0; i < pixels; ++i) {
    const uint8_t* pixel = from + 3 * i;
    const auto ground = static_cast<float>(grey_of(pixel[0], pixel[1], pixel[2]));
    for (int64_t c = 0; c < 3; ++c) {
      to[3 * i + c] = cut(ground + factor * (static_cast<float>(pixel[c]) - ground));
    }
  }
}

void color(const uint8_t* from, uint8_t* to, const Shape& shape, const Region& region,
           float factor) {
  for (int64_t y = region.top; y < region.bottom; ++y) {
    const int64_t place = y * shape.row() + 3 * region.left;
    color_row(from + place, to + place, region.width(), factor);
  }
}

// Bytes begin..end of a row that is not at the frame's edge.
VMF_CLONES void sharpness_row(const uint8_t* here, int64_t row, uint8_t* out, int64_t begin,
                              int64_t end, float factor) {
  const uint8_t *above = here - row, *below = here + row;
  for (int64_t i = begin; i < end; ++i) {
    const int32_t sum = above[i - 3] + above[i] + above[i + 3] + here[i - 3] + 5 * here[i] +
                        here[i + 3] + below[i - 3] + below[i] + below[i + 3];
    // The mean over 13, rounded: floor(sum / 13 + 1/2)
    const auto smooth = static_cast<float>((2 * sum + 13) / 26);
    out[i] = cut(smooth + factor * (static_cast<float>(here[i]) - smooth));
  }
}

void sharpness(const uint8_t* from, uint8_t* to, const Shape& shape, const Region& region,
               float factor) {
  const int64_t row = shape.row(), begin = 3 * region.left, end = 3 * region.right;
  for (int64_t y = region.top; y < region.bottom; ++y) {
    const uint8_t* here = from + y * row;
    uint8_t* out = to + y * row;
    if (y == 0 || y == shape.height - 1 || shape.width < 3) {
      std::memcpy(out + begin, here + begin, static_cast<size_t>(end - begin));
      continue;
    }
    if (begin == 0) std::memcpy(out, here, 3);
    if (end == row) std::memcpy(out + row - 3, here + row - 3, 3);
    sharpness_row(here, row, out, std::max<int64_t>(begin, 3), std::min(end, row - 3), factor);
  }
}

namespace baseline {
constexpr int64_t kLanes = 4;
typedef float Vector __attribute__((vector_size(16)));
VMF_INLINE Vector widen(const uint8_t* from) {
  return Vector{static_cast<float>(from[0]), static_cast<float>(from[1]),
                static_cast<float>(from[2]), static_cast<float>(from[3])};
}
#include "affine_rows.h"
#include "affine_lines.h"
}  // namespace baseline

#if defined(VMF_HAVE_CLONES)
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v3")
namespace level_3 {
constexpr int64_t kLanes = 8;
using Vector = __m256;
VMF_INLINE Vector widen(const uint8_t* from) {
  return _mm256_cvtepi32_ps(
      _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
}
#include "affine_rows.h"
#include "affine_lines.h"
}  // namespace level_3
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v4,prefer-vector-width=512")
namespace level_4 {
constexpr int64_t kLanes = 16;
using Vector = __m512;
VMF_INLINE Vector widen(const uint8_t* from) {
  const __m128i levels = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  // Masked, all of them kept: GCC 12 warns of what the plain ones begin with.
  return _mm512_maskz_cvtepi32_ps(0xFFFF, _mm512_maskz_cvtepu8_epi32(0xFFFF, levels));
}
#include "affine_rows.h"
#include "affine_lines.h"
}  // namespace level_4
#pragma GCC pop_options
#endif

// The affine operation for this processor.
decltype(&baseline::affine) affine() {
#if defined(VMF_HAVE_CLONES)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("x86-64-v4")) return level_4::affine;
  if (__builtin_cpu_supports("x86-64-v3")) return level_3::affine;
#endif
  return baseline::affine;
}

// The tables that an operation is, for one frame.
void level_tables(const Operation& operation, const Tables& before, const uint8_t* from,
                  int64_t pixels, uint8_t (&next)[3][kLevels]) {
  const auto kind = static_cast<Kind>(static_cast<int64_t>(operation.kind));
  const auto number = static_cast<int64_t>(operation.argument);
  const auto factor = static_cast<float>(operation.argument);
  if (kind == kAutoContrast || kind == kEqualize) {
    if (kind == kAutoContrast && before.plain) return auto_contrast(range_of(from, pixels), next);
    int64_t counts[3][kLevels];
    count_levels(before, from, pixels, counts);
    if (kind == kAutoContrast) return auto_contrast(range_of(counts), next);
    return equalize(counts, pixels, next);
  }
  if (kind == kContrast || kind == kBrightness) {
    const double mean = kind == kContrast ? mean_grey(before, from, pixels) + 0.5 : 0.0;
    blend_levels(static_cast<float>(std::floor(mean)), factor, next[0]);
  } else {
    for (int64_t i = 0; i < kLevels; ++i) {
      int64_t level = i;
      if (kind == kInvert) level = 255 - i;
      if (kind == kPosterize) level = i & (0xFF00 >> number);
      if (kind == kSolarize) level = i < number ? i : 255 - i;
      if (kind == kSolarizeAdd && i < 128) level = std::clamp<int64_t>(i + number, 0, 255);
      next[0][i] = static_cast<uint8_t>(level);
    }
  }
  std::memcpy(next[1], next[0], kLevels);
  std::memcpy(next[2], next[0], kLevels);
}

bool is_table(const Operation& operation) {
  const auto kind = static_cast<Kind>(static_cast<int64_t>(operation.kind));
  return kind != kColor && kind != kSharpness && kind != kAffine;
}

bool valid(const Operation& operation, const Shape& shape) {
  const auto kind = static_cast<int64_t>(operation.kind);
  if (!(operation.kind >= 0.0 && operation.kind < static_cast<double>(kKinds)) ||
      !std::isfinite(operation.argument)) {
    return false;
  }
  if (kind == kPosterize && !(operation.argument >= 0 && operation.argument <= 8)) return false;
  const auto height = static_cast<double>(shape.height), width = static_cast<double>(shape.width);
  if (!(0 <= operation.top && operation.top < operation.bottom && operation.bottom <= height &&
        0 <= operation.left && operation.left < operation.right && operation.right <= width)) {
    return false;
  }
  return std::all_of(operation.matrix, operation.matrix + 6,
                     [](double value) { return std::isfinite(value) && std::fabs(value) < 1e9; });
}

}  // namespace

bool valid(const Operation* operations, int64_t count, const Shape& shape) {
  return std::all_of(operations, operations + count,
                     [&](const Operation& one) { return valid(one, shape); });
}

int64_t buffers_needed(const Operation* operations, int64_t count) {
  int64_t passes = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (is_table(operations[i])) continue;
    passes += i > 0 && is_table(operations[i - 1]) ? 2 : 1;
  }
  return std::min<int64_t>(passes, 2);
}

void look_up(const Tables& tables, const uint8_t* from, uint8_t* to, const Shape& shape,
             const Region& region) {
  for (int64_t y = region.top; y < region.bottom; ++y) {
    const int64_t place = y * shape.row() + 3 * region.left;
    through_tables(tables.level, from + place, to + place, region.width());
  }
}

Changed changed(const uint8_t* frames, const Operation* operations, int64_t count,
                uint8_t* const (&buffers)[2], int64_t frame_count, const Shape& shape,
                int64_t threads) {
  const int64_t pixels = shape.pixels(), bytes = 3 * pixels;
  Changed now{frames, std::vector<Tables>(static_cast<size_t>(frame_count))};
  for (Tables& each : now.tables) each.reset();
  const auto other = [&] { return now.frames == buffers[0] ? buffers[1] : buffers[0]; };
  const auto each_frame = [&](int64_t cost, auto&& body) {
    parallel_for(frame_count, pixels * cost, threads, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) body(now.tables[static_cast<size_t>(t)], t * bytes);
    });
  };
  bool pending = false;
  for (int64_t i = 0; i < count; ++i) {
    const Operation& operation = operations[i];
    if (is_table(operation)) {
      each_frame(2, [&](Tables& table, int64_t place) {
        uint8_t next[3][kLevels];
        level_tables(operation, table, now.frames + place, pixels, next);
        table.then(next);
      });
      pending = true;
      continue;
    }
    if (pending) {  // the bytes become the levels themselves
      uint8_t* to = other();
      const Region read = operations[i - 1].region();
      each_frame(3, [&](Tables& table, int64_t place) {
        look_up(table, now.frames + place, to + place, shape, read);
        table.reset();
      });
      now.frames = to;
      pending = false;
    }
    uint8_t* to = other();
    const uint8_t* from = now.frames;
    const Region region = operation.region();
    const auto kind = static_cast<Kind>(static_cast<int64_t>(operation.kind));
    const auto factor = static_cast<float>(operation.argument);
    if (kind == kAffine) {
      affine()(from, to, frame_count, shape, operation.matrix, region, threads);
    } else {
      each_frame(3, [&](Tables&, int64_t place) {
        (kind == kColor ? color : sharpness)(from + place, to + place, shape, region, factor);
      });
    }
    now.frames = to;
  }
  return now;
}

}  // namespace vmf

// Of every operation the whole result is read. `spare` is as large as `out`; what it holds afterwards
// means nothing.
VMF_API int64_t vmf_rand_augment(const uint8_t* frames,              // [frame_count, height, width, 3]
                                 const vmf::Operation* operations,   // [operation_count]
                                 uint8_t* out, uint8_t* spare,       // as `frames`
                                 int64_t operation_count, int64_t frame_count, int64_t height,
                                 int64_t width, int64_t threads) {
  using namespace vmf;
  if (operation_count < 0 || frame_count < 0 || height < 1 || width < 1) return kBadArgument;
  const Shape shape{height, width};
  if (!valid(operations, operation_count, shape)) return kBadArgument;
  const int64_t bytes = 3 * shape.pixels();
  try {
    const Changed found =
        changed(frames, operations, operation_count, {out, spare}, frame_count, shape, threads);
    parallel_for(frame_count, bytes, threads, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const Tables& table = found.tables[static_cast<size_t>(t)];
        const uint8_t* from = found.frames + t * bytes;
        if (!table.plain) {
          look_up(table, from, out + t * bytes, shape, {0, height, 0, width});
        } else if (found.frames != out) {
          std::memcpy(out + t * bytes, from, static_cast<size_t>(bytes));
        }
      }
    });
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
  return kOk;
}
