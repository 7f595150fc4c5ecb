// The threads of a threadgroup as fibers of one thread of this machine, and where they meet.

#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cstring>
#include <functional>
#include <memory>
#include <vector>

namespace emulated {

// Where so many fibers wait for each other.
struct Meeting {
  int expected = 0, arrived = 0, times = 0;
};

struct Fiber {
  ucontext_t beginning;
  jmp_buf place;  // where it waits, once it has begun
  std::unique_ptr<char[]> stack;
  bool begun = false, done = false;
};

inline constexpr int STACK = 1 << 17;
inline std::vector<Fiber> fibers;
inline int self = 0;
inline jmp_buf scheduler;
inline std::function<void(int)> kernel;
inline Meeting group;
inline std::vector<Meeting> simdgroups;
inline std::vector<const void*> slots;  // what a fiber shows to its simdgroup
inline std::vector<const void*> fresh;  // the threadgroup memory that is NaN already
inline size_t memory = 0;               // the bytes of it
inline constexpr size_t MOST_MEMORY = 1 << 15;
inline bool is_beyond = false;           // an index, see `within`
inline long progress = 0;               // how often something happened that others may wait for

// By jumps, which ask nothing of the system, as swapcontext does each time.
inline void yield() {
  if (_setjmp(fibers[self].place) == 0) _longjmp(scheduler, 1);
}

// Comes back when the fiber yields.
inline void resume(Fiber& fiber) {
  if (_setjmp(scheduler) != 0) return;
  if (fiber.begun) _longjmp(fiber.place, 1);
  fiber.begun = true;
  setcontext(&fiber.beginning);
}

inline void meet(Meeting& meeting) {
  const int before = meeting.times;
  if (++meeting.arrived == meeting.expected) meeting.arrived = 0, ++meeting.times, ++progress;
  while (meeting.times == before) yield();
}

inline int lane() { return self % 32; }
inline Meeting& own_simdgroup() { return simdgroups[self / 32]; }

// Shows `own` to the simdgroup while `read` reads what lane i shows.
template <class V, class Read>
void exchange(const V& own, Read read) {
  slots[self] = &own;
  meet(own_simdgroup());
  const int first = self / 32 * 32;
  read([first](int i) -> const V& { return *static_cast<const V*>(slots[first + i]); });
  meet(own_simdgroup());
}

// Has threadgroup memory start as NaN, of any type.
template <class V>
void clear(V& own) {
  for (const void* known : fresh) {
    if (known == &own) return;
  }
  fresh.push_back(&own);
  memory += sizeof own;
  std::memset(static_cast<void*>(&own), 0xff, sizeof own);
}

// An index of so many elements. One beyond them is noted: what lies there may be anything.
inline int within(int index, int count) {
  if (index >= 0 && index < count) return index;
  is_beyond = true;
  return 0;
}

// A fiber's whole life: one threadgroup's kernel after the other.
inline void enter() {
  while (true) {
    kernel(self);
    fibers[self].done = true;
    ++progress;
    yield();
  }
}

// Has a fiber run the next kernel; one that still waits in the last one, for ever, begins anew.
inline void begin(Fiber& fiber) {
  if (!fiber.stack) fiber.stack.reset(new char[STACK]);
  if (!fiber.done) {
    fiber.begun = false;
    getcontext(&fiber.beginning);
    fiber.beginning.uc_stack.ss_sp = fiber.stack.get();
    fiber.beginning.uc_stack.ss_size = STACK;
    makecontext(&fiber.beginning, enter, 0);
  }
  fiber.done = false;
}

// Runs each fiber of a simdgroup until it waits or is done; returns whether any was not done.
inline bool run_simdgroup(int number) {
  bool open = false;
  for (int i = 32 * number; i < 32 * number + 32; ++i) {
    if (fibers[i].done) continue;
    open = true;
    self = i;
    resume(fibers[i]);
  }
  return open;
}

// Runs a threadgroup of so many threads; 1 where they wait for each other for ever, as at a barrier
// that only some of them reach, 2 where it has more memory than Metal gives it, 3 where an index was
// beyond what it is of, else 0.
inline int run(int threads, bool last_first, std::function<void(int)> body) {
  kernel = body;
  fresh.clear();
  memory = 0;
  is_beyond = false;
  fibers.resize(threads);
  slots.assign(threads, nullptr);
  group = {threads};
  simdgroups.assign(threads / 32, {32});
  for (Fiber& fiber : fibers) begin(fiber);
  const int count = threads / 32;
  while (true) {
    bool open = false;
    const long before = progress;
    for (int i = 0; i < count; ++i) {
      long then;
      do {  // as far as it comes
        then = progress;
        open |= run_simdgroup(last_first ? count - 1 - i : i);
      } while (progress != then);
    }
    if (!open) return memory > MOST_MEMORY ? 2 : is_beyond ? 3 : 0;
    if (progress == before) return 1;
  }
}

}  // namespace emulated
