// LayerNorm with the residual add before it, forward and backward, fp32, any width.
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
#include "parallel.h"

namespace vmf {
namespace {

struct Forward {
  const float *x, *delta, *delta_bias, *scale, *factor, *weight, *bias;
  float *stream, *out, *mean, *rstd;
  int64_t width, rows_per_factor;
  float eps;
};

VMF_CLONES void forward(const Forward& job, int64_t begin, int64_t end) {
  const int64_t width = job.width;
  // Kept apart from `job`, which a store to the stream might change as far as the compiler knows.
  const float *__restrict weight = job.weight, *__restrict bias = job.bias;
  const float *__restrict scale = job.scale, *__restrict delta_bias = job.delta_bias;
  for (int64_t row = begin; row < end; ++row) {
    const float* in = job.x + row * width;
    float sum = 0.0f;
    if (job.delta != nullptr) {
      const float* __restrict delta = job.delta + row * width;
      const float factor = job.factor == nullptr ? 1.0f : job.factor[row / job.rows_per_factor];
      float* __restrict stream = job.stream + row * width;
      if (scale != nullptr) {
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < width; ++i) {
          const float value = in[i] + factor * scale[i] * (delta[i] + delta_bias[i]);
          stream[i] = value;
          sum += value;
        }
      } else {
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < width; ++i) {
          const float value = in[i] + factor * (delta[i] + delta_bias[i]);
          stream[i] = value;
          sum += value;
        }
      }
      in = stream;
    } else {
#pragma omp simd reduction(+ : sum)
      for (int64_t i = 0; i < width; ++i) sum += in[i];
    }
    // A second look corrects the mean: the first one's rounding grows with the values' offset.
    const float guess = sum / float(width);
    float rest = 0.0f, square = 0.0f;
#pragma omp simd reduction(+ : rest, square)
    for (int64_t i = 0; i < width; ++i) {
      const float d = in[i] - guess;
      rest += d;
      square += d * d;
    }
    const float correction = rest / float(width);
    const float mean = guess + correction;
    const float variance = square / float(width) - correction * correction;
    const float rstd = 1.0f / std::sqrt((variance > 0.0f ? variance : 0.0f) + job.eps);
    float* __restrict out = job.out + row * width;
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) {
      out[i] = (in[i] - mean) * rstd * weight[i] + bias[i];
    }
    job.mean[row] = mean;
    job.rstd[row] = rstd;
  }
}

struct Backward {
  const float *grad_out, *grad_stream, *stream, *delta, *delta_bias, *scale, *factor, *weight;
  const float *mean, *rstd;
  float *grad_x, *grad_delta;
  int64_t width, rows_per_factor;
};

VMF_CLONES void backward(const Backward& job, float* __restrict grad_weight,
                         float* __restrict grad_bias, float* __restrict grad_branch,
                         float* __restrict grad_scale, int64_t begin, int64_t end) {
  const int64_t width = job.width;
  for (int64_t row = begin; row < end; ++row) {
    const float* __restrict grad = job.grad_out + row * width;
    const float* __restrict in = job.stream + row * width;
    const float* __restrict weight = job.weight;
    const float mean = job.mean[row], rstd = job.rstd[row];
    float sum = 0.0f, product = 0.0f;
#pragma omp simd reduction(+ : sum, product)
    for (int64_t i = 0; i < width; ++i) {
      const float normal = (in[i] - mean) * rstd;
      const float g = grad[i] * weight[i];
      sum += g;
      product += g * normal;
      grad_weight[i] += grad[i] * normal;
      grad_bias[i] += grad[i];
    }
    const float a = sum / float(width), b = product / float(width);
    float* __restrict grad_x = job.grad_x + row * width;
    if (job.grad_stream != nullptr) {
      const float* __restrict through = job.grad_stream + row * width;
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) {
        const float normal = (in[i] - mean) * rstd;
        grad_x[i] = through[i] + rstd * (grad[i] * weight[i] - a - normal * b);
      }
    } else {
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) {
        const float normal = (in[i] - mean) * rstd;
        grad_x[i] = rstd * (grad[i] * weight[i] - a - normal * b);
      }
    }
    const float factor = job.factor == nullptr ? 1.0f : job.factor[row / job.rows_per_factor];
    if (grad_branch != nullptr) {  // the delta_bias's, but for the scale
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) grad_branch[i] += factor * grad_x[i];
    }
    if (job.grad_delta == nullptr) continue;
    float* __restrict grad_delta = job.grad_delta + row * width;
    if (job.scale != nullptr) {
      const float* __restrict delta = job.delta + row * width;
      const float *__restrict scale = job.scale, *__restrict delta_bias = job.delta_bias;
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) {
        grad_delta[i] = factor * scale[i] * grad_x[i];
        grad_scale[i] += factor * (delta[i] + delta_bias[i]) * grad_x[i];
      }
    } else {
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) grad_delta[i] = factor * grad_x[i];
    }
  }
}

}  // namespace
}  // namespace vmf

VMF_API int64_t vmf_add_layer_norm(
    const float* x,           // [rows, width]
    const float* delta,       // [rows, width] or null: nothing is added
    const float* delta_bias,  // [width]; null if delta is
    const float* scale,       // [width] or null
    const float* factor,      // [rows / rows_per_factor] or null
    const float* weight, const float* bias,  // [width]
    float* stream,            // [rows, width]; null if delta is
    float* out,               // [rows, width]
    float* mean, float* rstd,  // [rows], for backward
    int64_t rows, int64_t width, int64_t rows_per_factor, float eps, int64_t threads) {
  using namespace vmf;
  if (rows < 0 || width < 1 || rows_per_factor < 1) return kBadArgument;
  // Tensors without rows have no memory: their pointers are null
  if (rows > 0 && (delta == nullptr) != (stream == nullptr)) return kBadArgument;
  if (rows > 0 && (delta == nullptr) != (delta_bias == nullptr)) return kBadArgument;
  const Forward job{x,      delta, delta_bias, scale, factor, weight,          bias,
                    stream, out,   mean,       rstd,  width,  rows_per_factor, eps};
  try {
    parallel_for(rows, width / 2, threads,
                 [&](int64_t begin, int64_t end) { forward(job, begin, end); });
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
  return kOk;
}

VMF_API int64_t vmf_add_layer_norm_backward(
    const float* grad_out,     // [rows, width]
    const float* grad_stream,  // [rows, width] or null: what else reaches the stream
    const float* stream,       // [rows, width], what was normalised
    const float* delta,        // [rows, width]; read only where scale is given
    const float* delta_bias,   // [width]; likewise
    const float* scale, const float* factor, const float* weight,  // as in forward
    const float* mean, const float* rstd,                          // [rows]
    float* grad_x,             // [rows, width]
    float* grad_delta,         // [rows, width] or null: not wanted, or equal to grad_x
    float* grad_weight, float* grad_bias,  // [width]
    float* grad_delta_bias,    // [width] or null: not wanted
    float* grad_scale,         // [width]; null unless scale and grad_delta are given
    int64_t rows, int64_t width, int64_t rows_per_factor, int64_t threads) {
  using namespace vmf;
  if (rows < 0 || width < 1 || rows_per_factor < 1) return kBadArgument;
  const bool scaled = grad_scale != nullptr;
  if (rows > 0 && scaled != (scale != nullptr && grad_delta != nullptr)) return kBadArgument;
  if (rows > 0 && scaled && (delta == nullptr || delta_bias == nullptr)) return kBadArgument;
  const Backward job{grad_out, grad_stream, stream, delta,  delta_bias, scale, factor,
                     weight,   mean,        rstd,   grad_x, grad_delta, width, rows_per_factor};
  try {
    const int64_t kinds = 4;  // side by side: weight, bias, branch, scale
    const bool biased = grad_delta_bias != nullptr;
    ColumnSums sums(rows, kinds * width);
    parallel_for(sums.blocks(), sums.block_rows() * width, threads,
                 [&](int64_t begin, int64_t end) {
                   for (int64_t block = begin; block < end; ++block) {
                     float* part = sums.of(block);
                     backward(job, part, part + width, biased ? part + 2 * width : nullptr,
                              scaled ? part + 3 * width : nullptr, sums.begin(block),
                              sums.end(block));
                   }
                 });
    std::vector<float> total(static_cast<size_t>(kinds * width));
    sums.write(total.data());
    std::copy_n(total.data(), width, grad_weight);
    std::copy_n(total.data() + width, width, grad_bias);
    for (int64_t i = 0; biased && i < width; ++i) {
      grad_delta_bias[i] = total[2 * width + i] * (scale == nullptr ? 1.0f : scale[i]);
    }
    if (scaled) std::copy_n(total.data() + 3 * width, width, grad_scale);
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
  return kOk;
}
