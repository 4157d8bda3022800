// RoI features: the mean of tokens over time, RoIAlign and the maximum over the bins of each box.
#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <numeric>
#include <vector>

#include "common.h"
#include "parallel.h"
#include "roi_weights.h"
#include "scratch.h"

namespace vmf {
namespace {

constexpr int64_t kChannels = 64;  // worked on at once: a row of a map in the first level of cache

struct Span {
  int64_t begin, end;
};

// The cells along an axis that count in any bin of a box.
Span reached(const float* weights, int64_t size, int64_t length) {
  Span found{length, 0};
  for (int64_t k = 0; k < size; ++k) {
    for (int64_t x = 0; x < length; ++x) {
      if (weights[k * length + x] == 0.0f) continue;  // NaN counts
      found.begin = std::min(found.begin, x);
      found.end = std::max(found.end, x + 1);
    }
  }
  return found;
}

// A map [slots, cells, width] of one cell, averaged over the slots.
VMF_CLONES void mean_of_cell(const float* tokens, int64_t slots, int64_t slot_stride, int64_t width,
                             float* __restrict out) {
  std::memcpy(out, tokens, sizeof(float) * static_cast<size_t>(width));
  for (int64_t t = 1; t < slots; ++t) {
    const float* row = tokens + t * slot_stride;
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) out[i] += row[i];
  }
  const auto count = static_cast<float>(slots);
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) out[i] /= count;
}

VMF_INLINE void add_scaled(const float* row, float weight, int64_t n, float* sum) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) sum[i] += weight * row[i];
}

// Some channels of one box: of each the largest bin, and which that is. NaN is larger than all.
VMF_CLONES void largest_bins(const float* map,     // [height, width, dim], from the first channel
                             const float* down,    // [size, height]
                             const float* across,  // [size, width]
                             Span rows, Span columns, int64_t size, int64_t height, int64_t width,
                             int64_t dim, int64_t n,
                             float* line,  // [width, kChannels], scratch
                             float* out, int32_t* best) {
  float bin[kChannels];
  for (int64_t p = 0; p < size; ++p) {
    std::memset(line + columns.begin * kChannels, 0,
                sizeof(float) * static_cast<size_t>(
                                    std::max<int64_t>(0, columns.end - columns.begin) * kChannels));
    for (int64_t y = rows.begin; y < rows.end; ++y) {
      const float weight = down[p * height + y];
      if (weight == 0.0f) continue;
      for (int64_t x = columns.begin; x < columns.end; ++x) {
        add_scaled(map + (y * width + x) * dim, weight, n, line + x * kChannels);
      }
    }
    for (int64_t q = 0; q < size; ++q) {
      std::fill_n(bin, n, 0.0f);
      for (int64_t x = columns.begin; x < columns.end; ++x) {
        const float weight = across[q * width + x];
        if (weight != 0.0f) add_scaled(line + x * kChannels, weight, n, bin);
      }
      const auto number = static_cast<int32_t>(p * size + q);
      if (number == 0) {
        std::copy_n(bin, n, out);
        std::fill_n(best, n, 0);
        continue;
      }
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) {
        const bool larger = out[i] == out[i] && !(bin[i] <= out[i]);
        out[i] = larger ? bin[i] : out[i];
        best[i] = larger ? number : best[i];
      }
    }
  }
}

// The gradient of one box added to some channels of its map.
VMF_CLONES void add_box(const float* grad, const int32_t* best,  // [n]
                        const float* down, const float* across, Span rows, Span columns,
                        int64_t size, int64_t height, int64_t width, int64_t n,
                        float* row_weights,     // [height, kChannels], scratch
                        float* column_weights,  // [width, kChannels], scratch
                        float* map) {           // [height, width, kChannels]
  for (int64_t y = rows.begin; y < rows.end; ++y) {
    for (int64_t i = 0; i < n; ++i) {
      row_weights[y * kChannels + i] = grad[i] * down[best[i] / size * height + y];
    }
  }
  for (int64_t x = columns.begin; x < columns.end; ++x) {
    for (int64_t i = 0; i < n; ++i) {
      column_weights[x * kChannels + i] = across[best[i] % size * width + x];
    }
  }
  for (int64_t y = rows.begin; y < rows.end; ++y) {
    const float* by_row = row_weights + y * kChannels;
    for (int64_t x = columns.begin; x < columns.end; ++x) {
      const float* by_column = column_weights + x * kChannels;
      float* sum = map + (y * width + x) * kChannels;
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) sum[i] += by_row[i] * by_column[i];
    }
  }
}

bool clips_known(const int64_t* clip, int64_t boxes, int64_t batch) {
  return std::all_of(clip, clip + boxes, [&](int64_t of) { return of >= 0 && of < batch; });
}

}  // namespace
}  // namespace vmf

VMF_API int64_t vmf_roi_features(const float* tokens,  // [batch, slots, height, width, dim]
                                 const float* boxes,   // [count, 4]: x1, y1, x2, y2
                                 const int64_t* clip,  // [count]
                                 float* features,      // [count, dim]
                                 int32_t* best,        // [count, dim]
                                 float* down,          // [count, size, height]
                                 float* across,        // [count, size, width]
                                 int64_t batch, int64_t slots, int64_t height, int64_t width,
                                 int64_t dim, int64_t count, int64_t size, float scale,
                                 int64_t ratio, int64_t aligned, int64_t threads) {
  using namespace vmf;
  if (batch < 0 || slots < 1 || height < 1 || width < 1 || dim < 0 || count < 0 || size < 1 ||
      ratio < 0 || !(scale > 0.0f) || !clips_known(clip, count, batch)) {
    return kBadArgument;
  }
  const RoiSampling how{size, scale, ratio, aligned != 0};
  const int64_t cells = height * width;
  try {
    std::vector<Span> rows(static_cast<size_t>(count)), columns(static_cast<size_t>(count));
    std::vector<uint8_t> needed(static_cast<size_t>(batch * cells));
    for (int64_t n = 0; n < count; ++n) {
      float *own_down = down + n * size * height, *own_across = across + n * size * width;
      roi_weights(boxes + 4 * n, how, height, width, own_down, own_across);
      const Span y = rows[n] = reached(own_down, size, height);
      const Span x = columns[n] = reached(own_across, size, width);
      for (int64_t i = y.begin; i < y.end; ++i) {
        for (int64_t j = x.begin; j < x.end; ++j) needed[clip[n] * cells + i * width + j] = 1;
      }
    }
    // Tokens that no box reaches are not read.
    const std::unique_ptr<float[]> maps(new float[static_cast<size_t>(batch * cells * dim)]);
    parallel_for(batch * cells, slots * dim / 8, threads, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        if (!needed[i]) continue;
        const float* first = tokens + (i / cells * slots * cells + i % cells) * dim;
        mean_of_cell(first, slots, cells * dim, dim, maps.get() + i * dim);
      }
    });
    const int64_t parts = (dim + kChannels - 1) / kChannels, items = count * parts;
    Scratch lines(threads, items, static_cast<int64_t>(sizeof(float)) * width * kChannels);
    const int64_t cost = size * (cells + size * width) * kChannels / 32;
    parallel_for(items, cost, threads, [&](int64_t begin, int64_t end) {
      const auto place = lines.take();
      for (int64_t i = begin; i < end; ++i) {
        const int64_t n = i / parts, at = i % parts * kChannels;
        largest_bins(maps.get() + clip[n] * cells * dim + at, down + n * size * height,
                     across + n * size * width, rows[n], columns[n], size, height, width, dim,
                     std::min(kChannels, dim - at), place.as<float>(), features + n * dim + at,
                     best + n * dim + at);
      }
    });
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
  return kOk;
}

// A clip's channels are one thread's, which adds its boxes in their order: the same bits for any
// thread count.
VMF_API int64_t vmf_roi_features_backward(const float* grad,    // [count, dim]
                                          const int64_t* clip,  // [count]
                                          const int32_t* best,  // [count, dim]
                                          const float* down,    // [count, size, height]
                                          const float* across,  // [count, size, width]
                                          float* out,  // [batch, slots, height, width, dim]
                                          int64_t batch, int64_t slots, int64_t height,
                                          int64_t width, int64_t dim, int64_t count, int64_t size,
                                          int64_t threads) {
  using namespace vmf;
  if (batch < 0 || slots < 1 || height < 1 || width < 1 || dim < 0 || count < 0 || size < 1 ||
      !clips_known(clip, count, batch)) {
    return kBadArgument;
  }
  const auto bins = static_cast<int32_t>(size * size);
  const auto in_range = [&](int32_t bin) { return bin >= 0 && bin < bins; };
  if (!std::all_of(best, best + count * dim, in_range)) return kBadArgument;
  const int64_t cells = height * width, parts = (dim + kChannels - 1) / kChannels;
  try {
    // A counting sort: clip b has the boxes order[first[b]] .. order[first[b + 1] - 1].
    std::vector<int64_t> first(static_cast<size_t>(batch + 1)), order(static_cast<size_t>(count));
    for (int64_t n = 0; n < count; ++n) ++first[clip[n] + 1];
    std::partial_sum(first.begin(), first.end(), first.begin());
    std::vector<int64_t> next(first.begin(), first.end() - 1);
    for (int64_t n = 0; n < count; ++n) order[next[clip[n]]++] = n;
    std::vector<Span> rows(static_cast<size_t>(count)), columns(static_cast<size_t>(count));
    for (int64_t n = 0; n < count; ++n) {
      rows[n] = reached(down + n * size * height, size, height);
      columns[n] = reached(across + n * size * width, size, width);
    }
    const int64_t floats = (cells + height + width) * kChannels;
    Scratch scratch(threads, batch * parts, static_cast<int64_t>(sizeof(float)) * floats);
    const int64_t cost = (slots + count / std::max<int64_t>(batch, 1)) * cells * kChannels / 16;
    parallel_for(batch * parts, cost, threads, [&](int64_t begin, int64_t end) {
      const auto place = scratch.take();
      float* map = place.as<float>();
      float* row_weights = map + cells * kChannels;
      float* column_weights = row_weights + height * kChannels;
      for (int64_t i = begin; i < end; ++i) {
        const int64_t b = i / parts, at = i % parts * kChannels, n = std::min(kChannels, dim - at);
        std::memset(map, 0, sizeof(float) * static_cast<size_t>(cells * kChannels));
        for (int64_t k = first[b]; k < first[b + 1]; ++k) {
          const int64_t box = order[k];
          add_box(grad + box * dim + at, best + box * dim + at, down + box * size * height,
                  across + box * size * width, rows[box], columns[box], size, height, width, n,
                  row_weights, column_weights, map);
        }
        const auto count_of_slots = static_cast<float>(slots);
        for (int64_t j = 0; j < cells * kChannels; ++j) map[j] /= count_of_slots;
        for (int64_t t = 0; t < slots; ++t) {
          float* to = out + (b * slots + t) * cells * dim + at;
          for (int64_t c = 0; c < cells; ++c) {
            std::memcpy(to + c * dim, map + c * kChannels, sizeof(float) * static_cast<size_t>(n));
          }
        }
      }
    });
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
  return kOk;
}
