// Elements of a tensor: fp32, or bf16, which is read as fp32, computed with in fp32 and rounded to
// nearest even when it is written.
#pragma once

#include <cstdint>

#include "common.h"

namespace vmf {

struct Bf16 {
  uint16_t bits;
};

VMF_INLINE float load(float value) { return value; }

VMF_INLINE float load(Bf16 value) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(value.bits) << 16);
}

VMF_INLINE void store(float& to, float value) { to = value; }

VMF_INLINE void store(Bf16& to, float value) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, value);
  const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  // Adding to a NaN could carry into its sign
  to.bits = static_cast<uint16_t>(value != value ? 0x7fc0u : rounded);
}

}  // namespace vmf
