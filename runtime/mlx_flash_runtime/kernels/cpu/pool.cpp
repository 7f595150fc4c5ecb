#include "pool.h"

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace flash {
namespace {

// How long a thread without work looks for more before it sleeps: waking it takes as long as a small problem.
constexpr std::chrono::microseconds patience{50};

inline void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Waits actively for `ready`, at most for the patience; returns whether it came.
template <class Ready>
bool spin(Ready ready) {
  const auto end = std::chrono::steady_clock::now() + patience;
  do {
    for (int i = 0; i < 64; ++i) {
      if (ready()) return true;
      pause_cpu();
    }
  } while (std::chrono::steady_clock::now() < end);
  return ready();
}

}  // namespace

struct Pool::State {
  std::vector<std::thread> workers;
  pid_t process = getpid();

  std::mutex one_run;  // held by the caller for the whole of a run

  // The run at hand. Workers join while it is open, and leave it when no index is left.
  const std::function<void(int, int)>* task = nullptr;
  int count = 0;
  std::atomic<int> next{0};
  std::exception_ptr error;
  bool open = false;
  bool stopping = false;
  int sleeping = 0;
  std::atomic<int> working{0};
  std::atomic<unsigned> runs{0};  // how many there were: a change is the sign to wake up
  std::mutex mutex;               // of all the above but the atomic reads
  std::condition_variable wake, finished;

  void work(int thread) {
    try {
      for (int index; (index = next.fetch_add(1, std::memory_order_relaxed)) < count;) (*task)(index, thread);
    } catch (...) {
      next.store(count, std::memory_order_relaxed);
      std::lock_guard lock(mutex);
      if (!error) error = std::current_exception();
    }
  }

  void wait_for_work(int thread) {
    unsigned seen = 0;
    while (true) {
      spin([&] { return runs.load(std::memory_order_acquire) != seen; });
      std::unique_lock lock(mutex);
      ++sleeping;
      wake.wait(lock, [&] { return runs.load(std::memory_order_relaxed) != seen || stopping; });
      --sleeping;
      if (stopping) return;
      seen = runs.load(std::memory_order_relaxed);
      if (!open) continue;
      working.fetch_add(1, std::memory_order_relaxed);
      lock.unlock();
      work(thread);
      lock.lock();
      if (working.fetch_sub(1, std::memory_order_release) == 1) finished.notify_one();
    }
  }
};

Pool::Pool(int threads) : state_(std::make_unique<State>()) {
  for (int thread = 1; thread < threads; ++thread) {
    state_->workers.emplace_back([state = state_.get(), thread] { state->wait_for_work(thread); });
  }
}

Pool::~Pool() {
  if (getpid() != state_->process) {
    state_.release();  // a forked child: there are no threads to join
    return;
  }
  {
    std::lock_guard lock(state_->mutex);
    state_->stopping = true;
    state_->runs.fetch_add(1, std::memory_order_release);
  }
  state_->wake.notify_all();
  for (auto& worker : state_->workers) worker.join();
}

int Pool::threads() const { return static_cast<int>(state_->workers.size()) + 1; }

void Pool::run(int count, const std::function<void(int, int)>& task) {
  State& state = *state_;
  if (count <= 1 || state.workers.empty() || getpid() != state.process) {
    for (int index = 0; index < count; ++index) task(index, 0);
    return;
  }
  std::lock_guard turn(state.one_run);
  bool wake = false;
  {
    std::lock_guard lock(state.mutex);
    state.task = &task;
    state.count = count;
    state.next.store(0, std::memory_order_relaxed);
    state.error = nullptr;
    state.open = true;
    state.runs.fetch_add(1, std::memory_order_release);
    wake = state.sleeping > 0;
  }
  if (wake) state.wake.notify_all();
  state.work(0);
  std::unique_lock lock(state.mutex);
  state.open = false;
  if (state.working.load(std::memory_order_relaxed) > 0) {
    lock.unlock();
    spin([&] { return state.working.load(std::memory_order_acquire) == 0; });
    lock.lock();
    state.finished.wait(lock, [&] { return state.working.load(std::memory_order_relaxed) == 0; });
  }
  if (state.error) std::rethrow_exception(state.error);
}

}  // namespace flash
