// Patch gather: uint8 frames and token positions in, patches in the Conv3d weight's order out.
//
// A pixel has 256 values, so normalising is a look-up in a table [3, 256] that the caller fills in the
// output's dtype: the result has the very bits of the reference, in any dtype of 2 or 4 bytes.
#include <new>

#include "common.h"
#include "parallel.h"

namespace vmf {
namespace {

// A patch size known at compile time (else 0) lets the look-ups of a row become gathers.
template <int64_t known_patch, typename Value>
VMF_INLINE void rows(const uint8_t* frames, const int32_t* index, const Value* table, Value* out,
                     const Cubes& cubes, int64_t per_clip, int64_t begin, int64_t end) {
  const int64_t p = known_patch ? known_patch : cubes.patch, plane = cubes.pixels();
  for (int64_t i = begin; i < end; ++i) {
    const uint8_t* cube = frames + (i / per_clip) * cubes.clip_stride() + cubes.offset(index[i]);
    // Rows of a cube lie far apart, where no processor fetches ahead by itself.
    const int64_t after = i + 1 < end ? i + 1 : i;
    const uint8_t* next =
        frames + (after / per_clip) * cubes.clip_stride() + cubes.offset(index[after]);
    Value* __restrict red = out + i * 3 * plane;
    Value* __restrict green = red + plane;
    Value* __restrict blue = green + plane;
    for (int64_t t = 0; t < cubes.tubelet; ++t) {
      for (int64_t y = 0; y < p; ++y) {
        const int64_t place = t * cubes.frame_stride() + y * cubes.row_stride();
        const uint8_t* row = cube + place;
        __builtin_prefetch(next + place);
        __builtin_prefetch(next + place + 3 * p - 1);
        const int64_t o = (t * p + y) * p;
#pragma omp simd
        for (int64_t x = 0; x < p; ++x) {
          red[o + x] = table[row[3 * x]];
          green[o + x] = table[256 + row[3 * x + 1]];
          blue[o + x] = table[512 + row[3 * x + 2]];
        }
      }
    }
  }
}

template <typename Value>
VMF_INLINE void any_patch(const uint8_t* frames, const int32_t* index, const void* table, void* out,
                          const Cubes& cubes, int64_t per_clip, int64_t begin, int64_t end) {
  const auto* values = static_cast<const Value*>(table);
  auto* to = static_cast<Value*>(out);
  if (cubes.patch == 16) {
    rows<16>(frames, index, values, to, cubes, per_clip, begin, end);
  } else {
    rows<0>(frames, index, values, to, cubes, per_clip, begin, end);
  }
}

VMF_CLONES void gather(const uint8_t* frames, const int32_t* index, const void* table, void* out,
                       int64_t value_bytes, const Cubes& cubes, int64_t per_clip, int64_t begin,
                       int64_t end) {
  if (value_bytes == 4) {
    any_patch<uint32_t>(frames, index, table, out, cubes, per_clip, begin, end);
  } else {
    any_patch<uint16_t>(frames, index, table, out, cubes, per_clip, begin, end);
  }
}

}  // namespace
}  // namespace vmf

VMF_API int64_t vmf_patch_gather(const uint8_t* frames,  // [batch, T, H, W, 3]
                                 const int32_t* index,   // [batch, per_clip], token positions
                                 const void* table,      // [3, 256], value_bytes each
                                 void* out,              // [batch, per_clip, 3 * tubelet * patch²]
                                 int64_t value_bytes, int64_t batch, int64_t per_clip,
                                 int64_t frame_count, int64_t height, int64_t width,
                                 int64_t tubelet, int64_t patch, int64_t threads) {
  using namespace vmf;
  const Cubes cubes{frame_count, height, width, tubelet, patch};
  if (!cubes.valid() || batch < 0 || per_clip < 0) return kBadArgument;
  if (value_bytes != 2 && value_bytes != 4) return kBadArgument;
  const int64_t n = batch * per_clip;
  if (const int64_t bad = check_index(index, n, cubes.tokens())) return bad;
  try {
    parallel_for(n, cubes.pixels() * 3, threads, [&](int64_t begin, int64_t end) {
      gather(frames, index, table, out, value_bytes, cubes, per_clip, begin, end);
    });
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
  return kOk;
}
