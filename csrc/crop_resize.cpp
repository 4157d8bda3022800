// Crop and resize: boxes of uint8 clips, all views to one size, by Pillow's antialiased bilinear
// filter, bit for bit: sums with 22 bits behind the point, and a uint8 result between the passes.
//
// Both passes are one loop, a weighted sum of K runs. Down the columns a run is an image row. Along
// a row the neighbours of a pixel lie 3 bytes apart and are no run; so 16 rows at a time are turned
// on their side, where a pixel column of the 16 rows is a run of 48 words. Processors that can pick
// bytes at will take byte_picks.h's way instead, where few enough pixels meet in one.
#include <bit>
#include <cstring>
#include <new>
#include <vector>

#include "byte_picks.h"
#include "common.h"
#include "parallel.h"
#include "scratch.h"

namespace vmf {
namespace {

static_assert(std::endian::native == std::endian::little, "bytes are taken out of words by shifts");

constexpr int kPrecision = 22;  // bits behind the point of a weight
constexpr int32_t kHalf = 1 << (kPrecision - 1);
constexpr int64_t kMostTaps = 16'000;  // up to here no sum of rounded weights exceeds 255
constexpr int64_t kBand = 16;          // rows turned at a time: their words are a cache line
constexpr int64_t kRun = 3 * kBand;    // words of a pixel column of a band
constexpr int64_t kChunk = 32;         // output pixels of a band made at a time, in the L1 cache

// One view, as ops/crop_plan.py lays it out. A table has an entry per output pixel: the first
// source pixel, then `taps` weights.
struct View {
  int64_t clip;
  int64_t source;  // address of the box's first byte in frame 0
  int64_t frame_stride, row_stride;
  int64_t width, height;              // of the box
  int64_t table_across, taps_across;  // place in `tables`, weights of an entry
  int64_t table_down, taps_down;
  int64_t flip;
};

VMF_INLINE int64_t padded(int64_t n) { return (n + 15) / 16 * 16; }

// What one frame needs beside its source and its result.
struct Buffers {
  int32_t* turned;   // [width of the box * 3, padded][kBand], a byte per word
  int32_t* resized;  // [kChunk * 3][kBand]: after the first pass, still turned
  uint8_t* rows;     // [height of the box, padded][out_width * 3, padded]
};

using Words = uint32_t __attribute__((vector_size(16)));
#if __has_builtin(__builtin_shufflevector)
#define VMF_PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else  // GCC before 12
#define VMF_PICK(a, b, ...) __builtin_shuffle(a, b, Words{__VA_ARGS__})
#endif

// Four rows of four words become columns.
VMF_INLINE void transpose(Words& a, Words& b, Words& c, Words& d) {
  const Words ac_low = VMF_PICK(a, c, 0, 4, 1, 5), ac_high = VMF_PICK(a, c, 2, 6, 3, 7);
  const Words bd_low = VMF_PICK(b, d, 0, 4, 1, 5), bd_high = VMF_PICK(b, d, 2, 6, 3, 7);
  a = VMF_PICK(ac_low, bd_low, 0, 4, 1, 5);
  b = VMF_PICK(ac_low, bd_low, 2, 6, 3, 7);
  c = VMF_PICK(ac_high, bd_high, 0, 4, 1, 5);
  d = VMF_PICK(ac_high, bd_high, 2, 6, 3, 7);
}

// Sixteen rows of 16 bytes on their side, a byte per word: out[16][kBand].
VMF_INLINE void turn_block(const uint8_t* const (&rows)[kBand], int64_t begin, int32_t* out) {
  for (int64_t r = 0; r < kBand; r += 4) {
    Words x[4];
    for (int64_t i = 0; i < 4; ++i) std::memcpy(&x[i], rows[r + i] + begin, 16);
    transpose(x[0], x[1], x[2], x[3]);
    for (int64_t i = 0; i < 4; ++i) {
      for (int64_t k = 0; k < 4; ++k) {
        const Words byte = x[i] >> (8 * k) & 255;
        std::memcpy(out + (4 * i + k) * kBand + r, &byte, 16);
      }
    }
  }
}

// Bytes begin..end of sixteen rows on their side. `length` bytes of a row may be read.
VMF_INLINE void turn(const uint8_t* const (&rows)[kBand], int64_t begin, int64_t end,
                     int64_t length, int32_t* out) {
  for (; begin < end && begin + 16 <= length; begin += 16, out += 16 * kBand) {
    turn_block(rows, begin, out);
  }
  if (begin < end) {  // what is left of the row, then zeros
    uint8_t ends[kBand][16] = {};
    const uint8_t* end_rows[kBand];
    for (int64_t r = 0; r < kBand; ++r) {
      std::memcpy(ends[r], rows[r] + begin, static_cast<size_t>(length - begin));
      end_rows[r] = ends[r];
    }
    turn_block(end_rows, 0, out);
  }
}

// And back: `bytes` (a multiple of 16) of sixteen rows that lie `row` bytes apart.
VMF_INLINE void turn_back(const int32_t* __restrict turned, int64_t bytes, int64_t row,
                          uint8_t* rows) {
  for (int64_t begin = 0; begin < bytes; begin += 16, turned += 16 * kBand) {
    uint32_t packed[4][kBand];  // four bytes of a row to a word
    for (int64_t i = 0; i < 4; ++i) {
#pragma omp simd
      for (int64_t r = 0; r < kBand; ++r) {
        const int32_t* byte = turned + 4 * i * kBand + r;
        packed[i][r] = static_cast<uint32_t>(byte[0] | byte[kBand] << 8 | byte[2 * kBand] << 16 |
                                             byte[3 * kBand] << 24);
      }
    }
    for (int64_t r = 0; r < kBand; r += 4) {
      Words x[4];
      for (int64_t i = 0; i < 4; ++i) std::memcpy(&x[i], &packed[i][r], 16);
      transpose(x[0], x[1], x[2], x[3]);
      for (int64_t i = 0; i < 4; ++i) std::memcpy(rows + (r + i) * row + begin, &x[i], 16);
    }
  }
}

// out[i] = the rounded sum over k of weights[k] * in[k * stride + i]. Weights are not negative and
// add up to one, so the sum is a grey level. TAPS weights, or `taps` of them where TAPS is 0.
template <int TAPS, typename In, typename Out>
VMF_INLINE void blend(const In* __restrict in, int64_t stride, const int32_t* __restrict weights,
                      int64_t taps, Out* __restrict out, int64_t n) {
  if constexpr (TAPS > 0) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      int32_t sum = kHalf;
      for (int k = 0; k < TAPS; ++k) sum += weights[k] * in[k * stride + i];
      out[i] = static_cast<Out>(sum >> kPrecision);
    }
  } else {
    for (int64_t begin = 0; begin < n; begin += kRun) {
      const int64_t count = n - begin < kRun ? n - begin : kRun;
      int32_t sums[kRun];
      for (int64_t i = 0; i < kRun; ++i) sums[i] = kHalf;
      for (int64_t k = 0; k < taps; ++k) {
        const In* run = in + k * stride + begin;
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) sums[i] += weights[k] * run[i];
      }
#pragma omp simd
      for (int64_t i = 0; i < count; ++i) out[begin + i] = static_cast<Out>(sums[i] >> kPrecision);
    }
  }
}

// The first pass over a band of the box. Flipped, pixel i of a row is made as pixel width - 1 - i.
// The band `below` bytes further (0: none) is fetched meanwhile: sixteen rows at once are more
// streams than a processor follows by itself.
template <int TAPS>
VMF_INLINE void across(const uint8_t* const (&band)[kBand], int64_t below, const View& view,
                       const int32_t* table, int64_t width, const Buffers& buffers, uint8_t* rows) {
  const int64_t taps = view.taps_across, entry = 1 + taps, row = padded(3 * width);
  for (int64_t begin = 0; begin < width; begin += kChunk) {
    const int64_t count = width - begin < kChunk ? width - begin : kChunk;
    const int32_t* entries = table + (view.flip ? width - begin - count : begin) * entry;
    const int64_t first = entries[0], end = entries[(count - 1) * entry] + taps;
    for (int64_t r = 0; r < kBand && below; ++r) {
      for (int64_t o = 3 * first; o < 3 * end; o += 64) __builtin_prefetch(band[r] + below + o);
    }
    turn(band, 3 * first, 3 * end, 3 * view.width, buffers.turned);
    for (int64_t i = 0; i < count; ++i, entries += entry) {
      const int64_t to = view.flip ? count - 1 - i : i;
      blend<TAPS>(buffers.turned + (entries[0] - first) * kRun, kRun, entries + 1, taps,
                  buffers.resized + to * kRun, kRun);
    }
    turn_back(buffers.resized, padded(3 * count), row, rows + 3 * begin);
  }
}

// The second pass, over rows `row` bytes apart.
template <int TAPS>
VMF_INLINE void down(const uint8_t* rows, int64_t row, const int32_t* table, int64_t taps,
                     int64_t out_height, int64_t out_row, uint8_t* out) {
  for (int64_t y = 0; y < out_height; ++y, table += 1 + taps) {
    blend<TAPS>(rows + table[0] * row, row, table + 1, taps, out + y * out_row, out_row);
  }
}

VMF_CLONES void resize_frame(const uint8_t* source, const View& view, const int32_t* tables,
                             const std::vector<BytePicks>& picks, int64_t out_height,
                             int64_t out_width, const Buffers& buffers,
                             uint8_t* out) {
  const int32_t* table = tables + view.table_across;
  const int64_t out_row = 3 * out_width;
  const uint8_t* rows = source;
  int64_t row = view.row_stride;
  if (view.width != out_width || view.flip) {  // else the one weight of every pixel is 1
    rows = buffers.rows;
    row = padded(out_row);
    if (!picks.empty()) {
      across_picked(picks, view.taps_across, kPrecision, source, view.row_stride, view.height,
                    buffers.rows, row);
    }
    for (int64_t y = 0; y < view.height && picks.empty(); y += kBand) {
      const uint8_t* band[kBand];
      for (int64_t r = 0; r < kBand; ++r) {  // below the box, its last row
        band[r] = source + (y + r < view.height ? y + r : view.height - 1) * view.row_stride;
      }
      const int64_t below = y + 2 * kBand <= view.height ? kBand * view.row_stride : 0;
      uint8_t* to = buffers.rows + y * row;
      switch (view.taps_across) {
        case 2: across<2>(band, below, view, table, out_width, buffers, to); break;
        case 3: across<3>(band, below, view, table, out_width, buffers, to); break;
        default: across<0>(band, below, view, table, out_width, buffers, to);
      }
    }
  }
  table = tables + view.table_down;
  if (view.height == out_height) {
    for (int64_t y = 0; y < out_height; ++y) {
      std::memcpy(out + y * out_row, rows + y * row, static_cast<size_t>(out_row));
    }
    return;
  }
  switch (view.taps_down) {
    case 2: return down<2>(rows, row, table, 2, out_height, out_row, out);
    case 3: return down<3>(rows, row, table, 3, out_height, out_row, out);
    default: return down<0>(rows, row, table, view.taps_down, out_height, out_row, out);
  }
}

struct Task {
  int64_t view, frame;
};

// Every frame of every view. A clip's views take a frame one after the other, while it is cached.
std::vector<Task> tasks_of(const View* views, int64_t view_count, int64_t frames) {
  std::vector<Task> tasks;
  tasks.reserve(static_cast<size_t>(view_count * frames));
  for (int64_t begin = 0, end = 0; begin < view_count; begin = end) {
    while (end < view_count && views[end].clip == views[begin].clip) ++end;
    for (int64_t frame = 0; frame < frames; ++frame) {
      for (int64_t view = begin; view < end; ++view) tasks.push_back({view, frame});
    }
  }
  return tasks;
}

// Whether a table lies within `tables` and its weights meet pixels of the box alone.
bool fits(const int32_t* tables, int64_t count, int64_t place, int64_t taps, int64_t size,
          int64_t length) {
  if (length < 1 || taps < 1 || taps > length || taps > kMostTaps) return false;
  if (place < 0 || place + size * (1 + taps) > count) return false;
  for (int64_t i = 0; i < size; ++i) {
    const int64_t first = tables[place + i * (1 + taps)];
    if (first < 0 || first + taps > length) return false;
  }
  return true;
}

}  // namespace
}  // namespace vmf

VMF_API int64_t vmf_crop_resize(const vmf::View* views,  // [view_count]
                                const int32_t* tables,   // [table_count]
                                uint8_t* out,            // [view_count, frames, height, width, 3]
                                int64_t view_count, int64_t table_count, int64_t frames,
                                int64_t height, int64_t width, int64_t threads) {
  using namespace vmf;
  if (view_count < 0 || frames < 0 || height < 1 || width < 1) return kBadArgument;
  int64_t most_across = 0, most_down = 0, work = 0;
  for (int64_t i = 0; i < view_count; ++i) {
    const View& view = views[i];
    if (!fits(tables, table_count, view.table_across, view.taps_across, width, view.width) ||
        !fits(tables, table_count, view.table_down, view.taps_down, height, view.height)) {
      return kBadArgument;
    }
    most_across = std::max(most_across, view.width);
    most_down = std::max(most_down, view.height);
    work += view.height * (view.width + width * view.taps_across) + height * width * view.taps_down;
  }
  // The first two, in words, are whole cache lines.
  const int64_t turned = padded(3 * most_across) * kBand, resized = 3 * kChunk * kBand;
  const int64_t bytes = 4 * (turned + resized) + padded(most_down) * padded(3 * width);
  try {
    const std::vector<Task> tasks = tasks_of(views, view_count, frames);
    std::vector<std::vector<BytePicks>> picks;
    for (int64_t i = 0; i < view_count; ++i) {
      const View& view = views[i];
      picks.push_back(byte_picks(tables + view.table_across, view.taps_across, width, view.flip));
    }
    const int64_t cost = view_count > 0 ? work / view_count / 8 : 0, n = view_count * frames;
    Scratch scratch(threads, n, bytes);
    parallel_for(n, cost, threads, [&](int64_t begin, int64_t end) {
      const Scratch::Place place = scratch.take();
      auto* memory = place.as<int32_t>();
      const Buffers buffers{memory, memory + turned,
                            reinterpret_cast<uint8_t*>(memory + turned + resized)};
      for (int64_t i = begin; i < end; ++i) {
        const auto [number, frame] = tasks[static_cast<size_t>(i)];
        const View& view = views[number];
        const auto* source = reinterpret_cast<const uint8_t*>(view.source);
        resize_frame(source + frame * view.frame_stride, view, tables,
                     picks[static_cast<size_t>(number)], height, width, buffers,
                     out + (number * frames + frame) * height * width * 3);
      }
    });
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
  return kOk;
}
