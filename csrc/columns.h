// Sums over rows, one per column, whose bits don't depend on the thread count: rows are cut into
// blocks by their number alone, each block sums into a row of its own, and those are added in order.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace vmf {

class ColumnSums {
 public:
  ColumnSums(int64_t rows, int64_t width)
      : width_(width),
        block_rows_(std::max<int64_t>(16, (rows + 63) / 64)),
        rows_(rows),
        blocks_((rows + block_rows_ - 1) / block_rows_),
        sums_(static_cast<size_t>(blocks_ * width)) {}

  int64_t blocks() const { return blocks_; }
  int64_t block_rows() const { return block_rows_; }
  int64_t begin(int64_t block) const { return block * block_rows_; }
  int64_t end(int64_t block) const { return std::min(rows_, (block + 1) * block_rows_); }
  float* of(int64_t block) { return sums_.data() + block * width_; }

  void write(float* out) const {
    std::vector<double> total(static_cast<size_t>(width_));
    for (int64_t block = 0; block < blocks_; ++block) {
      const float* part = sums_.data() + block * width_;
      for (int64_t x = 0; x < width_; ++x) total[x] += part[x];
    }
    for (int64_t x = 0; x < width_; ++x) out[x] = float(total[x]);
  }

 private:
  int64_t width_, block_rows_, rows_, blocks_;
  std::vector<float> sums_;
};

}  // namespace vmf
