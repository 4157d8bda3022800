// RandAugment's operations on the uint8 frames of one clip, one after the other: Pillow's bytes.
//
// Operations that change a level whatever its place (most of them) become tables of 256 levels per
// channel, one after the other joined to one, and pass over the pixels together with what comes next.
// Statistics of a frame are taken from its histogram, which goes through the tables too.
//
// This file is compiled without fused multiply-adds: results are truncated, so every rounding counts.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <vector>

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

// As ops/rand_augment.py lays it out: the kind, its argument, and of an affine operation the matrix
// that takes the place of an output pixel to one of the input.
struct Operation {
  double kind, argument;
  double matrix[6];
};

constexpr int64_t kLevels = 256;
constexpr uint8_t kFill = 128;

struct Tables {
  uint8_t level[3][kLevels];
  bool plain;  // every level is itself

  void reset() {
    for (auto& channel : level) {
      for (int64_t i = 0; i < kLevels; ++i) channel[i] = static_cast<uint8_t>(i);
    }
    plain = true;
  }
  // What these tables give goes through `next`, of all channels.
  void then(const uint8_t (&next)[3][kLevels]) {
    for (int64_t c = 0; c < 3; ++c) {
      for (auto& value : level[c]) value = next[c][value];
    }
    plain = false;
  }
};

struct Shape {
  int64_t height, width;
  int64_t pixels() const { return height * width; }
  int64_t row() const { return width * 3; }
};

VMF_INLINE int32_t grey_of(int32_t r, int32_t g, int32_t b) {
  return (19595 * r + 38470 * g + 7471 * b + 32768) >> 16;
}

VMF_INLINE uint8_t cut(float exact) {
  return static_cast<uint8_t>(exact < 0.0f ? 0.0f : exact > 255.0f ? 255.0f : exact);
}

VMF_CLONES void apply(const Tables& tables, const uint8_t* from, uint8_t* to, int64_t pixels) {
  for (int64_t i = 0; i < pixels; ++i) {
    to[3 * i] = tables.level[0][from[3 * i]];
    to[3 * i + 1] = tables.level[1][from[3 * i + 1]];
    to[3 * i + 2] = tables.level[2][from[3 * i + 2]];
  }
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

VMF_CLONES void color(const uint8_t* from, uint8_t* to, int64_t pixels, float factor) {
  for (int64_t i = 0; i < pixels; ++i) {
    const uint8_t* pixel = from + 3 * i;
    const auto ground = static_cast<float>(grey_of(pixel[0], pixel[1], pixel[2]));
    for (int64_t c = 0; c < 3; ++c) {
      to[3 * i + c] = cut(ground + factor * (static_cast<float>(pixel[c]) - ground));
    }
  }
}

VMF_CLONES void sharpness(const uint8_t* from, uint8_t* to, const Shape& shape, float factor) {
  const int64_t row = shape.row();
  for (int64_t y = 0; y < shape.height; ++y) {
    const uint8_t* here = from + y * row;
    uint8_t* out = to + y * row;
    if (y == 0 || y == shape.height - 1 || shape.width < 3) {
      std::memcpy(out, here, static_cast<size_t>(row));
      continue;
    }
    const uint8_t *above = here - row, *below = here + row;
    std::memcpy(out, here, 3);
    for (int64_t i = 3; i < row - 3; ++i) {
      const int32_t sum = above[i - 3] + above[i] + above[i + 3] + here[i - 3] + 5 * here[i] +
                          here[i + 3] + below[i - 3] + below[i] + below[i + 3];
      // The mean over 13, rounded: floor(sum / 13 + 1/2)
      const auto smooth = static_cast<float>((2 * sum + 13) / 26);
      out[i] = cut(smooth + factor * (static_cast<float>(here[i]) - smooth));
    }
    std::memcpy(out + row - 3, here + row - 3, 3);
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

bool valid(const Operation& operation) {
  const auto kind = static_cast<int64_t>(operation.kind);
  if (!(operation.kind >= 0.0 && operation.kind < static_cast<double>(kKinds)) || !std::isfinite(operation.argument)) {
    return false;
  }
  if (kind == kPosterize && !(operation.argument >= 0 && operation.argument <= 8)) return false;
  return std::all_of(operation.matrix, operation.matrix + 6,
                     [](double value) { return std::isfinite(value) && std::fabs(value) < 1e9; });
}

}  // namespace
}  // namespace vmf

// `spare` is as large as `out`; what it holds afterwards means nothing.
VMF_API int64_t vmf_rand_augment(const uint8_t* frames,              // [frame_count, height, width, 3]
                                 const vmf::Operation* operations,   // [operation_count]
                                 uint8_t* out, uint8_t* spare,       // as `frames`
                                 int64_t operation_count, int64_t frame_count, int64_t height,
                                 int64_t width, int64_t threads) {
  using namespace vmf;
  if (operation_count < 0 || frame_count < 0 || height < 1 || width < 1) return kBadArgument;
  if (!std::all_of(operations, operations + operation_count, valid)) return kBadArgument;
  const Shape shape{height, width};
  const int64_t pixels = shape.pixels(), bytes = 3 * pixels;
  try {
    std::vector<Tables> tables(static_cast<size_t>(frame_count));
    for (Tables& each : tables) each.reset();
    const uint8_t* from = frames;
    const auto other = [&] { return from == out ? spare : out; };
    const auto each_frame = [&](int64_t cost, auto&& body) {
      parallel_for(frame_count, pixels * cost, threads, [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) body(tables[static_cast<size_t>(t)], t * bytes);
      });
    };
    // Afterwards `from` holds the levels themselves.
    const auto settle = [&] {
      if (std::all_of(tables.begin(), tables.end(), [](const Tables& t) { return t.plain; })) return;
      uint8_t* to = other();
      each_frame(3, [&](Tables& table, int64_t place) {
        apply(table, from + place, to + place, pixels);
        table.reset();
      });
      from = to;
    };
    for (int64_t i = 0; i < operation_count; ++i) {
      const Operation& operation = operations[i];
      if (is_table(operation)) {
        each_frame(2, [&](Tables& table, int64_t place) {
          uint8_t next[3][kLevels];
          level_tables(operation, table, from + place, pixels, next);
          table.then(next);
        });
        continue;
      }
      settle();
      uint8_t* to = other();
      const auto kind = static_cast<Kind>(static_cast<int64_t>(operation.kind));
      const auto factor = static_cast<float>(operation.argument);
      if (kind == kAffine) {
        parallel_for(height, frame_count * width * 15, threads, [&](int64_t begin, int64_t end) {
          affine()(from, to, frame_count, shape, operation.matrix, begin, end);
        });
      } else {
        each_frame(3, [&](Tables&, int64_t place) {
          if (kind == kColor) {
            color(from + place, to + place, pixels, factor);
          } else {
            sharpness(from + place, to + place, shape, factor);
          }
        });
      }
      from = to;
    }
    settle();
    if (from != out) {
      std::memcpy(out, from, static_cast<size_t>(frame_count * bytes));
    }
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
  return kOk;
}
