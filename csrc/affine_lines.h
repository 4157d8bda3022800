// Affine operations that move pixels along one axis: shears and translations. Included behind
// affine_rows.h, for the same instruction set; the same bytes.
//
// Along a row, all pixels of a row have one share and one offset, so its bytes are four runs of bytes
// with four weights. Down, a column has them; neighbouring columns' offsets are a few rows apart, and
// 16 bytes of them read some more rows, each with a weight per byte. Shares within kNear of a whole
// pixel go the general way: there, rounding decides which four neighbours are read.

constexpr double kNear = 1e-6;
constexpr int64_t kGroup = 16;    // bytes of a row of columns that are summed together
constexpr int64_t kMostRows = 8;  // that a group reads; a slope of 0.3 takes 6
constexpr int64_t kBand = 3 * kTile / kGroup;  // rows of a group

// Offset and share of a line whose pixels move by `place`; whether it is far from a whole pixel.
struct Move {
  int64_t offset;
  double share;
  bool clear;
};

VMF_INLINE Move move_of(double place) {
  const double floor = std::floor(place);
  const double share = place - floor;
  return {static_cast<int64_t>(floor), share, share >= kNear && share <= 1.0 - kNear};
}

// `count` bytes, each of four pixels that lie 3 bytes apart.
VMF_INLINE void sums_along(const uint8_t* __restrict at, const float (&weights)[4], int64_t count,
                           Sums& sums) {
  uint8_t* __restrict mixed = sums.mixed;
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const Vector sum = (widen(at + i) * weights[0] + widen(at + i + 3) * weights[1]) +
                       (widen(at + i + 6) * weights[2] + widen(at + i + 9) * weights[3]);
    std::memcpy(sums.sum + i, &sum, sizeof sum);
  }
  for (; i < count; ++i) {
    sums.sum[i] = 0.0f;
    for (int64_t k = 0; k < 4; ++k) sums.sum[i] += static_cast<float>(at[i + 3 * k]) * weights[k];
  }
  for (i = 0; i < count; ++i) {
    mixed[i] = static_cast<uint8_t>((at[i] ^ at[i + 3]) | (at[i + 3] ^ at[i + 6]) |
                                    (at[i + 6] ^ at[i + 9]));
  }
}

// Pixels begin..end of a row of all frames, the slow way; those far outside are filled at once.
VMF_INLINE void edge_of_row(const uint8_t* from, uint8_t* to, int64_t frames, const Shape& shape,
                            const double (&m)[6], int64_t y, int64_t begin, int64_t end,
                            const Move& move) {
  const int64_t frame_bytes = shape.pixels() * 3;
  for (int64_t x = begin; x < end;) {
    uint8_t* out = to + y * shape.row() + 3 * x;
    int64_t count = 0;
    while (x + count < end && (x + count + move.offset < -2 ||
                               x + count + move.offset > shape.width + 1)) {
      ++count;
    }
    for (int64_t t = 0; count > 0 && t < frames; ++t) {
      std::memset(out + t * frame_bytes, kFill, static_cast<size_t>(3 * count));
    }
    if (count == 0) one_pixel(from, out, frames, frame_bytes, spot_of(m, shape, x, y)), count = 1;
    x += count;
  }
}

void affine_along(const uint8_t* from, uint8_t* to, int64_t frames, const Shape& shape,
                  const double (&m)[6], const Region& region) {
  const int64_t frame_bytes = shape.pixels() * 3;
  Sums sums;
  uint8_t unsure[3 * kTile];
  for (int64_t y = region.top; y < region.bottom; ++y) {
    const Move move = move_of(m[1] * (static_cast<double>(y) + 0.5) + m[2]);
    if (!move.clear) {
      affine_rows<1>(from, to, frames, shape, m, {y, y + 1, region.left, region.right});
      continue;
    }
    float weights[4];
    cubic_weights(move.share, weights);
    // Of these pixels, all four neighbours lie in the row
    const int64_t begin = std::clamp(1 - move.offset, region.left, region.right);
    const int64_t end = std::clamp(shape.width - 2 - move.offset, begin, region.right);
    edge_of_row(from, to, frames, shape, m, y, region.left, begin, move);
    edge_of_row(from, to, frames, shape, m, y, end, region.right, move);
    for (int64_t t = 0; t < frames; ++t) {
      const uint8_t* frame = from + t * frame_bytes;
      for (int64_t x = begin; x < end; x += kTile) {
        const int64_t count = std::min(kTile, end - x);
        const uint8_t* at = frame + y * shape.row() + 3 * (x + move.offset - 1);
        uint8_t* levels = to + t * frame_bytes + y * shape.row() + 3 * x;
        sums_along(at, weights, 3 * count, sums);
        if (levels_of(sums, 3 * count, levels, unsure)) {
          settle(frame, m, shape, x, y, count, unsure, levels);
        }
      }
    }
  }
}

// Sixteen bytes of a row of columns.
struct alignas(64) Group {
  float weights[kMostRows][kGroup];
  uint8_t pairs[kMostRows][kGroup];  // which bytes read a row and the next one
  int64_t byte;                      // the first, of the row
  int64_t first, rows;               // rows that are read: from the output's row + first on
  int64_t above, below;              // output rows above..below read rows of the frame alone
  int64_t before, behind;            // those before and from `behind` on are outside of it
  bool clear;
};

VMF_INLINE Group group_of(const Shape& shape, const double (&m)[6], const Region& region,
                          int64_t byte) {
  Group group = {};
  Move moves[kGroup];
  int64_t low = INT64_MAX, high = INT64_MIN;
  group.byte = byte, group.clear = true;
  for (int64_t i = 0; i < kGroup; ++i) {
    const double column = static_cast<double>((byte + i) / 3) + 0.5;
    moves[i] = move_of(m[3] * column + m[5]);
    low = std::min(low, moves[i].offset), high = std::max(high, moves[i].offset);
    group.clear = group.clear && moves[i].clear;
  }
  group.first = low - 1, group.rows = high - low + 4;
  group.clear = group.clear && group.rows <= kMostRows;
  if (!group.clear) return group;
  if (group.rows == kMostRows - 1) group.rows = kMostRows;  // of a weight of 0
  for (int64_t i = 0; i < kGroup; ++i) {
    float weights[4];
    cubic_weights(moves[i].share, weights);
    const int64_t begin = moves[i].offset - low;
    for (int64_t j = 0; j < 4; ++j) group.weights[begin + j][i] = weights[j];
    for (int64_t j = 0; j < 3; ++j) group.pairs[begin + j][i] = 0xFF;
  }
  group.above = std::clamp(-group.first, region.top, region.bottom);
  group.below = std::clamp(shape.height - group.first - group.rows + 1, group.above, region.bottom);
  group.before = std::clamp(-high - 2, region.top, group.above);
  group.behind = std::clamp(shape.height - low + 2, group.below, region.bottom);
  return group;
}

template <int64_t rows>
VMF_INLINE void sums_down(const uint8_t* at, int64_t row_bytes, const Group& group, int64_t count,
                          Sums& sums) {
  constexpr int64_t kParts = kGroup / kLanes;
  for (int64_t i = 0; i < count; ++i, at += row_bytes) {
    Vector sum[kParts] = {};
    Row last, differ = {};
    std::memcpy(&last, at, kGroup);
#pragma GCC unroll 8
    for (int64_t j = 0; j < rows; ++j) {
      const uint8_t* row = at + j * row_bytes;
#pragma GCC unroll 4
      for (int64_t part = 0; part < kParts; ++part) {
        Vector weights;
        std::memcpy(&weights, group.weights[j] + part * kLanes, sizeof weights);
        sum[part] += widen(row + part * kLanes) * weights;
      }
      if (j > 0) {
        Row next, which;
        std::memcpy(&next, row, kGroup);
        std::memcpy(&which, group.pairs[j - 1], kGroup);
        differ |= (last ^ next) & which;
        last = next;
      }
    }
    std::memcpy(sums.sum + i * kGroup, sum, sizeof sum);
    std::memcpy(sums.mixed + i * kGroup, &differ, kGroup);
  }
}

VMF_INLINE void sums_down(const uint8_t* at, int64_t row_bytes, const Group& group, int64_t count,
                          Sums& sums) {
  if (group.rows <= 4) return sums_down<4>(at, row_bytes, group, count, sums);
  if (group.rows <= 5) return sums_down<5>(at, row_bytes, group, count, sums);
  if (group.rows <= 6) return sums_down<6>(at, row_bytes, group, count, sums);
  return sums_down<kMostRows>(at, row_bytes, group, count, sums);
}

// The exact levels of those pixels of a group, in a row of one frame, that were left open. Bytes of a
// pixel that the group holds in part are written by its neighbour, too, and alike.
VMF_INLINE void settle_group(const uint8_t* frame, uint8_t* to, const Shape& shape,
                             const double (&m)[6], const Group& group, int64_t y,
                             const uint8_t* unsure) {
  uint64_t halves[2];
  std::memcpy(halves, unsure, kGroup);
  if ((halves[0] | halves[1]) == 0) return;
  for (int64_t x = group.byte / 3; x <= (group.byte + kGroup - 1) / 3; ++x) {
    uint8_t any = 0, pixel[3];
    const int64_t begin = std::max(3 * x, group.byte), end = std::min(3 * x + 3, group.byte + kGroup);
    for (int64_t i = begin; i < end; ++i) any |= unsure[i - group.byte];
    if (any == 0) continue;
    one_pixel(frame, pixel, 1, 0, spot_of(m, shape, x, y));
    for (int64_t i = begin; i < end; ++i) to[y * shape.row() + i] = pixel[i - 3 * x];
  }
}

// A row of a group at the frame's edge: rows beyond it are the last ones.
VMF_INLINE void edge_row(const uint8_t* frame, uint8_t* to, const Shape& shape,
                         const double (&m)[6], const Group& group, int64_t y, Sums& sums) {
  uint8_t rows[kMostRows * kGroup], unsure[kGroup];
  for (int64_t j = 0; j < group.rows; ++j) {
    const int64_t row = std::clamp<int64_t>(y + group.first + j, 0, shape.height - 1);
    std::memcpy(rows + j * kGroup, frame + row * shape.row() + group.byte, kGroup);
  }
  uint8_t* levels = to + y * shape.row() + group.byte;
  sums_down(rows, kGroup, group, 1, sums);
  const bool open = levels_of(sums, kGroup, levels, unsure);
  if (open) settle_group(frame, to, shape, m, group, y, unsure);
  for (int64_t i = 0; i < kGroup; ++i) {
    const double column = static_cast<double>((group.byte + i) / 3) + 0.5;
    const double at_y = m[3] * column + m[4] * (static_cast<double>(y) + 0.5) + m[5];
    if (!(at_y >= 0.0 && at_y < static_cast<double>(shape.height))) levels[i] = kFill;
  }
}

VMF_INLINE void fill_rows(uint8_t* to, const Shape& shape, const Group& group, int64_t begin,
                          int64_t end) {
  for (int64_t y = begin; y < end; ++y) std::memset(to + y * shape.row() + group.byte, kFill, kGroup);
}

// Of one frame.
void affine_down(const uint8_t* frame, uint8_t* to, const Shape& shape, const double (&m)[6],
                 const Region& region) {
  Sums sums;
  uint8_t levels[3 * kTile], unsure[3 * kTile];
  const int64_t row_bytes = shape.row(), last = 3 * region.right - kGroup;
  for (int64_t next = 3 * region.left; next < 3 * region.right; next += kGroup) {
    const Group group = group_of(shape, m, region, std::min(next, last));
    if (!group.clear) {
      const int64_t left = group.byte / 3, right = (group.byte + kGroup - 1) / 3 + 1;
      affine_rows<4>(frame, to, 1, shape, m, {region.top, region.bottom, left, right});
      continue;
    }
    fill_rows(to, shape, group, region.top, group.before);
    fill_rows(to, shape, group, group.behind, region.bottom);
    for (int64_t y = group.before; y < group.above; ++y) edge_row(frame, to, shape, m, group, y, sums);
    for (int64_t y = group.below; y < group.behind; ++y) edge_row(frame, to, shape, m, group, y, sums);
    for (int64_t y = group.above; y < group.below; y += kBand) {
      const int64_t count = std::min(kBand, group.below - y);
      sums_down(frame + (y + group.first) * row_bytes + group.byte, row_bytes, group, count, sums);
      const bool open = levels_of(sums, count * kGroup, levels, unsure);
      for (int64_t i = 0; i < count; ++i) {
        std::memcpy(to + (y + i) * row_bytes + group.byte, levels + i * kGroup, kGroup);
      }
      for (int64_t i = 0; open && i < count; ++i) {
        settle_group(frame, to, shape, m, group, y + i, unsure + i * kGroup);
      }
    }
  }
}

void affine(const uint8_t* from, uint8_t* to, int64_t frames, const Shape& shape,
            const double (&m)[6], const Region& region, int64_t threads) {
  const bool rows_stay = m[3] == 0.0 && m[4] == 1.0 && m[5] == std::floor(m[5]);
  const bool along = rows_stay && m[5] == 0.0 && m[0] == 1.0;
  const bool down = m[0] == 1.0 && m[1] == 0.0 && m[2] == 0.0 && m[4] == 1.0;
  const int64_t row_cost = frames * region.width();
  if (down && (m[3] != 0.0 || move_of(m[5]).clear) && 3 * region.width() >= kGroup) {
    const int64_t frame_bytes = shape.pixels() * 3;
    const int64_t cost = (region.bottom - region.top) * region.width() * 5;
    parallel_for(frames, cost, threads, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        affine_down(from + t * frame_bytes, to + t * frame_bytes, shape, m, region);
      }
    });
    return;
  }
  const int64_t top = region.top;
  parallel_for(region.bottom - top, row_cost * (along ? 5 : 15), threads,
               [&](int64_t begin, int64_t end) {
                 const Region rows = {top + begin, top + end, region.left, region.right};
                 if (along) {
                   affine_along(from, to, frames, shape, m, rows);
                 } else if (rows_stay) {
                   affine_rows<1>(from, to, frames, shape, m, rows);
                 } else {
                   affine_rows<4>(from, to, frames, shape, m, rows);
                 }
               });
}
