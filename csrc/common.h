// What every op's file shares: the export mark, return codes, and code for several instruction sets.
#pragma once

#include <cstddef>
#include <cstdint>

#define VMF_API extern "C" __attribute__((visibility("default")))

// A function marked so is compiled once per instruction set; the loader picks the best one that the
// machine has, so a build runs on any x86-64. What its loops call must be VMF_INLINE or a builtin: a
// plain inline function (std::bit_cast too) keeps the compiler from vectorising them.
#if defined(VMF_HAVE_AVX512)  // set by CMake where the compiler and the loader know how
#define VMF_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#elif defined(VMF_HAVE_CLONES)
#define VMF_CLONES __attribute__((target_clones("default", "arch=x86-64-v3")))
#else
#define VMF_CLONES
#endif
#define VMF_INLINE inline __attribute__((always_inline))

namespace vmf {

// Every op returns one of these, or 1 + the flat place of the first token position out of range.
constexpr int64_t kOk = 0;
constexpr int64_t kBadArgument = -1;
constexpr int64_t kOutOfMemory = -2;

// The first place in index[n] outside 0..bound-1 plus one, or kOk.
inline int64_t check_index(const int32_t* index, int64_t n, int64_t bound) {
  for (int64_t i = 0; i < n; ++i) {
    if (index[i] < 0 || index[i] >= bound) return i + 1;
  }
  return kOk;
}

// A grid of cubes over frames [B, T, H, W, 3].
struct Cubes {
  int64_t frames, height, width;  // T, H, W
  int64_t tubelet, patch;

  bool valid() const {
    return tubelet > 0 && patch > 0 && frames > 0 && height > 0 && width > 0 &&
           frames % tubelet == 0 && height % patch == 0 && width % patch == 0;
  }
  int64_t columns() const { return width / patch; }
  int64_t per_slot() const { return (height / patch) * columns(); }
  int64_t tokens() const { return (frames / tubelet) * per_slot(); }
  int64_t pixels() const { return tubelet * patch * patch; }
  int64_t row_stride() const { return width * 3; }
  int64_t frame_stride() const { return height * width * 3; }
  int64_t clip_stride() const { return frames * frame_stride(); }

  // Where the cube of a token starts within its clip, in bytes.
  int64_t offset(int64_t token) const {
    const int64_t slot = token / per_slot(), place = token % per_slot();
    return slot * tubelet * frame_stride() + (place / columns()) * patch * row_stride() +
           (place % columns()) * patch * 3;
  }
};

}  // namespace vmf
