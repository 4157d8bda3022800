// Decoder sequence assembly: projected visible tokens, then mask tokens, each with its position.
#include <cstring>
#include <new>

#include "columns.h"
#include "common.h"
#include "parallel.h"
#include "rows.h"

namespace vmf {
namespace {

VMF_CLONES void add(const float* __restrict a, const float* __restrict b, float* __restrict out,
                    int64_t width) {
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) out[i] = a[i] + b[i];
}

}  // namespace
}  // namespace vmf

VMF_API int64_t vmf_decoder_assembly(const float* visible,     // [batch, seen, width]
                                     const float* mask_token,  // [width]
                                     const float* positions,   // [tokens, width]
                                     const int32_t* visible_index,  // [batch, seen]
                                     const int32_t* decoder_index,  // [batch, hidden]
                                     float* out,  // [batch, seen + hidden, width]
                                     int64_t batch, int64_t seen, int64_t hidden, int64_t tokens,
                                     int64_t width, int64_t threads) {
  using namespace vmf;
  if (batch < 0 || seen < 0 || hidden < 0 || tokens < 0 || width < 1) return kBadArgument;
  if (const int64_t bad = check_index(visible_index, batch * seen, tokens)) return bad;
  // Places in decoder_index are told apart from those in visible_index by counting on.
  if (const int64_t bad = check_index(decoder_index, batch * hidden, tokens))
    return batch * seen + bad;
  const int64_t length = seen + hidden;
  try {
    parallel_for(batch * length, width / 4, threads, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t clip = i / length, place = i % length;
        if (place < seen) {
          const int64_t v = clip * seen + place;
          add(visible + v * width, positions + visible_index[v] * width, out + i * width, width);
        } else {
          const int64_t m = clip * hidden + place - seen;
          add(mask_token, positions + decoder_index[m] * width, out + i * width, width);
        }
      }
    });
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
  return kOk;
}

VMF_API int64_t vmf_decoder_assembly_backward(const float* grad,  // [batch, seen + hidden, width]
                                              float* grad_visible,     // [batch, seen, width]
                                              float* grad_mask_token,  // [width]
                                              int64_t batch, int64_t seen, int64_t hidden,
                                              int64_t width, int64_t threads) {
  using namespace vmf;
  if (batch < 0 || seen < 0 || hidden < 0 || width < 1) return kBadArgument;
  const int64_t length = seen + hidden;
  try {
    parallel_for(seen > 0 ? batch : 0, seen * width / 4, threads, [&](int64_t begin, int64_t end) {
      for (int64_t clip = begin; clip < end; ++clip) {
        std::memcpy(grad_visible + clip * seen * width, grad + clip * length * width,
                    sizeof(float) * static_cast<size_t>(seen * width));
      }
    });
    ColumnSums sums(batch * hidden, width);
    parallel_for(sums.blocks(), sums.block_rows() * width / 4, threads,
                 [&](int64_t begin, int64_t end) {
                   for (int64_t block = begin; block < end; ++block) {
                     for (int64_t m = sums.begin(block); m < sums.end(block); ++m) {
                       const int64_t row = (m / hidden) * length + seen + m % hidden;
                       add_row(grad + row * width, sums.of(block), width);
                     }
                   }
                 });
    sums.write(grad_mask_token);
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
  return kOk;
}
