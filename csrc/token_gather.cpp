// Token gather and scatter along the token axis, each the other's backward.
#include <cstring>
#include <new>

#include "common.h"
#include "parallel.h"
#include "rows.h"

// out[b, k] = x[b, index[b, k]], rows of any dtype.
VMF_API int64_t vmf_token_gather(const void* x,         // [batch, tokens, row_bytes]
                                 const int32_t* index,  // [batch, per_clip]
                                 void* out,             // [batch, per_clip, row_bytes]
                                 int64_t row_bytes, int64_t batch, int64_t tokens,
                                 int64_t per_clip, int64_t threads) {
  using namespace vmf;
  if (row_bytes < 0 || batch < 0 || tokens < 0 || per_clip < 0) return kBadArgument;
  if (const int64_t bad = check_index(index, batch * per_clip, tokens)) return bad;
  try {
    parallel_for(batch * per_clip, row_bytes / 16, threads, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t from = (i / per_clip) * tokens + index[i];
        std::memcpy(static_cast<char*>(out) + i * row_bytes,
                    static_cast<const char*>(x) + from * row_bytes, row_bytes);
      }
    });
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
  return kOk;
}

// out = 0; out[b, index[b, k]] += x[b, k]. A clip is one thread's, so repeated positions add up in
// their order.
VMF_API int64_t vmf_token_scatter(const float* x,        // [batch, per_clip, width]
                                  const int32_t* index,  // [batch, per_clip]
                                  float* out,            // [batch, tokens, width]
                                  int64_t width, int64_t batch, int64_t tokens, int64_t per_clip,
                                  int64_t threads) {
  using namespace vmf;
  if (width < 0 || batch < 0 || tokens < 0 || per_clip < 0) return kBadArgument;
  if (const int64_t bad = check_index(index, batch * per_clip, tokens)) return bad;
  try {
    const int64_t cost = (tokens + per_clip) * width / 4;
    parallel_for(batch, cost, threads, [&](int64_t begin, int64_t end) {
      std::memset(out + begin * tokens * width, 0,
                  sizeof(float) * static_cast<size_t>((end - begin) * tokens * width));
      for (int64_t i = begin * per_clip; i < end * per_clip; ++i) {
        add_row(x + i * width, out + ((i / per_clip) * tokens + index[i]) * width, width);
      }
    });
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
  return kOk;
}
