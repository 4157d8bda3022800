// The first pass of a resize, of the two input rows that an output row joins.
#pragma once

#include <cstdint>

namespace vmf {

// Each row is made once where neighbouring output rows share it.
template <typename Value>
class TwoRows {
 public:
  TwoRows(Value* memory, int64_t length) : rows_{memory, memory + length} {}

  // The first pass of an input row; `make(row, to)` computes it.
  template <typename Make>
  const Value* row(int64_t number, int64_t kept, Make&& make) {
    for (int64_t i = 0; i < 2; ++i) {
      if (holds_[i] == number) return rows_[i];
    }
    const int64_t place = holds_[0] == kept ? 1 : 0;
    make(number, rows_[place]);
    holds_[place] = number;
    return rows_[place];
  }

 private:
  Value* rows_[2];
  int64_t holds_[2] = {-1, -1};
};

}  // namespace vmf
