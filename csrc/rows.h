// A row of features added to another, for the sums along the token axis.
#pragma once

#include <cstdint>

#include "common.h"

namespace vmf {
namespace {  // each file gets its own clones

VMF_CLONES void add_row(const float* __restrict row, float* __restrict sum, int64_t width) {
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) sum[i] += row[i];
}

}  // namespace
}  // namespace vmf
