// Affine operations on the frames of one clip, for one instruction set.
//
// Included inside a namespace that has Vector, of kLanes floats, and `widen`, which makes one of as many
// bytes: code belongs to the instruction set that it is written under. Bytes are Pillow's, whose cubic
// is summed in fp64 and truncated.

typedef uint8_t Row __attribute__((vector_size(16)));
typedef float Four __attribute__((vector_size(16)));
typedef double Quad __attribute__((vector_size(32)));
typedef int32_t Ints __attribute__((vector_size(16)));
typedef uint8_t Bytes __attribute__((vector_size(4)));

constexpr int64_t kTile = 256;   // pixels of a row that are summed together
constexpr int64_t kWindow = 16;  // bytes read of a row of neighbours, 12 of which count
constexpr int64_t kReach = kWindow + 3;  // bytes read from the first neighbour on
// Sums in fp32 of 4 x 4 levels with weights of 2.25 together are less than 0.0004 from the exact ones.
constexpr float kApart = 1.0f / 1024;

VMF_INLINE Quad cubic(Quad before, Quad here, Quad there, Quad behind, double share) {
  const Quad p = there - before;
  const Quad q = 2.0 * (before - here) + there - behind;
  const Quad r = -before + here - there + behind;
  return here + share * (p + share * (q + share * r));
}

// The three levels of a pixel; `whole`: a fourth byte may be read too.
template <bool whole>
VMF_INLINE Quad pixel(const uint8_t* at) {
  Bytes bytes = {};
  std::memcpy(&bytes, at, whole ? 4 : 3);
  return __builtin_convertvector(__builtin_convertvector(bytes, Ints), Quad);
}

// One input row, `share` of the way between its pixels.
template <bool whole>
VMF_INLINE Quad line(const uint8_t* row, const int64_t (&column)[4], double share) {
  if (share == 0.0) return pixel<whole>(row + column[1]);
  return cubic(pixel<whole>(row + column[0]), pixel<whole>(row + column[1]),
               pixel<whole>(row + column[2]), pixel<whole>(row + column[3]), share);
}

template <bool whole>
VMF_INLINE void sample(const uint8_t* frame, const int64_t (&row)[4], const int64_t (&column)[4],
                       double across, double down, uint8_t* out) {
  Quad exact;
  if (down == 0.0) {
    exact = line<whole>(frame + row[1], column, across);
  } else {
    exact = cubic(line<whole>(frame + row[0], column, across),
                  line<whole>(frame + row[1], column, across),
                  line<whole>(frame + row[2], column, across),
                  line<whole>(frame + row[3], column, across), down);
  }
  const Quad low = {}, high = low + 255.0;
  exact = exact < low ? low : exact;
  exact = exact > high ? high : exact;
  const Ints levels = __builtin_convertvector(exact, Ints);
  for (int64_t c = 0; c < 3; ++c) out[c] = static_cast<uint8_t>(levels[c]);
}

// Where an output pixel reads its 4 x 4 neighbours.
struct Spot {
  int64_t row[4], column[4];  // offsets in bytes
  double across, down;
  bool inside;  // of the frame; all else is unset where it is not
  bool whole;   // a fourth byte may be read at each neighbour: it lies in the same row
  bool open;    // kReach bytes lie in the row from its first neighbour on, of each row
};

VMF_INLINE Spot spot_of(const double (&m)[6], const Shape& shape, int64_t x, int64_t y) {
  const double column = static_cast<double>(x) + 0.5, row = static_cast<double>(y) + 0.5;
  double at_x = m[0] * column + m[1] * row + m[2];
  double at_y = m[3] * column + m[4] * row + m[5];
  Spot spot;
  spot.inside = at_x >= 0.0 && at_x < static_cast<double>(shape.width) && at_y >= 0.0 &&
                at_y < static_cast<double>(shape.height);
  spot.whole = spot.open = false;
  if (!spot.inside) return spot;
  at_x -= 0.5, at_y -= 0.5;
  const double floor_x = std::floor(at_x), floor_y = std::floor(at_y);
  const auto first = static_cast<int64_t>(floor_x), top = static_cast<int64_t>(floor_y);
  for (int64_t i = 0; i < 4; ++i) {
    spot.row[i] = std::clamp<int64_t>(top + i - 1, 0, shape.height - 1) * shape.row();
    spot.column[i] = std::clamp<int64_t>(first + i - 1, 0, shape.width - 1) * 3;
  }
  spot.across = at_x - floor_x, spot.down = at_y - floor_y;
  spot.whole = first + 2 < shape.width - 1;
  spot.open = first >= 1 && 3 * (first - 1) + kReach <= shape.row() && top >= 1 &&
              top + 2 < shape.height;
  return spot;
}

VMF_INLINE void exactly(const uint8_t* frame, const Spot& spot, uint8_t* out) {
  if (spot.whole) {
    sample<true>(frame, spot.row, spot.column, spot.across, spot.down, out);
  } else {
    sample<false>(frame, spot.row, spot.column, spot.across, spot.down, out);
  }
}

// What the fast sum of an output pixel needs, in the order of the bytes of a row of neighbours, which
// are 4 pixels of 3 channels and what follows them: weights (0 of what follows), and which bytes count
// where rows, and where neighbouring columns, are compared. Then rows' weights, and where it begins.
struct alignas(64) Window {
  float across[kWindow];
  uint8_t rows[kWindow], columns[kWindow];
  float down[4];
  int64_t offset;
};

// The cubic's weights of the four neighbours.
VMF_INLINE void cubic_weights(double t, float (&weights)[4]) {
  weights[0] = static_cast<float>(t * (-1.0 + t * (2.0 - t)));
  weights[1] = static_cast<float>(1.0 + t * t * (t - 2.0));
  weights[2] = static_cast<float>(t * (1.0 + t * (1.0 - t)));
  weights[3] = static_cast<float>(t * t * (t - 1.0));
}

VMF_INLINE Window window_of(const Spot& spot, int64_t rows) {
  Window window = {};
  float across[4];
  cubic_weights(spot.across, across);
  const bool mixed = spot.across != 0.0;
  for (int64_t i = 0; i < 12; ++i) {
    window.across[i] = across[i / 3];
    window.rows[i] = mixed || i / 3 == 1 ? 0xFF : 0;
    window.columns[i] = mixed && i < 9 ? 0xFF : 0;
  }
  if (rows == 4) {
    cubic_weights(spot.down, window.down);
  } else {
    window.down[0] = 1.0f;
  }
  window.offset = spot.row[rows == 4 ? 0 : 1] + spot.column[0];
  return window;
}

// Of `count` output pixels of a frame.
struct Sums {
  alignas(64) float products[kTile * kWindow];
  alignas(16) uint8_t differ[kTile * kWindow];
  float sum[3 * kTile + 1];       // of each channel, in fp32: down, then across
  uint8_t mixed[3 * kTile + 1];   // 0 where all levels summed are one, which the sum then is
};

template <int64_t rows>
VMF_INLINE void fast_sums(const uint8_t* frame, const Window* windows, int64_t count,
                          int64_t row_bytes, Sums& sums) {
  constexpr int64_t kParts = kWindow / kLanes;
  for (int64_t i = 0; i < count; ++i) {
    const Window& window = windows[i];
    const uint8_t* at = frame + window.offset;
    Vector sum[kParts] = {}, across[kParts];
    Row first, shifted, differ = {}, which;
    std::memcpy(&first, at, kWindow);
#pragma GCC unroll 4
    for (int64_t j = 0; j < rows; ++j) {
#pragma GCC unroll 4
      for (int64_t part = 0; part < kParts; ++part) {
        sum[part] += widen(at + j * row_bytes + part * kLanes) * window.down[j];
      }
      Row row;
      std::memcpy(&row, at + j * row_bytes, kWindow);
      differ |= first ^ row;
    }
    std::memcpy(across, window.across, sizeof across);
#pragma GCC unroll 4
    for (int64_t part = 0; part < kParts; ++part) sum[part] *= across[part];
    std::memcpy(sums.products + i * kWindow, sum, sizeof sum);
    std::memcpy(&which, window.rows, kWindow);
    differ &= which;
    std::memcpy(&shifted, at + 3, kWindow);
    std::memcpy(&which, window.columns, kWindow);
    differ |= (first ^ shifted) & which;
    std::memcpy(sums.differ + i * kWindow, &differ, kWindow);
  }
  for (int64_t i = 0; i < count; ++i) {  // a fourth channel, which the next pixel overwrites
    Four part[4], sum;
    uint32_t differ[4], mixed;
#pragma GCC unroll 4
    for (int64_t k = 0; k < 4; ++k) {
      std::memcpy(&part[k], sums.products + i * kWindow + 3 * k, 16);
      std::memcpy(&differ[k], sums.differ + i * kWindow + 3 * k, 4);
    }
    sum = (part[0] + part[1]) + (part[2] + part[3]);
    mixed = (differ[0] | differ[1]) | (differ[2] | differ[3]);
    std::memcpy(sums.sum + 3 * i, &sum, 16);
    std::memcpy(sums.mixed + 3 * i, &mixed, 4);
  }
}

// The levels of the sums, and which of them the exact value may not have; whether there is one. Of
// neighbours of one level the exact value is that level, and so is the sum, within kApart.
VMF_INLINE bool levels_of(const Sums& sums, int64_t count, uint8_t* __restrict levels,
                          uint8_t* __restrict unsure) {
  const float* __restrict sum = sums.sum;
  const uint8_t* __restrict mixed = sums.mixed;
  int32_t any = 0;
#pragma omp simd reduction(| : any)
  for (int64_t i = 0; i < count; ++i) {
    const int32_t level = std::clamp(static_cast<int32_t>(sum[i] + kApart), 0, 255);
    const int32_t other = std::clamp(static_cast<int32_t>(sum[i] - kApart), 0, 255);
    const int32_t open = mixed[i] != 0 ? level ^ other : 0;
    levels[i] = static_cast<uint8_t>(level);
    unsure[i] = static_cast<uint8_t>(open);
    any |= open;
  }
  return any != 0;
}

// A pixel of all frames, the slow way; `out` is its place in the first one.
VMF_INLINE void one_pixel(const uint8_t* from, uint8_t* out, int64_t frames, int64_t frame_bytes,
                          const Spot& spot) {
  for (int64_t t = 0; t < frames; ++t) {
    if (spot.inside) {
      exactly(from + t * frame_bytes, spot, out + t * frame_bytes);
    } else {
      std::memset(out + t * frame_bytes, kFill, 3);
    }
  }
}

// The exact levels of those of `count` pixels from x, y on whose sums left them open.
VMF_INLINE void settle(const uint8_t* frame, const double (&m)[6], const Shape& shape, int64_t x,
                       int64_t y, int64_t count, const uint8_t* unsure, uint8_t* levels) {
  for (int64_t i = 0; i < count; ++i) {
    uint64_t next[3];  // bytes of 8 pixels
    if (i + 8 <= count) {
      std::memcpy(next, unsure + 3 * i, sizeof next);
      if ((next[0] | next[1] | next[2]) == 0) {
        i += 7;
        continue;
      }
    }
    if ((unsure[3 * i] | unsure[3 * i + 1] | unsure[3 * i + 2]) != 0) {
      exactly(frame, spot_of(m, shape, x + i, y), levels + 3 * i);
    }
  }
}

// Output pixels left..right of rows begin..end, of all frames: the places that they read are the same.
// Most pixels are summed in fp32; where that sum is so near to a level that the exact one could be on
// its other side, and at the frame's edges, the exact one is taken.
template <int64_t rows>
VMF_INLINE void affine_rows(const uint8_t* from, uint8_t* to, int64_t frames, const Shape& shape,
                            const double (&m)[6], const Region& region) {
  const int64_t frame_bytes = shape.pixels() * 3, row_bytes = shape.row();
  Window windows[kTile];
  Sums sums;
  uint8_t unsure[3 * kTile];
  for (int64_t y = region.top; y < region.bottom; ++y) {
    for (int64_t x = region.left; x < region.right;) {
      // Places of a row that lie well inside follow one another.
      const Spot spot = spot_of(m, shape, x, y);
      uint8_t* out = to + y * row_bytes + 3 * x;
      if (!spot.open) {
        one_pixel(from, out, frames, frame_bytes, spot);
        ++x;
        continue;
      }
      int64_t count = 0;
      for (Spot next = spot; next.open; next = spot_of(m, shape, x + count, y)) {
        windows[count++] = window_of(next, rows);
        if (count == kTile || x + count == region.right) break;
      }
      for (int64_t t = 0; t < frames; ++t) {
        const uint8_t* frame = from + t * frame_bytes;
        uint8_t* levels = out + t * frame_bytes;
        fast_sums<rows>(frame, windows, count, row_bytes, sums);
        if (levels_of(sums, 3 * count, levels, unsure)) {
          settle(frame, m, shape, x, y, count, unsure, levels);
        }
      }
      x += count;
    }
  }
}
