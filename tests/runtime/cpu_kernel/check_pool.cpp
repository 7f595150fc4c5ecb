// Holds the pool to its promises: each index once, callers in turn, errors passed on, a fork that goes on alone.
// `check_pool "without fork"` leaves the fork out, which thread sanitizers do not follow.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <stdexcept>
#include <thread>
#include <vector>

#include "pool.h"

using flash::Pool;

namespace {

std::atomic<int> failures{0};

void hold(bool true_, const char* what) {
  if (true_) return;
  ++failures;
  std::printf("not so: %s\n", what);
}

bool each_once(Pool& pool, int count) {
  std::vector<int> done(count);  // plain integers: that two threads never meet here is the promise
  std::atomic<bool> in_range{true};
  pool.run(count, [&](int index, int thread) {
    ++done[index];
    if (thread < 0 || thread >= pool.threads()) in_range = false;
  });
  for (const int times : done) in_range = in_range && times == 1;
  return in_range;
}

void check_indices() {
  for (const int threads : {1, 2, 5}) {
    Pool pool(threads);
    hold(pool.threads() == threads, "a pool has the threads asked for");
    for (const int count : {0, 1, 2, 3, 100}) hold(each_once(pool, count), "each index runs once");
    for (int i = 0; i < 2000; ++i) hold(each_once(pool, 4), "each index runs once, run after run");
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    hold(each_once(pool, 7), "each index runs once after a sleep");
  }
}

// Two tasks that wait for each other end only if two threads run them.
void check_threads_share_work() {
  Pool pool(2);
  for (int i = 0; i < 5; ++i) {
    std::atomic<int> here{0};
    pool.run(2, [&](int, int) {
      ++here;
      for (int wait = 0; wait < 10000 && here < 2; ++wait) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      hold(here == 2, "two threads share two tasks");
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

void check_callers() {
  Pool pool(3);
  std::vector<std::thread> callers;
  std::atomic<int> wrong{0};
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&] {
      for (int j = 0; j < 300; ++j) wrong += !each_once(pool, 5);
    });
  }
  for (auto& caller : callers) caller.join();
  hold(wrong == 0, "several callers each get all of their indices");
}

void check_errors() {
  Pool pool(3);
  for (int i = 0; i < 50; ++i) {
    bool thrown = false;
    try {
      pool.run(20, [](int index, int) {
        if (index == 7) throw std::runtime_error("seven");
      });
    } catch (const std::runtime_error&) {
      thrown = true;
    }
    hold(thrown, "what a task throws reaches the caller");
    hold(each_once(pool, 20), "a pool goes on after an error");
  }
}

void check_fork() {
  auto* pool = new Pool(3);
  hold(each_once(*pool, 10), "each index runs once before a fork");
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    const bool fine = each_once(*pool, 10);
    delete pool;
    _exit(fine ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  hold(status == 0, "a forked child goes on with the pool and can leave it");
  hold(each_once(*pool, 10), "each index runs once after a fork");
  delete pool;
}

}  // namespace

int main(int argc, char**) {
  check_indices();
  check_threads_share_work();
  check_callers();
  check_errors();
  if (argc == 1) check_fork();
  std::printf("pool: %d failures\n", failures.load());
  return failures != 0;
}
