// Attention of whole heads, forward and backward, for one instruction set (see matmul_tiles.h).
//
// Scores are of base 2: log2(e) goes with the scale of the queries. They lie transposed, [keys,
// queries]: a vector holds 16 queries' (AVX-512), so a softmax is plain vertical arithmetic, and a
// tile of scores is the left operand of every product that follows as it lies. Only the queries
// (backward: and the gradients of the output) are transposed.
#include "matmul_tiles.h"

constexpr float kLowest = -3.402823466e+38f;
constexpr float kLog2E = 1.442695041f, kLn2 = 0.693147181f;

// 2^x for x <= 0 and a little above, to 1e-7 relative; 2^-125 from there down, NaN of NaN.
VMF_INLINE Vector exp2_negative(Vector x) {
  const Vector lowest = Vector{} - 125.0f;
  x = x < lowest ? lowest : x;
  const Vector shifted = x + 12582912.0f;  // rounds to an integer n, in the low bits
  const Vector f = x - (shifted - 12582912.0f);
  Vector p = Vector{} + 1.326471362e-03f;  // 2^f by a fit of relative error 9e-8, 1 at 0
  p = p * f + 9.671523417e-03f;
  p = p * f + 5.550733873e-02f;
  p = p * f + 2.402224192e-01f;
  p = p * f + 6.931469775e-01f;
  p = p * f + 1.0f;
  // The shift leaves n alone: the nine low bits of 12582912's pattern are zero.
  const Integers n = __builtin_bit_cast(Integers, shifted) << 23;
  const Vector power = __builtin_bit_cast(Vector, __builtin_bit_cast(Integers, p) + n);
  return x == x ? power : x;
}

// Rows of packed operands are as wide as whole vectors.
constexpr int64_t padded(int64_t dim) { return (dim + kLanes - 1) / kLanes * kLanes; }
// Keys in whole tiles.
constexpr int64_t tiled(int64_t keys) { return (keys + kRows - 1) / kRows * kRows; }

// A head's rows lie apart from one another, and the processor does not foresee where: each that is
// read or written asks for the cache lines of one to come.
constexpr int64_t kAhead = 12;
enum class For { reading, writing };

template <For what>
VMF_INLINE void ask_for(const float* row, int64_t dim) {
  for (int64_t i = 0; i < dim; i += 16) __builtin_prefetch(row + i, what == For::writing);
  __builtin_prefetch(row + dim - 1, what == For::writing);
}

// out[all, padded(dim)] = x[rows, dim] * scale, zero elsewhere.
inline void pack(const float* x, int64_t stride, int64_t rows, int64_t all, int64_t dim,
                 float scale, float* out) {
  const int64_t width = padded(dim);
  for (int64_t row = 0; row < all; ++row, out += width) {
    const int64_t valid = row < rows ? dim : 0;
    const float* from = x + row * stride;
    if (row + kAhead < rows) ask_for<For::reading>(from + kAhead * stride, dim);
#pragma omp simd
    for (int64_t i = 0; i < valid; ++i) out[i] = from[i] * scale;
    for (int64_t i = valid; i < width; ++i) out[i] = 0.0f;
  }
}

// Floats of scratch for `forward`.
inline int64_t forward_scratch(int64_t keys, int64_t dim) {
  const int64_t width = padded(dim);
  return 2 * tiled(keys) * width + 3 * kQueries * width + kKeys * kQueries + 3 * kQueries;
}

// The blocks of queries begin..end-1, counted through clips, heads and blocks.
inline void forward(const AttentionForward& job, float* scratch, int64_t begin, int64_t end) {
  const int64_t dim = job.dim, width = padded(dim), blocks = job.blocks();
  const auto take = [&](int64_t floats) { return std::exchange(scratch, scratch + floats); };
  float* query = take(kQueries * width);   // [query, dim]
  float* turned = take(kQueries * width);  // [dim, query]
  float* out = take(kQueries * width);     // [query, dim]
  float* scores = take(kKeys * kQueries);  // [key, query]
  float *top = take(kQueries), *total = take(kQueries), *shrink = take(kQueries);
  float* key = take(tiled(job.keys) * width);
  float* value = take(tiled(job.keys) * width);
  int64_t packed = -1;  // which head's keys and values these are
  for (int64_t item = begin; item < end; ++item) {
    const int64_t pair = item / blocks, first = item % blocks * kQueries;
    const int64_t clip = pair / job.heads, head = pair % job.heads;
    const int64_t rows = std::min(kQueries, job.queries - first), keys = job.keys_of(clip);
    if (packed != pair) {
      pack(job.key.at(clip, head), job.key.of_token, keys, tiled(keys), dim, 1.0f, key);
      pack(job.value.at(clip, head), job.value.of_token, keys, tiled(keys), dim, 1.0f, value);
      packed = pair;
    }
    const float* from = job.query.at(clip, head) + first * job.query.of_token;
    pack(from, job.query.of_token, rows, kQueries, dim, job.scale * kLog2E, query);
    transpose(query, width, turned, kQueries, kQueries, width);
    for (int64_t i = 0; i < kQueries * width; ++i) out[i] = 0.0f;
    for (int64_t i = 0; i < kQueries; ++i) {
      top[i] = kLowest;
      total[i] = 0.0f;
    }
    for (int64_t start = 0; start < keys; start += kKeys) {
      const int64_t count = std::min(kKeys, keys - start);
      multiply<Left::plain, Into::empty>(key + start * width, width, turned, kQueries, scores,
                                         kQueries, count, rows, dim);
      for (int64_t i = 0; i < rows; i += kLanes) {
        const Vector before = load(top + i);
        Vector most = before, sum{};
        for (int64_t k = 0; k < count; ++k) {
          const Vector score = load(scores + k * kQueries + i);
          most = score > most ? score : most;
        }
        for (int64_t k = 0; k < count; ++k) {
          float* at = scores + k * kQueries + i;
          const Vector weight = exp2_negative(load(at) - most);
          sum += weight;
          store(at, weight);
        }
        const Vector factor = exp2_negative(before - most);
        store(total + i, load(total + i) * factor + sum);
        store(top + i, most);
        store(shrink + i, factor);
      }
      for (int64_t row = 0; start > 0 && row < rows; ++row) {
        for (int64_t i = 0; i < width; i += kLanes) {
          store(out + row * width + i, load(out + row * width + i) * shrink[row]);
        }
      }
      multiply<Left::transposed, Into::sum>(scores, kQueries, value + start * width, width, out,
                                            width, rows, width, count);
    }
    float* to = job.out + job.offset(clip, head, job.queries) + first * job.out_stride();
    for (int64_t row = 0; row < rows; ++row, to += job.out_stride()) {
      // No score above the lowest number: all are -inf, or NaN.
      const float inverse = top[row] > kLowest ? 1.0f / total[row] : __builtin_nanf("");
      if (row + kAhead < rows) ask_for<For::writing>(to + kAhead * job.out_stride(), dim);
#pragma omp simd
      for (int64_t i = 0; i < dim; ++i) to[i] = out[row * width + i] * inverse;
      job.lse[pair * job.queries + first + row] = top[row] * kLn2 + __builtin_logf(total[row]);
    }
  }
}

inline void add_to(float* sums, const float* row, int64_t dim) {
#pragma omp simd
  for (int64_t i = 0; i < dim; ++i) sums[i] += row[i];
}

// Floats of scratch for `backward`.
inline int64_t backward_scratch(int64_t keys, int64_t dim) {
  const int64_t width = padded(dim);
  return 4 * tiled(keys) * width + 5 * kQueries * width + 2 * kKeys * kQueries + 2 * kQueries;
}

// The heads begin..end-1, counted through clips and heads.
inline void backward(const AttentionBackward& job, float* scratch, int64_t begin, int64_t end) {
  const int64_t dim = job.dim, width = padded(dim), stride = job.out_stride();
  const auto take = [&](int64_t floats) { return std::exchange(scratch, scratch + floats); };
  float* query = take(kQueries * width);          // [query, dim], scaled
  float* turned = take(kQueries * width);         // [dim, query]
  float* grad = take(kQueries * width);           // of the output, likewise
  float* turned_grad = take(kQueries * width);
  float* grad_query = take(kQueries * width);
  float* weights = take(kKeys * kQueries);        // [key, query]
  float* grad_scores = take(kKeys * kQueries);
  float *shift = take(kQueries), *delta = take(kQueries);
  const int64_t packed = tiled(job.keys) * width;
  float *key = take(packed), *value = take(packed);
  float *grad_key = take(packed), *grad_value = take(packed);
  for (int64_t pair = begin; pair < end; ++pair) {
    const int64_t clip = pair / job.heads, head = pair % job.heads, keys = job.keys_of(clip);
    pack(job.key.at(clip, head), job.key.of_token, keys, tiled(keys), dim, 1.0f, key);
    pack(job.value.at(clip, head), job.value.of_token, keys, tiled(keys), dim, 1.0f, value);
    for (int64_t i = 0; i < packed; ++i) grad_key[i] = grad_value[i] = 0.0f;
    float* query_sums = job.query_sums == nullptr ? nullptr : job.query_sums + pair * dim;
    float* value_sums = job.value_sums == nullptr ? nullptr : job.value_sums + pair * dim;
    for (int64_t i = 0; i < dim; ++i) {
      if (query_sums != nullptr) query_sums[i] = 0.0f;
      if (value_sums != nullptr) value_sums[i] = 0.0f;
    }
    for (int64_t first = 0; first < job.queries; first += kQueries) {
      const int64_t rows = std::min(kQueries, job.queries - first);
      const int64_t offset = job.offset(clip, head, job.queries) + first * stride;
      const float* from = job.query.at(clip, head) + first * job.query.of_token;
      pack(from, job.query.of_token, rows, kQueries, dim, job.scale * kLog2E, query);
      pack(job.grad + offset, stride, rows, kQueries, dim, 1.0f, grad);
      transpose(query, width, turned, kQueries, kQueries, width);
      transpose(grad, width, turned_grad, kQueries, kQueries, width);
      for (int64_t row = 0; row < kQueries; ++row) {
        float sum = 0.0f;
        const int64_t valid = row < rows ? dim : 0;
        const float* out = job.out + offset + row * stride;
        if (row + kAhead < rows) ask_for<For::reading>(out + kAhead * stride, dim);
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < valid; ++i) sum += grad[row * width + i] * out[i];
        delta[row] = sum;
        shift[row] = row < rows ? job.lse[pair * job.queries + first + row] * kLog2E : 0.0f;
      }
      for (int64_t i = 0; i < kQueries * width; ++i) grad_query[i] = 0.0f;
      for (int64_t start = 0; start < keys; start += kKeys) {
        const int64_t count = std::min(kKeys, keys - start), place = start * width;
        multiply<Left::plain, Into::empty>(key + place, width, turned, kQueries, weights, kQueries,
                                           count, rows, dim);
        multiply<Left::plain, Into::empty>(value + place, width, turned_grad, kQueries, grad_scores,
                                           kQueries, count, rows, dim);
        for (int64_t i = 0; i < rows; i += kLanes) {
          const Vector less_score = load(shift + i), less = load(delta + i);
          for (int64_t k = 0; k < count; ++k) {
            float *at = weights + k * kQueries + i, *to = grad_scores + k * kQueries + i;
            const Vector weight = exp2_negative(load(at) - less_score);
            store(at, weight);
            store(to, weight * (load(to) - less));
          }
        }
        multiply<Left::plain, Into::sum>(weights, kQueries, grad, width, grad_value + place, width,
                                         count, width, rows);
        multiply<Left::plain, Into::sum>(grad_scores, kQueries, query, width, grad_key + place,
                                         width, count, width, rows);
        multiply<Left::transposed, Into::sum>(grad_scores, kQueries, key + place, width, grad_query,
                                              width, rows, width, count);
      }
      float* to = job.grad_query.at(clip, head) + first * job.grad_query.of_token;
      for (int64_t row = 0; row < rows; ++row, to += job.grad_query.of_token) {
        if (row + kAhead < rows) ask_for<For::writing>(to + kAhead * job.grad_query.of_token, dim);
#pragma omp simd
        for (int64_t i = 0; i < dim; ++i) to[i] = grad_query[row * width + i] * job.scale;
        if (query_sums != nullptr) add_to(query_sums, to, dim);
      }
    }
    for (int64_t row = 0; row < job.keys; ++row) {
      float* of_key = job.grad_key.at(clip, head) + row * job.grad_key.of_token;
      float* of_value = job.grad_value.at(clip, head) + row * job.grad_value.of_token;
      const int64_t valid = row < keys ? dim : 0;
      if (row + kAhead < job.keys) {
        ask_for<For::writing>(of_key + kAhead * job.grad_key.of_token, dim);
        ask_for<For::writing>(of_value + kAhead * job.grad_value.of_token, dim);
      }
#pragma omp simd
      for (int64_t i = 0; i < valid; ++i) {
        of_key[i] = grad_key[row * width + i] * kLn2;  // as the queries' scale has log2(e)
        of_value[i] = grad_value[row * width + i];
      }
      for (int64_t i = valid; i < dim; ++i) of_key[i] = of_value[i] = 0.0f;
      if (value_sums != nullptr) add_to(value_sums, of_value, dim);
    }
  }
}
