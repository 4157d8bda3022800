// Bias + GELU (the exact, erf form), forward and backward, fp32.
//
// gelu(x) = x Phi(x). The tail Q(z) = 1 - Phi(z), z >= 0, is exp(-z²/2) R(z), where R is smooth: a
// polynomial in t = 1 / (1 + 0.26 z). One exponential then serves Phi and its derivative, and the
// tail keeps its relative accuracy where 1 + erf(x) cancels. Backward computes it all again from
// the input instead of reading a stored activation.
#include <new>

#include "columns.h"
#include "common.h"
#include "parallel.h"

namespace vmf {
namespace {

// exp(x) for x <= 0, to 1e-7 relative; 0 to about 1e-38 below -87.
VMF_INLINE float exp_negative(float x) {
  x = x > -87.0f ? x : -87.0f;
  const float shifted = x * 1.44269504f + 12582912.0f;  // rounds to an integer in the low bits
  const float n = shifted - 12582912.0f;
  const float f = (x - n * 0.693145752f) - n * 1.42860677e-6f;  // ln 2 in two parts
  float p = 1.0f / 5040.0f;
  p = p * f + 1.0f / 720.0f;
  p = p * f + 1.0f / 120.0f;
  p = p * f + 1.0f / 24.0f;
  p = p * f + 1.0f / 6.0f;
  p = p * f + 0.5f;
  p = p * f + 1.0f;
  p = p * f + 1.0f;
  const int32_t exponent = __builtin_bit_cast(int32_t, shifted) - 0x4B400000;
  return __builtin_bit_cast(float, __builtin_bit_cast(int32_t, p) + (exponent << 23));
}

struct Normal {
  float cdf, bell;  // Phi(x) and exp(-x²/2)
};

// The coefficients are a minimax fit of relative error 2.5e-8 on 0 <= z <= 14.
VMF_INLINE Normal normal(float x) {
  const float z = x < 0.0f ? -x : x;
  const float bell = exp_negative(-0.5f * z * z);
  const float t = 1.0f / (1.0f + 0.26f * z);
  float r = 3.050479808e-02f;
  r = r * t - 1.528284432e-01f;
  r = r * t + 2.514905844e-01f;
  r = r * t - 1.509482478e-01f;
  r = r * t + 1.609474184e-01f;
  r = r * t + 5.102784645e-02f;
  r = r * t + 1.030302165e-01f;
  r = r * t + 1.030167551e-01f;
  r = r * t + 1.037590596e-01f;
  const float tail = bell * r * t;
  return {x < 0.0f ? tail : 1.0f - tail, bell};
}

template <bool with_bias>
VMF_INLINE void forward_row(const float* __restrict x, const float* __restrict bias,
                            float* __restrict out, int64_t width) {
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) {
    const float v = with_bias ? x[i] + bias[i] : x[i];
    out[i] = v * normal(v).cdf;
  }
}

template <bool with_bias>
VMF_INLINE void backward_row(const float* __restrict grad, const float* __restrict x,
                             const float* __restrict bias, float* __restrict out,
                             float* __restrict sum, int64_t width) {
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) {
    const float v = with_bias ? x[i] + bias[i] : x[i];
    const Normal n = normal(v);
    // at the far ends bell is 0, and so must its product be
    const float slope = n.cdf + (n.bell > 1e-37f ? v * n.bell * 0.398942280f : 0.0f);
    out[i] = grad[i] * slope;
    if (with_bias) sum[i] += out[i];
  }
}

VMF_CLONES void forward(const float* x, const float* bias, float* out, int64_t width,
                        int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const int64_t o = row * width;
    if (bias != nullptr) {
      forward_row<true>(x + o, bias, out + o, width);
    } else {
      forward_row<false>(x + o, nullptr, out + o, width);
    }
  }
}

VMF_CLONES void backward(const float* grad, const float* x, const float* bias, float* out,
                         float* sum, int64_t width, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const int64_t o = row * width;
    if (bias != nullptr) {
      backward_row<true>(grad + o, x + o, bias, out + o, sum, width);
    } else {
      backward_row<false>(grad + o, x + o, nullptr, out + o, nullptr, width);
    }
  }
}

}  // namespace
}  // namespace vmf

VMF_API int64_t vmf_bias_gelu(const float* x,     // [rows, width]
                              const float* bias,  // [width] or null
                              float* out,         // [rows, width]
                              int64_t rows, int64_t width, int64_t threads) {
  using namespace vmf;
  if (rows < 0 || width < 1) return kBadArgument;
  try {
    parallel_for(rows, width, threads, [&](int64_t begin, int64_t end) {
      forward(x, bias, out, width, begin, end);
    });
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
  return kOk;
}

VMF_API int64_t vmf_bias_gelu_backward(const float* grad,  // [rows, width]
                                       const float* x,     // [rows, width], forward's input
                                       const float* bias,  // [width] or null
                                       float* grad_x,      // [rows, width]
                                       float* grad_bias,   // [width]; null if bias is
                                       int64_t rows, int64_t width, int64_t threads) {
  using namespace vmf;
  if (rows < 0 || width < 1 || (bias == nullptr) != (grad_bias == nullptr)) return kBadArgument;
  try {
    ColumnSums sums(rows, bias == nullptr ? 0 : width);
    parallel_for(sums.blocks(), sums.block_rows() * width, threads,
                 [&](int64_t begin, int64_t end) {
                   for (int64_t block = begin; block < end; ++block) {
                     backward(grad, x, bias, grad_x, sums.of(block), width, sums.begin(block),
                              sums.end(block));
                   }
                 });
    if (grad_bias != nullptr) sums.write(grad_bias);
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
  return kOk;
}
