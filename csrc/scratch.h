// Working memory for the threads of one call, a place for each, taken by whoever comes.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <new>

namespace vmf {

class Scratch {
 public:
  // `places` areas of `floats` floats, uninitialised; throws std::bad_alloc.
  Scratch(int64_t places, int64_t floats)
      : stride_((floats + kLine - 1) / kLine * kLine),
        memory_(static_cast<float*>(::operator new(
            sizeof(float) * static_cast<size_t>(std::max<int64_t>(1, places * stride_)),
            std::align_val_t{64}))) {}

  // An area that nobody else gets; as many calls as there are places.
  float* take() { return memory_.get() + stride_ * taken_.fetch_add(1); }

 private:
  struct Free {
    void operator()(float* memory) const { ::operator delete(memory, std::align_val_t{64}); }
  };
  static constexpr int64_t kLine = 16;  // floats in a cache line
  int64_t stride_;
  std::unique_ptr<float, Free> memory_;
  std::atomic<int64_t> taken_{0};
};

}  // namespace vmf
