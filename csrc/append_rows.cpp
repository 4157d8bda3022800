// Rows of a table that all clips share, appended to each clip's own rows.
#include <cstring>
#include <new>
#include <numeric>
#include <vector>

#include "common.h"
#include "parallel.h"
#include "rows.h"

// out[b, :own] = x[b], out[b, own + k] = table[index[b, k]], rows of any dtype.
VMF_API int64_t vmf_append_rows(const void* x,         // [batch, own, row_bytes]
                                const void* table,     // [rows, row_bytes]
                                const int32_t* index,  // [batch, appended]
                                void* out,             // [batch, own + appended, row_bytes]
                                int64_t row_bytes, int64_t batch, int64_t own, int64_t rows,
                                int64_t appended, int64_t threads) {
  using namespace vmf;
  if (row_bytes < 0 || batch < 0 || own < 0 || rows < 0 || appended < 0) return kBadArgument;
  if (const int64_t bad = check_index(index, batch * appended, rows)) return bad;
  const int64_t length = own + appended;
  try {
    parallel_for(batch * length, row_bytes / 16, threads, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t clip = i / length, place = i % length;
        const char* from =
            place < own
                ? static_cast<const char*>(x) + (clip * own + place) * row_bytes
                : static_cast<const char*>(table) + index[clip * appended + place - own] * row_bytes;
        std::memcpy(static_cast<char*>(out) + i * row_bytes, from, row_bytes);
      }
    });
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
  return kOk;
}

// The table's gradient: grad_table[n] = the sum of grad[b, own + k] where index[b, k] = n. A row is
// one thread's, which adds in the order of clips and lists: the same bits for any thread count.
VMF_API int64_t vmf_append_rows_backward(const float* grad,     // [batch, own + appended, width]
                                         const int32_t* index,  // [batch, appended]
                                         float* grad_table,     // [rows, width]
                                         int64_t width, int64_t batch, int64_t own, int64_t rows,
                                         int64_t appended, int64_t threads) {
  using namespace vmf;
  if (width < 0 || batch < 0 || own < 0 || rows < 0 || appended < 0) return kBadArgument;
  const int64_t entries = batch * appended;
  if (const int64_t bad = check_index(index, entries, rows)) return bad;
  if (rows == 0) return kOk;
  try {
    // A counting sort: row n was appended as the entries order[first[n]] .. order[first[n + 1] - 1].
    std::vector<int64_t> first(static_cast<size_t>(rows + 1)), order(static_cast<size_t>(entries));
    for (int64_t i = 0; i < entries; ++i) ++first[index[i] + 1];
    std::partial_sum(first.begin(), first.end(), first.begin());
    std::vector<int64_t> next(first.begin(), first.end() - 1);
    for (int64_t i = 0; i < entries; ++i) order[next[index[i]]++] = i;
    const int64_t cost = (1 + entries / rows) * width / 4;
    parallel_for(rows, cost, threads, [&](int64_t begin, int64_t end) {
      std::memset(grad_table + begin * width, 0,
                  sizeof(float) * static_cast<size_t>((end - begin) * width));
      for (int64_t n = begin; n < end; ++n) {
        for (int64_t at = first[n]; at < first[n + 1]; ++at) {
          const int64_t clip = order[at] / appended, entry = order[at] % appended;
          const float* row = grad + (clip * (own + appended) + own + entry) * width;
          add_row(row, grad_table + n * width, width);
        }
      }
    });
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
  return kOk;
}
