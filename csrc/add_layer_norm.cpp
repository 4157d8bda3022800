// LayerNorm with the residual add before it, forward and backward, any width, of fp32 or bf16;
// computed in fp32. What is normalised is the stream as it is stored, rounded.
//
//   stream = x + factor[row / rows_per_factor] * scale * (delta + delta_bias)   (each optional)
//   out    = (stream - mean) * rstd * weight + bias
//
// A row stays in the first-level cache, so its statistics take two exact passes there and each
// tensor is read or written once. Backward sums the parameters' gradients in blocks of rows.
#include <cmath>
#include <new>

#include "columns.h"
#include "common.h"
#include "elements.h"
#include "parallel.h"

namespace vmf {
namespace {

// X: of the stream and what is made of it, D: of the branch's output.
template <typename X, typename D>
struct Forward {
  const X* x;
  const D* delta;
  const float *delta_bias, *scale, *factor, *weight, *bias;
  X *stream, *out;
  float *mean, *rstd;
  int64_t width, rows_per_factor;
  float eps;
};

template <typename X, typename D>
VMF_INLINE void forward_rows(const Forward<X, D>& job, int64_t begin, int64_t end) {
  const int64_t width = job.width;
  // Kept apart from `job`, which a store to the stream might change as far as the compiler knows.
  const float *__restrict weight = job.weight, *__restrict bias = job.bias;
  const float *__restrict scale = job.scale, *__restrict delta_bias = job.delta_bias;
  for (int64_t row = begin; row < end; ++row) {
    const X* in = job.x + row * width;
    float sum = 0.0f;
    if (job.delta != nullptr) {
      const D* __restrict delta = job.delta + row * width;
      const float factor = job.factor == nullptr ? 1.0f : job.factor[row / job.rows_per_factor];
      X* __restrict stream = job.stream + row * width;
      if (scale != nullptr) {
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < width; ++i) {
          store(stream[i], load(in[i]) + factor * scale[i] * (load(delta[i]) + delta_bias[i]));
          sum += load(stream[i]);
        }
      } else {
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < width; ++i) {
          store(stream[i], load(in[i]) + factor * (load(delta[i]) + delta_bias[i]));
          sum += load(stream[i]);
        }
      }
      in = stream;
    } else {
#pragma omp simd reduction(+ : sum)
      for (int64_t i = 0; i < width; ++i) sum += load(in[i]);
    }
    // A second look corrects the mean: the first one's rounding grows with the values' offset.
    const float guess = sum / float(width);
    float rest = 0.0f, square = 0.0f;
#pragma omp simd reduction(+ : rest, square)
    for (int64_t i = 0; i < width; ++i) {
      const float d = load(in[i]) - guess;
      rest += d;
      square += d * d;
    }
    const float correction = rest / float(width);
    const float mean = guess + correction;
    const float variance = square / float(width) - correction * correction;
    const float rstd = 1.0f / std::sqrt((variance > 0.0f ? variance : 0.0f) + job.eps);
    X* __restrict out = job.out + row * width;
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) {
      store(out[i], (load(in[i]) - mean) * rstd * weight[i] + bias[i]);
    }
    job.mean[row] = mean;
    job.rstd[row] = rstd;
  }
}

// Where a row is made in fp32 before it is rounded: in its place, if it is fp32.
VMF_INLINE float* fp32_row(float* place, float*) { return place; }
VMF_INLINE float* fp32_row(Bf16*, float* row) { return row; }

VMF_INLINE void write_row(const float*, float*, int64_t) {}
VMF_INLINE void write_row(const float* __restrict row, Bf16* __restrict place, int64_t width) {
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) store(place[i], row[i]);
}

template <typename X, typename D>
struct Backward {
  const X *grad_out, *grad_stream, *stream;
  const D* delta;
  const float *delta_bias, *scale, *factor, *weight;
  const float *mean, *rstd;
  X *grad_x, *grad_delta;
  int64_t width, rows_per_factor;
};

// The parameters' gradients of a block of rows, [width] each, and a row to work in.
struct Sums {
  float *weight, *bias;
  float *branch, *scale;  // null where not wanted; branch: of delta_bias, but for the scale
  float* row;             // for bf16
};

template <typename X, typename D>
VMF_INLINE void backward_rows(const Backward<X, D>& job, const Sums& sums, int64_t begin,
                              int64_t end) {
  float *__restrict grad_weight = sums.weight, *__restrict grad_bias = sums.bias;
  float *__restrict grad_branch = sums.branch, *__restrict grad_scale = sums.scale;
  const int64_t width = job.width;
  for (int64_t row = begin; row < end; ++row) {
    const X* __restrict grad = job.grad_out + row * width;
    const X* __restrict in = job.stream + row * width;
    const float* __restrict weight = job.weight;
    const float mean = job.mean[row], rstd = job.rstd[row];
    float sum = 0.0f, product = 0.0f;
#pragma omp simd reduction(+ : sum, product)
    for (int64_t i = 0; i < width; ++i) {
      const float normal = (load(in[i]) - mean) * rstd;
      const float g = load(grad[i]) * weight[i];
      sum += g;
      product += g * normal;
      grad_weight[i] += load(grad[i]) * normal;
      grad_bias[i] += load(grad[i]);
    }
    const float a = sum / float(width), b = product / float(width);
    // What is rounded here goes on unrounded
    float* __restrict grad_x = fp32_row(job.grad_x + row * width, sums.row);
    if (job.grad_stream != nullptr) {
      const X* __restrict through = job.grad_stream + row * width;
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) {
        const float normal = (load(in[i]) - mean) * rstd;
        grad_x[i] = load(through[i]) + rstd * (load(grad[i]) * weight[i] - a - normal * b);
      }
    } else {
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) {
        const float normal = (load(in[i]) - mean) * rstd;
        grad_x[i] = rstd * (load(grad[i]) * weight[i] - a - normal * b);
      }
    }
    write_row(grad_x, job.grad_x + row * width, width);
    const float factor = job.factor == nullptr ? 1.0f : job.factor[row / job.rows_per_factor];
    if (grad_branch != nullptr) {  // the delta_bias's, but for the scale
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) grad_branch[i] += factor * grad_x[i];
    }
    if (job.grad_delta == nullptr) continue;
    X* __restrict grad_delta = job.grad_delta + row * width;
    if (job.scale != nullptr) {
      const D* __restrict delta = job.delta + row * width;
      const float *__restrict scale = job.scale, *__restrict delta_bias = job.delta_bias;
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) {
        store(grad_delta[i], factor * scale[i] * grad_x[i]);
        grad_scale[i] += factor * (load(delta[i]) + delta_bias[i]) * grad_x[i];
      }
    } else {
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) store(grad_delta[i], factor * grad_x[i]);
    }
  }
}

VMF_CLONES void forward(const Forward<float, float>& job, int64_t begin, int64_t end) {
  forward_rows(job, begin, end);
}

VMF_CLONES void forward(const Forward<float, Bf16>& job, int64_t begin, int64_t end) {
  forward_rows(job, begin, end);
}

VMF_CLONES void forward(const Forward<Bf16, float>& job, int64_t begin, int64_t end) {
  forward_rows(job, begin, end);
}

VMF_CLONES void forward(const Forward<Bf16, Bf16>& job, int64_t begin, int64_t end) {
  forward_rows(job, begin, end);
}

VMF_CLONES void backward(const Backward<float, float>& job, const Sums& sums, int64_t begin,
                         int64_t end) {
  backward_rows(job, sums, begin, end);
}

VMF_CLONES void backward(const Backward<float, Bf16>& job, const Sums& sums, int64_t begin,
                         int64_t end) {
  backward_rows(job, sums, begin, end);
}

VMF_CLONES void backward(const Backward<Bf16, float>& job, const Sums& sums, int64_t begin,
                         int64_t end) {
  backward_rows(job, sums, begin, end);
}

VMF_CLONES void backward(const Backward<Bf16, Bf16>& job, const Sums& sums, int64_t begin,
                         int64_t end) {
  backward_rows(job, sums, begin, end);
}

template <typename X, typename D>
int64_t run(const Forward<X, D>& job, int64_t rows, int64_t threads) {
  if (rows < 0 || job.width < 1 || job.rows_per_factor < 1) return kBadArgument;
  // Tensors without rows have no memory: their pointers are null
  if (rows > 0 && (job.delta == nullptr) != (job.stream == nullptr)) return kBadArgument;
  if (rows > 0 && (job.delta == nullptr) != (job.delta_bias == nullptr)) return kBadArgument;
  try {
    parallel_for(rows, job.width / 2, threads,
                 [&](int64_t begin, int64_t end) { forward(job, begin, end); });
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
  return kOk;
}

template <typename X, typename D>
int64_t run(const Backward<X, D>& job, float* grad_weight, float* grad_bias,
            float* grad_delta_bias, float* grad_scale, int64_t rows, int64_t threads) {
  const int64_t width = job.width;
  if (rows < 0 || width < 1 || job.rows_per_factor < 1) return kBadArgument;
  const bool scaled = grad_scale != nullptr;
  if (rows > 0 && scaled != (job.scale != nullptr && job.grad_delta != nullptr)) {
    return kBadArgument;
  }
  if (rows > 0 && scaled && (job.delta == nullptr || job.delta_bias == nullptr)) {
    return kBadArgument;
  }
  try {
    // Side by side: weight, bias, branch, scale, and for bf16 a row to work in
    const int64_t kinds = sizeof(X) == sizeof(float) ? 4 : 5;
    const bool biased = grad_delta_bias != nullptr;
    ColumnSums sums(rows, kinds * width);
    parallel_for(sums.blocks(), sums.block_rows() * width, threads,
                 [&](int64_t begin, int64_t end) {
                   for (int64_t block = begin; block < end; ++block) {
                     float* part = sums.of(block);
                     const Sums of_block{part, part + width, biased ? part + 2 * width : nullptr,
                                         scaled ? part + 3 * width : nullptr, part + 4 * width};
                     backward(job, of_block, sums.begin(block), sums.end(block));
                   }
                 });
    std::vector<float> total(static_cast<size_t>(kinds * width));
    sums.write(total.data());
    std::copy_n(total.data(), width, grad_weight);
    std::copy_n(total.data() + width, width, grad_bias);
    for (int64_t i = 0; biased && i < width; ++i) {
      grad_delta_bias[i] = total[2 * width + i] * (job.scale == nullptr ? 1.0f : job.scale[i]);
    }
    if (scaled) std::copy_n(total.data() + 3 * width, width, grad_scale);
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
  return kOk;
}

// Calls `made(X(), D())` with the types of the two flags.
template <typename Made>
int64_t with_types(bool x_bf16, bool delta_bf16, const Made& made) {
  if (x_bf16) return delta_bf16 ? made(Bf16(), Bf16()) : made(Bf16(), float());
  return delta_bf16 ? made(float(), Bf16()) : made(float(), float());
}

}  // namespace
}  // namespace vmf

VMF_API int64_t vmf_add_layer_norm(
    const void* x,            // [rows, width], fp32 or bf16
    const void* delta,        // [rows, width] or null: nothing is added; fp32 or bf16
    const float* delta_bias,  // [width]; null if delta is
    const float* scale,       // [width] or null
    const float* factor,      // [rows / rows_per_factor] or null
    const float* weight, const float* bias,  // [width]
    void* stream,              // [rows, width], dtype of x; null if delta is
    void* out,                 // [rows, width], dtype of x
    float* mean, float* rstd,  // [rows], for backward
    int64_t rows, int64_t width, int64_t rows_per_factor, float eps,
    int32_t x_bf16, int32_t delta_bf16, int64_t threads) {
  using namespace vmf;
  return with_types(x_bf16 != 0, delta_bf16 != 0, [&](auto x_type, auto delta_type) {
    using X = decltype(x_type);
    using D = decltype(delta_type);
    const Forward<X, D> job{static_cast<const X*>(x), static_cast<const D*>(delta),
                            delta_bias, scale, factor, weight, bias,
                            static_cast<X*>(stream), static_cast<X*>(out),
                            mean, rstd, width, rows_per_factor, eps};
    return run(job, rows, threads);
  });
}

VMF_API int64_t vmf_add_layer_norm_backward(
    const void* grad_out,      // [rows, width], dtype of stream
    const void* grad_stream,   // [rows, width] or null: what else reaches the stream; its dtype
    const void* stream,        // [rows, width], what was normalised; fp32 or bf16
    const void* delta,         // [rows, width], fp32 or bf16; read only where scale is given
    const float* delta_bias,   // [width]; likewise
    const float* scale, const float* factor, const float* weight,  // as in forward
    const float* mean, const float* rstd,                          // [rows]
    void* grad_x,              // [rows, width], dtype of stream
    void* grad_delta,          // [rows, width], that dtype, or null: not wanted, or equal to grad_x
    float* grad_weight, float* grad_bias,  // [width]
    float* grad_delta_bias,    // [width] or null: not wanted
    float* grad_scale,         // [width]; null unless scale and grad_delta are given
    int64_t rows, int64_t width, int64_t rows_per_factor,
    int32_t x_bf16, int32_t delta_bf16, int64_t threads) {
  using namespace vmf;
  return with_types(x_bf16 != 0, delta_bf16 != 0, [&](auto x_type, auto delta_type) {
    using X = decltype(x_type);
    using D = decltype(delta_type);
    const Backward<X, D> job{static_cast<const X*>(grad_out), static_cast<const X*>(grad_stream),
                             static_cast<const X*>(stream), static_cast<const D*>(delta),
                             delta_bias, scale, factor, weight, mean, rstd,
                             static_cast<X*>(grad_x), static_cast<X*>(grad_delta),
                             width, rows_per_factor};
    return run(job, grad_weight, grad_bias, grad_delta_bias, grad_scale, rows, threads);
  });
}
