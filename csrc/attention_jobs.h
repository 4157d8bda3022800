// What attention's functions for each instruction set (attention_heads.h) work on.
#pragma once

#include <algorithm>
#include <cstdint>

namespace vmf {

// Queries and keys that are worked on at once: multiples of a tile's rows, and small enough that
// their scores stay in the first two levels of the cache.
constexpr int64_t kQueries = 96;
constexpr int64_t kKeys = 96;

// A tensor [batch, tokens, heads, dim] of which only the last dimension has to be dense.
struct Heads {
  const float* data;
  int64_t of_clip, of_token, of_head;  // strides

  const float* at(int64_t clip, int64_t head) const {
    return data + clip * of_clip + head * of_head;
  }
};

// Where a gradient of such a tensor goes, strided likewise.
struct HeadsOut {
  float* data;
  int64_t of_clip, of_token, of_head;

  float* at(int64_t clip, int64_t head) const {
    return data + clip * of_clip + head * of_head;
  }
};

struct Attention {
  Heads query, key, value;
  const int32_t* key_count;  // [batch] or null
  int64_t batch, queries, keys, heads, dim;
  float scale;

  int64_t keys_of(int64_t clip) const {
    return key_count == nullptr ? keys : std::clamp<int64_t>(key_count[clip], 0, keys);
  }
  int64_t blocks() const { return (queries + kQueries - 1) / kQueries; }
  int64_t out_stride() const { return heads * dim; }
  // Where a clip's head starts in a contiguous [batch, tokens, heads, dim].
  int64_t offset(int64_t clip, int64_t head, int64_t tokens) const {
    return (clip * tokens * heads + head) * dim;
  }
};

struct AttentionForward : Attention {
  float *out, *lse;  // [batch, queries, heads, dim], [batch, heads, queries]
};

struct AttentionBackward : Attention {
  const float *grad, *out, *lse;  // contiguous, as forward has them
  HeadsOut grad_query, grad_key, grad_value;
  // [batch, heads, dim] or null: of each clip's head the sums over tokens, for biases
  float *query_sums, *value_sums;
};

}  // namespace vmf
