// OpenCV's bilinear resize of uint8 frames, without antialiasing, bit for bit.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <vector>

#include "common.h"
#include "parallel.h"
#include "scratch.h"
#include "two_rows.h"

namespace vmf {
namespace {

// An output pixel of OpenCV's: its two neighbours, and their weights of 2048 together.
struct Cell {
  int64_t first, second;
  int32_t before, behind;
};

int32_t weight(float share) { return static_cast<int32_t>(std::nearbyint(share * 2048.0f)); }

std::vector<Cell> cells(int64_t length, int64_t size, bool across) {
  std::vector<Cell> found(static_cast<size_t>(size));
  const double scale = 1.0 / (static_cast<double>(size) / static_cast<double>(length));
  for (int64_t i = 0; i < size; ++i) {
    const auto place = static_cast<float>((static_cast<double>(i) + 0.5) * scale - 0.5);
    const float floor = std::floor(place);
    const auto cell = static_cast<int64_t>(floor);
    float share = place - floor;
    if (across && (cell < 0 || cell >= length - 1)) share = 0.0f;
    found[static_cast<size_t>(i)] = {std::clamp<int64_t>(cell, 0, length - 1),
                                     std::clamp<int64_t>(cell + 1, 0, length - 1),
                                     weight(1.0f - share), weight(share)};
  }
  return found;
}

VMF_CLONES void sums_of_row(const uint8_t* row, const Cell* columns, int64_t width, int32_t* sums) {
  for (int64_t x = 0; x < width; ++x) {
    const Cell& cell = columns[x];
    const uint8_t *first = row + 3 * cell.first, *second = row + 3 * cell.second;
    for (int64_t c = 0; c < 3; ++c) {
      sums[3 * x + c] = (cell.before * first[c] + cell.behind * second[c]) >> 4;
    }
  }
}

VMF_CLONES void join_rows(const int32_t* above, const int32_t* below, const Cell& cell, int64_t n,
                          uint8_t* out) {
  for (int64_t i = 0; i < n; ++i) {
    const int32_t sum = (cell.before * above[i] >> 16) + (cell.behind * below[i] >> 16);
    out[i] = static_cast<uint8_t>((sum + 2) >> 2);
  }
}

}  // namespace
}  // namespace vmf

VMF_API int64_t vmf_bilinear_resize(const uint8_t* frames,  // [frame_count, height, width, 3]
                                    uint8_t* out,           // [frame_count, out_height, out_width, 3]
                                    int64_t frame_count, int64_t height, int64_t width,
                                    int64_t out_height, int64_t out_width, int64_t threads) {
  using namespace vmf;
  if (frame_count < 0 || std::min({height, width, out_height, out_width}) < 1) return kBadArgument;
  try {
    const std::vector<Cell> columns = cells(width, out_width, true);
    const std::vector<Cell> rows = cells(height, out_height, false);
    const int64_t n = 3 * out_width;
    Scratch scratch(threads, frame_count, 2 * n * static_cast<int64_t>(sizeof(int32_t)));
    parallel_for(frame_count, out_height * n * 2, threads, [&](int64_t begin, int64_t end) {
      const Scratch::Place memory = scratch.take();
      for (int64_t t = begin; t < end; ++t) {
        const uint8_t* frame = frames + t * height * width * 3;
        TwoRows<int32_t> sums(memory.as<int32_t>(), n);
        const auto make = [&](int64_t row, int32_t* to) {
          sums_of_row(frame + row * width * 3, columns.data(), out_width, to);
        };
        for (int64_t y = 0; y < out_height; ++y) {
          const Cell& cell = rows[static_cast<size_t>(y)];
          const int32_t* above = sums.row(cell.first, cell.second, make);
          const int32_t* below = sums.row(cell.second, cell.first, make);
          join_rows(above, below, cell, n, out + (t * out_height + y) * n);
        }
      }
    });
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
  return kOk;
}
