// Who does the parts of a call.
//
// In the process that computes it is torch's own OpenMP threads (vmf_use_openmp). They spin for
// milliseconds after each of torch's ops, on the cores that are wanted here: a thread of another pool
// is not woken beside them, but behind the caller. And they are there already, so a call costs 2
// microseconds. OpenMP threads don't survive a fork, and no child can tell; so a forked child, like
// a process without torch's, has
//
// helpers of its own: started when they are first needed, asleep between calls. A call offers its
// work and begins at once. It never waits for a helper that has not begun: parts are taken as threads
// come, and who comes late finds nothing left.
// * No spinning between calls.
// * A call that finds the helpers busy with another thread's call, or is made by a part of one, does
//   its parts alone.
// * A fork of a fork starts anew.
// * Nothing is destroyed or joined at exit, so exit waits for nobody: helpers end with the process.
#include "parallel.h"

#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <exception>
#include <system_error>
#include <thread>
#include <vector>

#include "common.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace vmf {
namespace {

inline void relax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// [0, n) cut into a range per lane, which a lane takes from the front: neighbours stay with one
// thread, and with one core's cache from op to op. Who is through goes on with another's range. A
// range is taken in halves of what is left, so that few cuts leave little to wait for at the end.
class Work {
 public:
  Work(void (*part)(void*, int64_t, int64_t), void* body, int64_t n, int64_t lanes)
      : part_(part), body_(body), n_(n), lanes_(lanes), taken_(static_cast<size_t>(lanes)) {}

  // What there is to do, beginning with the next lane's range.
  void run() noexcept {
    const int64_t own = next_lane_.fetch_add(1);
    if (own >= lanes_) return;  // more came than there is work for
    try {
      for (int64_t i = 0; i < lanes_; ++i) run_lane((own + i) % lanes_);
    } catch (...) {
      if (!failed_.exchange(true)) error_ = std::current_exception();
    }
  }

  // To be called when nobody runs any more.
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  static constexpr int64_t kCuts = 6;

  void run_lane(int64_t lane) {
    // n / lanes for each, and one more for the first n % lanes.
    const int64_t each = n_ / lanes_, more = n_ % lanes_;
    const int64_t begin = lane * each + std::min(lane, more), size = each + (lane < more);
    while (!failed_.load(std::memory_order_relaxed)) {
      const int64_t cut = taken_[static_cast<size_t>(lane)].count.fetch_add(1);
      if (cut >= kCuts) return;
      const int64_t from = size - (size >> cut);
      const int64_t to = cut + 1 < kCuts ? size - (size >> (cut + 1)) : size;
      if (from < to) part_(body_, begin + from, begin + to);
    }
  }

  struct alignas(64) Taken {
    std::atomic<int64_t> count{0};
  };
  void (*part_)(void*, int64_t, int64_t);
  void* body_;
  int64_t n_, lanes_;
  std::vector<Taken> taken_;
  std::atomic<int64_t> next_lane_{0};
  std::atomic<bool> failed_{false};
  std::exception_ptr error_;
};

class Helpers {
 public:
  // Returns when all of the work is done. False: busy, and nothing was done.
  bool run(Work& work, int64_t wanted) {
    if (busy_.exchange(true, std::memory_order_acquire)) return false;
    const auto offered = static_cast<uint32_t>(grow(wanted));
    work_ = &work;
    gone_.store(0, std::memory_order_relaxed);
    places_.store(offered, std::memory_order_release);
    calls_.fetch_add(1);
    for (uint32_t i = 0; i < offered; ++i) calls_.notify_one();
    work.run();
    const uint32_t joined = offered - places_.exchange(0);  // from here on nobody joins
    wait_for(joined);
    busy_.store(false, std::memory_order_release);
    return true;
  }

 private:
  static constexpr int kSpins = 1000;  // some 20 microseconds: what the last parts take at most

  // Up to `wanted` helpers: as many as there are by now.
  int64_t grow(int64_t wanted) {
    sigset_t all, before;  // signals are for the threads that Python knows
    if (count_ < wanted) {
      sigfillset(&all);
      pthread_sigmask(SIG_SETMASK, &all, &before);
      try {
        for (; count_ < wanted; ++count_) {
          std::thread([this, seen = calls_.load()] { serve(seen); }).detach();
        }
      } catch (const std::exception&) {  // no thread to be had: fewer do the work
      }
      pthread_sigmask(SIG_SETMASK, &before, nullptr);
    }
    return std::min(wanted, count_);
  }

  [[noreturn]] void serve(uint32_t seen) {
    for (;;) {
      calls_.wait(seen);
      seen = calls_.load();
      if (!join()) continue;
      work_->run();
      gone_.fetch_add(1);
      gone_.notify_one();
    }
  }

  // Takes a place in the call that is going on, if there is one; the call then waits for `gone_`.
  bool join() {
    uint32_t free = places_.load();
    while (free > 0) {
      if (places_.compare_exchange_weak(free, free - 1)) return true;
    }
    return false;
  }

  void wait_for(uint32_t joined) {
    for (int i = 0; i < kSpins && gone_.load() != joined; ++i) relax();
    for (uint32_t gone = gone_.load(); gone != joined; gone = gone_.load()) gone_.wait(gone);
  }

  std::atomic<bool> busy_{false};
  int64_t count_ = 0;                // these two belong to who set `busy_`
  Work* work_ = nullptr;             // and to helpers that joined
  std::atomic<uint32_t> calls_{0};   // helpers sleep on it
  std::atomic<uint32_t> places_{0};  // for helpers that may still join
  std::atomic<uint32_t> gone_{0};    // those that joined and are through
};

std::atomic<Helpers*> shared{nullptr};

Helpers& helpers() {
  Helpers* found = shared.load();
  if (found == nullptr) {
    auto* made = new Helpers;
    if (shared.compare_exchange_strong(found, made)) return *made;  // never deleted
    delete made;
  }
  return *found;
}

// GOMP_parallel, which LLVM's and Intel's runtimes have too: calls function(data) from a team.
using OpenMp = void (*)(void (*function)(void*), void* data, unsigned threads, unsigned flags);
std::atomic<OpenMp> openmp{nullptr};

// In a forked child: whatever state they are in, nobody serves or holds them there.
void forget() {
  openmp.store(nullptr);
  shared.store(nullptr);
}

[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, forget);

}  // namespace

void run_parts(void (*part)(void*, int64_t, int64_t), void* body, int64_t n, int64_t lanes,
               int64_t threads) {
  Work work(part, body, n, lanes);
  if (const OpenMp run = openmp.load()) {
    // The caller's own number, even where fewer are wanted: for another one the runtime would end
    // threads, and start them again for torch's next op.
    run([](void* it) { static_cast<Work*>(it)->run(); }, &work, static_cast<unsigned>(threads), 0);
    work.rethrow();
  } else if (helpers().run(work, lanes - 1)) {
    work.rethrow();
  } else {
    part(body, 0, n);
  }
}

}  // namespace vmf

// Takes the GOMP_parallel of the OpenMP runtime whose threads are to do the parts, or null for helpers
// of the library's own. Not to be called in a process that was forked with that runtime's threads.
VMF_API void vmf_use_openmp(void* parallel) {
  vmf::openmp.store(reinterpret_cast<vmf::OpenMp>(parallel));
}
