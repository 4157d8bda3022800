// A loop over threads that live for one call.
//
// No pool and no OpenMP: nothing survives a fork into a data worker, and no second runtime's idle
// threads spin against torch's. Starting a thread costs about 20 microseconds, so a thread is only
// started for at least kGrain units of work (roughly, nanoseconds).
#pragma once

#include <algorithm>
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

namespace vmf {

constexpr int64_t kGrain = 100'000;

// Calls body(begin, end) on parts of [0, n), each item costing about `cost` units. Results must not
// depend on where the parts are cut: the cut depends on `threads`, which the caller gives.
template <typename Body>
void parallel_for(int64_t n, int64_t cost, int64_t threads, Body&& body) {
  if (n <= 0) return;
  const int64_t worth = std::max<int64_t>(1, n * std::max<int64_t>(cost, 1) / kGrain);
  const int64_t parts = std::max<int64_t>(1, std::min({threads, n, worth}));
  std::vector<std::thread> helpers;
  helpers.reserve(static_cast<size_t>(parts - 1));
  int64_t begin = n / parts + (n % parts > 0);  // the first part is the calling thread's own
  const int64_t own = begin;
  for (int64_t part = 1; part < parts; ++part) {
    const int64_t end = begin + n / parts + (part < n % parts);
    try {
      helpers.emplace_back([&body, begin, end] { body(begin, end); });
    } catch (const std::system_error&) {  // no thread to be had: do it here
      body(begin, end);
    }
    begin = end;
  }
  body(0, own);
  for (std::thread& helper : helpers) helper.join();
}

}  // namespace vmf
