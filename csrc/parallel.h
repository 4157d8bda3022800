// A loop over several threads: torch's, or helpers of the library's own (parallel.cpp).
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

namespace vmf {

// Work, in units of roughly a nanosecond, that is worth a thread: handing it over takes 2,000 to
// 10,000.
constexpr int64_t kGrain = 20'000;

// Calls part(body, begin, end) until all of [0, n) is done, from up to `lanes` threads at once out of
// the `threads` that the caller has. Throws what a part threw, once none is running any more, and
// std::bad_alloc.
void run_parts(void (*part)(void* body, int64_t begin, int64_t end), void* body, int64_t n,
               int64_t lanes, int64_t threads);

// Calls body(begin, end) on parts of [0, n), each item costing about `cost` units, in any order and
// from up to `threads` threads at once: several parts per thread. Results must not depend on where
// the parts are cut.
template <typename Body>
void parallel_for(int64_t n, int64_t cost, int64_t threads, Body&& body) {
  if (n <= 0) return;
  const int64_t worth = n * std::max<int64_t>(cost, 1) / kGrain;
  const int64_t lanes = std::min({threads, n, worth});
  if (lanes < 2) {
    body(int64_t{0}, n);
    return;
  }
  using Type = std::remove_reference_t<Body>;
  const auto part = [](void* it, int64_t begin, int64_t end) {
    (*static_cast<Type*>(it))(begin, end);
  };
  run_parts(part, const_cast<std::remove_const_t<Type>*>(&body), n, lanes, threads);
}

}  // namespace vmf
