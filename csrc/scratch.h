// Working memory for the parts of one call: a place for each thread, handed from part to part.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>

namespace vmf {

class Scratch {
 public:
  // A place for each of up to `threads` threads that work on `items`, of `bytes` uninitialised bytes
  // on cache lines of its own; throws std::bad_alloc.
  Scratch(int64_t threads, int64_t items, int64_t bytes)
      : stride_((bytes + kLine - 1) / kLine * kLine),
        in_use_(static_cast<size_t>(std::clamp<int64_t>(threads, 1, std::max<int64_t>(items, 1)))),
        memory_(static_cast<std::byte*>(::operator new(
            std::max<size_t>(1, in_use_.size() * static_cast<size_t>(stride_)),
            std::align_val_t{kLine}))) {}

  // Nobody else's until it is gone.
  class Place {
   public:
    Place(std::byte* memory, std::atomic<bool>& in_use) : memory_(memory), in_use_(in_use) {}
    Place(const Place&) = delete;
    Place& operator=(const Place&) = delete;
    ~Place() { in_use_.store(false, std::memory_order_release); }

    template <typename Value>
    Value* as() const {
      return reinterpret_cast<Value*>(memory_);
    }

   private:
    std::byte* memory_;
    std::atomic<bool>& in_use_;
  };

  // As many at once as there are places.
  Place take() {
    for (size_t i = 0;; i = (i + 1) % in_use_.size()) {
      if (!in_use_[i].exchange(true, std::memory_order_acquire)) {
        return {memory_.get() + static_cast<int64_t>(i) * stride_, in_use_[i]};
      }
    }
  }

 private:
  static constexpr int64_t kLine = 64;
  struct Free {
    void operator()(std::byte* memory) const {
      ::operator delete(memory, std::align_val_t{kLine});
    }
  };
  int64_t stride_;
  std::vector<std::atomic<bool>> in_use_;
  std::unique_ptr<std::byte, Free> memory_;
};

}  // namespace vmf
