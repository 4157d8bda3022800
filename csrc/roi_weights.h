// What rows and columns of a feature map count in the bins of a box (RoIAlign).
#pragma once

#include <cstdint>

namespace vmf {

// How boxes are sampled: RoiSpec in ops/roi_align.py.
struct RoiSampling {
  int64_t size;   // bins along each side
  float scale;    // of box coordinates to cells
  int64_t ratio;  // samples along each side of a bin; 0: one per begun cell
  bool aligned;
};

// down[size, height] and across[size, width] of a box x1, y1, x2, y2; NaN if it is not finite or ends
// before it begins.
void roi_weights(const float* box, const RoiSampling& how, int64_t height, int64_t width,
                 float* down, float* across);

}  // namespace vmf
