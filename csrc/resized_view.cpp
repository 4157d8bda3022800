// A training view of uint8 frames, in fp32: cropped, normalised, resized bilinearly without antialiasing
// as torch does it; with RandAugment's operations before, of which only what the crop reads is made.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "byte_tables.h"
#include "common.h"
#include "float_picks.h"
#include "parallel.h"
#include "rand_augment.h"
#include "scratch.h"
#include "two_rows.h"

namespace vmf {
namespace {

struct Crop {
  int64_t top, left, height, width;
  bool inside(const Shape& shape) const {
    return std::min(top, left) >= 0 && std::min(height, width) > 0 && top + height <= shape.height &&
           left + width <= shape.width;
  }
};

std::vector<Place> places(int64_t length, int64_t size) {
  std::vector<Place> found(static_cast<size_t>(size));
  const float scale = static_cast<float>(length) / static_cast<float>(size);
  for (int64_t i = 0; i < size; ++i) {
    const float at = std::max(scale * (static_cast<float>(i) + 0.5f) - 0.5f, 0.0f);
    const int64_t first = std::min<int64_t>(static_cast<int64_t>(at), length - 1);
    const float share = std::clamp(at - static_cast<float>(first), 0.0f, 1.0f);
    found[static_cast<size_t>(i)] = {first, std::min<int64_t>(first + 1, length - 1), 1.0f - share,
                                     share};
  }
  return found;
}

// Of one channel after the other, again and again: a value is scale * level + offset.
struct Statistics {
  static constexpr int64_t kFloats = 48;
  float scale[kFloats], offset[kFloats];

  explicit Statistics(const float* table) {
    for (int64_t i = 0; i < kFloats; ++i) {
      const float *channel = table + i % 3 * kLevels, most = channel[kLevels - 1];
      offset[i] = channel[0];
      scale[i] = (most - offset[i]) / 255.0f;
    }
  }
};

VMF_CLONES void normalised_row(const uint8_t* __restrict row, const Statistics& statistics,
                               int64_t bytes, float* __restrict out) {
  int64_t i = 0;
  for (; i + Statistics::kFloats <= bytes; i += Statistics::kFloats) {
    for (int64_t k = 0; k < Statistics::kFloats; ++k) {
      out[i + k] = static_cast<float>(row[i + k]) * statistics.scale[k] + statistics.offset[k];
    }
  }
  for (int64_t k = 0; i + k < bytes; ++k) {
    out[i + k] = static_cast<float>(row[i + k]) * statistics.scale[k] + statistics.offset[k];
  }
}

VMF_CLONES void blend_rows(const float* __restrict above, const float* __restrict below,
                           float before, float behind, int64_t n, float* __restrict out) {
  for (int64_t i = 0; i < n; ++i) out[i] = before * above[i] + behind * below[i];
}

// One frame's view: down, then across.
void view_of_frame(const uint8_t* corner, int64_t row_bytes, const Tables* tables,
                   const Statistics& statistics, const std::vector<Place>& rows,
                   const Across& across, const Crop& crop, float* memory, uint8_t* levels,
                   float* out) {
  const int64_t length = 3 * crop.width, padded = length + kPickSlack;
  TwoRows<float> lines(memory, padded);
  float* line = memory + 2 * padded;
  const auto make = [&](int64_t row, float* to) {
    const uint8_t* from = corner + row * row_bytes;
    if (tables != nullptr) {
      through_tables(tables->level, from, levels, crop.width);
      from = levels;
    }
    normalised_row(from, statistics, length, to);
  };
  for (const Place& place : rows) {
    const float* above = lines.row(place.first, place.second, make);
    if (place.behind == 0.0f) {
      across.row(above, out);
    } else {
      const float* below = lines.row(place.second, place.first, make);
      blend_rows(above, below, place.before, place.behind, length, line);
      across.row(line, out);
    }
    out += across.length();
  }
}

void views(const Changed& clip, const float* table, float* out, int64_t frame_count,
           const Shape& shape, const Crop& crop, int64_t out_height, int64_t out_width, bool flip,
           int64_t threads) {
  std::vector<Place> columns = places(crop.width, out_width);
  if (flip) std::reverse(columns.begin(), columns.end());
  const std::vector<Place> rows = places(crop.height, out_height);
  const Across across(columns);
  const int64_t n = 3 * out_width, floats = 3 * (3 * crop.width + kPickSlack);
  const Statistics statistics(table);
  const int64_t line_bytes = floats * static_cast<int64_t>(sizeof(float));
  Scratch scratch(threads, frame_count, line_bytes + 3 * crop.width);
  parallel_for(frame_count, out_height * n, threads, [&](int64_t begin, int64_t end) {
    const Scratch::Place memory = scratch.take();
    auto* lines = memory.as<float>();
    uint8_t* levels = memory.as<uint8_t>() + line_bytes;
    std::fill_n(lines, floats, 0.0f);  // what is picked behind a line has no weight, but is read
    for (int64_t t = begin; t < end; ++t) {
      const Tables* tables = clip.tables.empty() ? nullptr : &clip.tables[static_cast<size_t>(t)];
      if (tables != nullptr && tables->plain) tables = nullptr;
      const uint8_t* corner =
          clip.frames + ((t * shape.height + crop.top) * shape.width + crop.left) * 3;
      view_of_frame(corner, shape.row(), tables, statistics, rows, across, crop, lines, levels,
                    out + t * out_height * n);
    }
  });
}

// Frames that go through all operations together, so that they stay in the cache, and their memory with
// the process. Several, because the places that they read are worked out once for all of them.
int64_t frames_at_once(int64_t frame_count, int64_t bytes, int64_t threads) {
  constexpr int64_t kTogether = 3 << 19;
  return std::clamp<int64_t>(kTogether / bytes, std::max<int64_t>(threads, 1),
                             std::max(frame_count, std::max<int64_t>(threads, 1)));
}

}  // namespace
}  // namespace vmf

VMF_API int64_t vmf_resized_view(const uint8_t* frames,  // [frame_count, height, width, 3]
                                 const float* table,     // [3, 256]: levels, normalised
                                 float* out,             // [frame_count, out_height, out_width, 3]
                                 int64_t frame_count, int64_t height, int64_t width, int64_t top,
                                 int64_t left, int64_t crop_height, int64_t crop_width,
                                 int64_t out_height, int64_t out_width, int64_t flip,
                                 int64_t threads) {
  using namespace vmf;
  const Shape shape{height, width};
  const Crop crop{top, left, crop_height, crop_width};
  if (frame_count < 0 || std::min(out_height, out_width) < 1 || !crop.inside(shape)) {
    return kBadArgument;
  }
  try {
    views({frames, {}}, table, out, frame_count, shape, crop, out_height, out_width, flip != 0,
          threads);
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
  return kOk;
}

// Each operation says which part of its result the next one, or the crop, reads.
VMF_API int64_t vmf_augmented_view(const uint8_t* frames,             // [frame_count, height, width, 3]
                                   const vmf::Operation* operations,  // [operation_count]
                                   const float* table,                // [3, 256]: levels, normalised
                                   float* out,  // [frame_count, out_height, out_width, 3]
                                   int64_t operation_count, int64_t frame_count, int64_t height,
                                   int64_t width, int64_t top, int64_t left, int64_t crop_height,
                                   int64_t crop_width, int64_t out_height, int64_t out_width,
                                   int64_t flip, int64_t threads) {
  using namespace vmf;
  const Shape shape{height, width};
  const Crop crop{top, left, crop_height, crop_width};
  if (operation_count < 0 || frame_count < 0 || std::min(out_height, out_width) < 1 ||
      !crop.inside(shape) || !valid(operations, operation_count, shape)) {
    return kBadArgument;
  }
  try {
    const int64_t bytes = shape.pixels() * 3, group = frames_at_once(frame_count, bytes, threads);
    std::unique_ptr<uint8_t[]> memory[2];  // not initialised
    uint8_t* buffers[2] = {};
    for (int64_t i = 0; i < buffers_needed(operations, operation_count); ++i) {
      memory[i].reset(new uint8_t[static_cast<size_t>(group * bytes)]);
      buffers[i] = memory[i].get();
    }
    for (int64_t t = 0; t < frame_count; t += group) {
      const int64_t count = std::min(group, frame_count - t);
      const Changed found = changed(frames + t * bytes, operations, operation_count, buffers, count,
                                    shape, threads);
      views(found, table, out + t * out_height * out_width * 3, count, shape, crop, out_height,
            out_width, flip != 0, threads);
    }
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
  return kOk;
}
