// What the ops share that run RandAugment's operations on the frames of one clip.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace vmf {

// A part of a frame, in pixels; the last row and column are not in it.
struct Region {
  int64_t top, bottom, left, right;
  int64_t width() const { return right - left; }
};

// As ops/augment_plan.py lays it out: the kind, its argument, of an affine operation the matrix that
// takes the place of an output pixel to one of the input, and the part of the result that is read.
struct Operation {
  double kind, argument;
  double matrix[6];
  double top, bottom, left, right;
  Region region() const {
    return {static_cast<int64_t>(top), static_cast<int64_t>(bottom), static_cast<int64_t>(left),
            static_cast<int64_t>(right)};
  }
};

constexpr int64_t kLevels = 256;

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

// Frames after some operations: these bytes, where the last operation's result is read, go through the
// tables of their frame.
struct Changed {
  const uint8_t* frames;
  std::vector<Tables> tables;
};

// Whether there are such operations for frames of this shape.
bool valid(const Operation* operations, int64_t count, const Shape& shape);

// How many of the two buffers that `changed` gets are written to.
int64_t buffers_needed(const Operation* operations, int64_t count);

// `buffers` are as large as the frames; what they hold afterwards belongs to the result. Throws
// std::bad_alloc.
Changed changed(const uint8_t* frames, const Operation* operations, int64_t count,
                uint8_t* const (&buffers)[2], int64_t frame_count, const Shape& shape,
                int64_t threads);

// The bytes that these tables make of a part of a frame.
void look_up(const Tables& tables, const uint8_t* from, uint8_t* to, const Shape& shape,
             const Region& region);

}  // namespace vmf
