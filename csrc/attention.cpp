// Softmax attention over packed heads, forward and backward, fp32, any sizes.
//
// A head's keys and values are packed once and stay in the second-level cache; queries come in
// blocks. Forward runs a softmax over blocks of keys and leaves the log-sum-exp, from which backward
// computes the weights again: five products where forward has two.
//
// The tiles are written in vectors, whose width the clones of common.h can't choose, so the code is
// included once per instruction set and picked here.
#include <cmath>
#include <new>
#include <utility>
#include <vector>

#include "attention_jobs.h"
#include "common.h"
#include "parallel.h"
#include "scratch.h"

namespace vmf {
namespace {

namespace baseline {
constexpr int64_t kLanes = 4, kVectors = 2;
#include "attention_heads.h"
}  // namespace baseline

#if defined(VMF_HAVE_CLONES)
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v3")
namespace level_3 {
constexpr int64_t kLanes = 8, kVectors = 2;
#include "attention_heads.h"
}  // namespace level_3
#pragma GCC pop_options
#endif

#if defined(VMF_HAVE_AVX512)
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v4,prefer-vector-width=512")
namespace level_4 {
constexpr int64_t kLanes = 16, kVectors = 4;
#include "attention_heads.h"
}  // namespace level_4
#pragma GCC pop_options
#endif

struct Functions {
  decltype(&baseline::forward) forward;
  decltype(&baseline::backward) backward;
  decltype(&baseline::forward_scratch) forward_scratch, backward_scratch;
};

Functions functions() {
#if defined(VMF_HAVE_CLONES)
  __builtin_cpu_init();
#if defined(VMF_HAVE_AVX512)
  if (__builtin_cpu_supports("x86-64-v4")) {
    return {level_4::forward, level_4::backward, level_4::forward_scratch,
            level_4::backward_scratch};
  }
#endif
  if (__builtin_cpu_supports("x86-64-v3")) {
    return {level_3::forward, level_3::backward, level_3::forward_scratch,
            level_3::backward_scratch};
  }
#endif
  return {baseline::forward, baseline::backward, baseline::forward_scratch,
          baseline::backward_scratch};
}

Attention attention(const float* query, const float* key, const float* value,
                    const int32_t* key_count, const int64_t* strides, int64_t batch,
                    int64_t queries, int64_t keys, int64_t heads, int64_t dim) {
  return {{query, strides[0], strides[1], strides[2]},
          {key, strides[3], strides[4], strides[5]},
          {value, strides[6], strides[7], strides[8]},
          key_count,
          batch,
          queries,
          keys,
          heads,
          dim,
          1.0f / std::sqrt(float(dim))};
}

// The sums of all clips, in their order: the same bits for any thread count.
void add_clips(const std::vector<float>& of_clips, int64_t batch, int64_t width, float* out) {
  std::vector<double> total(static_cast<size_t>(width));
  for (int64_t clip = 0; clip < batch; ++clip) {
    const float* row = of_clips.data() + clip * width;
    for (int64_t i = 0; i < width; ++i) total[static_cast<size_t>(i)] += row[i];
  }
  for (int64_t i = 0; i < width; ++i) out[i] = float(total[static_cast<size_t>(i)]);
}

bool bad(int64_t batch, int64_t queries, int64_t keys, int64_t heads, int64_t dim) {
  return batch < 0 || queries < 0 || keys < 1 || heads < 1 || dim < 1;
}

}  // namespace
}  // namespace vmf

// out = softmax(query keyT / sqrt(dim)) value; only the first key_count[clip] keys take part.
VMF_API int64_t vmf_attention(const float* query,        // [batch, queries, heads, dim]
                              const float* key,          // [batch, keys, heads, dim]
                              const float* value,        // likewise
                              const int32_t* key_count,  // [batch] or null: all
                              const int64_t* strides,    // [query, key, value][clip, token, head]
                              float* out,                // [batch, queries, heads, dim], dense
                              float* lse,                // [batch, heads, queries], for backward
                              int64_t batch, int64_t queries, int64_t keys, int64_t heads,
                              int64_t dim, int64_t threads) {
  using namespace vmf;
  if (bad(batch, queries, keys, heads, dim)) return kBadArgument;
  try {
    const AttentionForward job{
        attention(query, key, value, key_count, strides, batch, queries, keys, heads, dim), out,
        lse};
    const Functions run = functions();
    const int64_t items = batch * heads * job.blocks();
    Scratch scratch(threads, items, 4 * run.forward_scratch(keys, dim));
    parallel_for(items, kQueries * keys * dim / 16, threads, [&](int64_t begin, int64_t end) {
      run.forward(job, scratch.take().as<float>(), begin, end);
    });
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
  return kOk;
}

VMF_API int64_t vmf_attention_backward(
    const float* grad,  // [batch, queries, heads, dim], dense
    const float* query, const float* key, const float* value, const int32_t* key_count,
    const int64_t* strides,  // [query, key, value, and their gradients][clip, token, head]
    const float* out, const float* lse,                     // as forward left them
    float* grad_query, float* grad_key, float* grad_value,  // as query, key and value
    float* query_sums, float* value_sums,  // [heads, dim] or null: sums of these over all tokens
    int64_t batch, int64_t queries, int64_t keys, int64_t heads, int64_t dim, int64_t threads) {
  using namespace vmf;
  if (bad(batch, queries, keys, heads, dim)) return kBadArgument;
  try {
    const int64_t items = batch * heads;
    std::vector<float> of_query(query_sums == nullptr ? 0 : static_cast<size_t>(items * dim));
    std::vector<float> of_value(value_sums == nullptr ? 0 : static_cast<size_t>(items * dim));
    const AttentionBackward job{
        attention(query, key, value, key_count, strides, batch, queries, keys, heads, dim),
        grad,
        out,
        lse,
        {grad_query, strides[9], strides[10], strides[11]},
        {grad_key, strides[12], strides[13], strides[14]},
        {grad_value, strides[15], strides[16], strides[17]},
        query_sums == nullptr ? nullptr : of_query.data(),
        value_sums == nullptr ? nullptr : of_value.data()};
    const Functions run = functions();
    Scratch scratch(threads, items, 4 * run.backward_scratch(keys, dim));
    parallel_for(items, queries * keys * dim / 8, threads, [&](int64_t begin, int64_t end) {
      run.backward(job, scratch.take().as<float>(), begin, end);
    });
    if (query_sums != nullptr) add_clips(of_query, batch, heads * dim, query_sums);
    if (value_sums != nullptr) add_clips(of_value, batch, heads * dim, value_sums);
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
  return kOk;
}
