// parallel_for by itself, for what no op can show: exits with the number of the first check that fails.
#include "../../csrc/parallel.h"

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <new>
#include <thread>
#include <vector>

using vmf::kGrain;
using vmf::parallel_for;

extern "C" void vmf_use_openmp(void* parallel);
#if defined(WITH_OPENMP)
extern "C" void GOMP_parallel(void (*)(void*), void*, unsigned, unsigned);
#endif

#if !defined(WAIT)
#define WAIT 60  // seconds
#endif

static int checks = 0;
static void check(bool good) {
  ++checks;
  if (!good) {
    std::fprintf(stderr, "check %d failed\n", checks);
    _exit(checks);
  }
}

// Every item once, never more threads than given, or than the work is worth.
static bool covers(int64_t n, int64_t cost, int64_t threads, int milliseconds = 0) {
  std::vector<std::atomic<int>> done(static_cast<size_t>(n));
  std::atomic<int64_t> now{0}, most{0};
  parallel_for(n, cost, threads, [&](int64_t begin, int64_t end) {
    const int64_t running = ++now;
    for (int64_t seen = most; seen < running && !most.compare_exchange_weak(seen, running);) {
    }
    for (int64_t i = begin; i < end; ++i) ++done[static_cast<size_t>(i)];
    if (milliseconds > 0) std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
    --now;
  });
  for (const auto& times : done) {
    if (times != 1) return false;
  }
  return most <= std::max<int64_t>(std::min(threads, n * cost / kGrain), 1);
}

static void all_items_once() {
  for (int64_t threads : {0, 1, 2, 3, 8}) {
    for (int64_t n : {0, 1, 2, 3, 5, 63, 64, 65, 1000}) {
      for (int64_t cost : {int64_t{0}, int64_t{100}, kGrain, 2 * kGrain}) {
        check(covers(n, cost, threads));
      }
    }
  }
}

static void little_work_stays_here() {
  const auto here = std::this_thread::get_id();
  int parts = 0;
  parallel_for(100, kGrain / 100, 8, [&](int64_t begin, int64_t end) {
    check(std::this_thread::get_id() == here && begin == 0 && end == 100);
    ++parts;
  });
  check(parts == 1);
  check(covers(4, kGrain / 2, 8, 20));  // four parts, worth two threads
}

// The first part to be taken waits for all other ones: somebody else must be doing them.
static bool others_help() {
  std::atomic<int64_t> left{1000};
  std::atomic<bool> first{true};
  parallel_for(1000, kGrain, 2, [&](int64_t begin, int64_t end) {
    left -= end - begin;
    if (first.exchange(false)) {
      const auto late = std::chrono::steady_clock::now() + std::chrono::seconds(WAIT);
      while (left > 0 && std::chrono::steady_clock::now() < late) std::this_thread::yield();
      if (left > 0) left = 1'000'000;
    }
  });
  return left == 0;
}

static void exceptions_arrive() {
  for (int64_t threads : {1, 2, 4}) {
    for (int64_t bad : {0, 40, 99}) {
      bool caught = false;
      try {
        parallel_for(100, kGrain, threads, [&](int64_t begin, int64_t end) {
          if (begin <= bad && bad < end) throw std::bad_alloc();
        });
      } catch (const std::bad_alloc&) {
        caught = true;
      }
      check(caught);
      check(covers(100, kGrain, threads));  // and it goes on
    }
  }
}

static void a_part_may_have_parts() {
  std::atomic<int64_t> total{0};
  parallel_for(8, kGrain, 4, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      parallel_for(10, kGrain, 4, [&](int64_t from, int64_t to) { total += to - from; });
    }
  });
  check(total == 80);
}

static void callers_at_the_same_time() {
  std::atomic<bool> good{true};
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&] {
      for (int round = 0; round < 300; ++round) {
        if (!covers(200, kGrain / 10, 2 + round % 3)) good = false;
      }
    });
  }
  for (auto& caller : callers) caller.join();
  check(good);
}

// With another thread in the midst of calls; the child forks again.
[[maybe_unused]] static void forks() {
  std::atomic<bool> stop{false};
  std::thread busy([&] {
    while (!stop) covers(500, kGrain, 3);
  });
  for (int round = 0; round < 20; ++round) {
    const pid_t child = fork();
    if (child == 0) {
      const bool good = covers(500, kGrain, 3) && (round > 0 || others_help());
      const pid_t grandchild = fork();
      if (grandchild == 0) _exit(covers(500, kGrain, 3) ? 0 : 1);
      int status = 1;
      waitpid(grandchild, &status, 0);
      _exit(good && status == 0 ? 0 : 1);
    }
    int status = 1;
    waitpid(child, &status, 0);
    check(status == 0);
  }
  stop = true;
  busy.join();
  check(covers(500, kGrain, 3));
}

int main() {
#if defined(WITH_OPENMP)
  vmf_use_openmp(reinterpret_cast<void*>(&GOMP_parallel));
#endif
  all_items_once();
  little_work_stays_here();
  check(others_help());
  exceptions_arrive();
  a_part_may_have_parts();
  callers_at_the_same_time();
#if !defined(WITHOUT_FORK)
  forks();
#endif
  std::thread([] {
    for (;;) covers(500, kGrain, 3);
  }).detach();  // exit does not wait for it
  std::printf("%d checks\n", checks);
  return 0;
}
