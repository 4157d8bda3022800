// Bias + GELU (the exact, erf form), forward and backward, of fp32 or bf16; computed in fp32.
//
// gelu(x) = x Phi(x) = max(x, 0) - z Q(z), z = |x|. The normal distribution's tail Q(z) is
// exp(-z²/2) R(z), where R is smooth: a quotient of polynomials. One exponential then serves Phi and
// its derivative, and the tail keeps its relative accuracy where 1 + erf(x) cancels. Backward
// computes it all again from the input instead of reading a stored activation.
#include <new>

#include "columns.h"
#include "common.h"
#include "elements.h"
#include "parallel.h"

namespace vmf {
namespace {

struct Tail {
  float z, bell, upper, lower;  // Q(z) = bell upper / lower, bell = exp(-z²/2)
};

// The distance from 0 ends at 13, where nothing is left of the tail (1e-38); NaN stays NaN.
// exp is 2^n 2^f with a polynomial for 2^f (relative error 8e-8); the quotient is a minimax fit of
// relative error 1e-7 up to z = 4 and 3e-6 at 13, where z²'s rounding costs as much. All its
// coefficients are positive, so nothing cancels.
VMF_INLINE Tail tail_of(float x) {
  float z = __builtin_fabsf(x);
  z = 13.0f < z ? 13.0f : z;
  const float square = z * z;
  const float shifted = 12582912.0f - square * 0.72134752f;  // n, an integer, in the low bits
  const float n = shifted - 12582912.0f;
  const float f = square * -0.72134752f - n;
  float p = 1.327648e-03f;
  p = p * f + 9.675543e-03f;
  p = p * f + 5.5507133e-02f;
  p = p * f + 2.40221197e-01f;
  p = p * f + 6.93146967e-01f;
  p = p * f + 1.000000072f;
  const int32_t exponent = __builtin_bit_cast(int32_t, shifted) << 23;
  const float bell = __builtin_bit_cast(float, __builtin_bit_cast(int32_t, p) + exponent);
  float upper = 1.4581451e-02f;
  upper = upper * z + 1.08925232e-01f;
  upper = upper * z + 3.43213476e-01f;
  upper = upper * z + 4.99999954e-01f;
  float lower = 3.6562022e-02f;
  lower = lower * z + 2.72646705e-01f;
  lower = lower * z + 9.02204833e-01f;
  lower = lower * z + 1.484306165f;
  lower = lower * z + 1.0f;
  return {z, bell, upper, lower};
}

VMF_INLINE float gelu(float x) {
  const Tail tail = tail_of(x);
  return (0.0f > x ? 0.0f : x) - tail.z * tail.bell * tail.upper / tail.lower;
}

// Phi(x) + x phi(x), which is 1 minus that of -x.
VMF_INLINE float gelu_slope(float x) {
  const Tail tail = tail_of(x);
  const float below = tail.bell * (tail.upper / tail.lower - 0.398942280f * tail.z);
  return x < 0.0f ? below : 1.0f - below;
}

template <bool with_bias, typename T>
VMF_INLINE void forward_row(const T* __restrict x, const float* __restrict bias,
                            T* __restrict out, int64_t width) {
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) {
    const float v = with_bias ? load(x[i]) + bias[i] : load(x[i]);
    store(out[i], gelu(v));
  }
}

template <bool with_bias, typename T>
VMF_INLINE void backward_row(const T* __restrict grad, const T* __restrict x,
                             const float* __restrict bias, T* __restrict out,
                             float* __restrict sum, int64_t width) {
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) {
    const float v = with_bias ? load(x[i]) + bias[i] : load(x[i]);
    const float slope = load(grad[i]) * gelu_slope(v);
    store(out[i], slope);
    if (with_bias) sum[i] += slope;
  }
}

template <typename T>
VMF_INLINE void forward_rows(const T* x, const float* bias, T* out, int64_t width, int64_t begin,
                             int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const int64_t o = row * width;
    if (bias != nullptr) {
      forward_row<true>(x + o, bias, out + o, width);
    } else {
      forward_row<false>(x + o, nullptr, out + o, width);
    }
  }
}

template <typename T>
VMF_INLINE void backward_rows(const T* grad, const T* x, const float* bias, T* out, float* sum,
                              int64_t width, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const int64_t o = row * width;
    if (bias != nullptr) {
      backward_row<true>(grad + o, x + o, bias, out + o, sum, width);
    } else {
      backward_row<false>(grad + o, x + o, nullptr, out + o, nullptr, width);
    }
  }
}

VMF_CLONES void forward(const float* x, const float* bias, float* out, int64_t width,
                        int64_t begin, int64_t end) {
  forward_rows(x, bias, out, width, begin, end);
}

VMF_CLONES void forward(const Bf16* x, const float* bias, Bf16* out, int64_t width, int64_t begin,
                        int64_t end) {
  forward_rows(x, bias, out, width, begin, end);
}

VMF_CLONES void backward(const float* grad, const float* x, const float* bias, float* out,
                         float* sum, int64_t width, int64_t begin, int64_t end) {
  backward_rows(grad, x, bias, out, sum, width, begin, end);
}

VMF_CLONES void backward(const Bf16* grad, const Bf16* x, const float* bias, Bf16* out,
                         float* sum, int64_t width, int64_t begin, int64_t end) {
  backward_rows(grad, x, bias, out, sum, width, begin, end);
}

template <typename T>
int64_t run_forward(const void* x, const float* bias, void* out, int64_t rows, int64_t width,
                    int64_t threads) {
  if (rows < 0 || width < 1) return kBadArgument;
  try {
    parallel_for(rows, width / 4, threads, [&](int64_t begin, int64_t end) {
      forward(static_cast<const T*>(x), bias, static_cast<T*>(out), width, begin, end);
    });
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
  return kOk;
}

template <typename T>
int64_t run_backward(const void* grad, const void* x, const float* bias, void* grad_x,
                     float* grad_bias, int64_t rows, int64_t width, int64_t threads) {
  if (rows < 0 || width < 1 || (bias == nullptr) != (grad_bias == nullptr)) return kBadArgument;
  try {
    ColumnSums sums(rows, bias == nullptr ? 0 : width);
    parallel_for(sums.blocks(), sums.block_rows() * width / 4, threads,
                 [&](int64_t begin, int64_t end) {
                   for (int64_t block = begin; block < end; ++block) {
                     backward(static_cast<const T*>(grad), static_cast<const T*>(x), bias,
                              static_cast<T*>(grad_x), sums.of(block), width, sums.begin(block),
                              sums.end(block));
                   }
                 });
    if (grad_bias != nullptr) sums.write(grad_bias);
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
  return kOk;
}

}  // namespace
}  // namespace vmf

VMF_API int64_t vmf_bias_gelu(const void* x,      // [rows, width], fp32 or bf16
                              const float* bias,  // [width] or null
                              void* out,          // [rows, width], dtype of x
                              int64_t rows, int64_t width, int32_t bf16, int64_t threads) {
  const auto run = bf16 ? vmf::run_forward<vmf::Bf16> : vmf::run_forward<float>;
  return run(x, bias, out, rows, width, threads);
}

VMF_API int64_t vmf_bias_gelu_backward(const void* grad,   // [rows, width], dtype of x
                                       const void* x,      // [rows, width], forward's input
                                       const float* bias,  // [width] or null
                                       void* grad_x,       // [rows, width], dtype of x
                                       float* grad_bias,   // [width]; null if bias is
                                       int64_t rows, int64_t width, int32_t bf16,
                                       int64_t threads) {
  const auto run = bf16 ? vmf::run_backward<vmf::Bf16> : vmf::run_backward<float>;
  return run(grad, x, bias, grad_x, grad_bias, rows, width, threads);
}
