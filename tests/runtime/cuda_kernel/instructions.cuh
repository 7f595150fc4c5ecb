// In the place of the kernel's header of this name: the same instructions for a block of threads that are fibers of one
// thread of this machine. What the hardware does in the background, copies and products, happens as early as it can or
// not before it is waited for; the first warps run far ahead of the others or behind them. A kernel that reads or
// overwrites too early is wrong in one way or the other.

#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#define __host__
#define __device__
#define __shared__
#define __align__(n) __attribute__((aligned(n)))

struct uint4 {
  uint32_t x, y, z, w;
};
struct uint2 {
  uint32_t x, y;
};
struct float2 {
  float x, y;
};
struct float4 {
  float x, y, z, w;
};
struct __half {
  uint16_t bits;
};
struct __nv_bfloat16 {
  uint16_t bits;
};
using std::max;
using std::min;

namespace emulated {

struct Index {
  int x, y, z;
};

// Where so many threads wait for each other.
struct Meeting {
  int expected = 0, arrived = 0, times = 0;
};

struct Thread {
  Index index;
  ucontext_t beginning;
  jmp_buf place;  // where it waits, once it has begun
  std::unique_ptr<char[]> stack;
  bool begun = false, done = false;
  // What it has started and not yet waited for: what is open, and what is committed.
  std::vector<std::function<void()>> copies, products;
  std::deque<std::vector<std::function<void()>>> committed_copies, committed_products;
};

inline constexpr int STACK = 1 << 18;
struct Way {
  bool late_copies, late_products, first_warps_behind;
};
inline Way way = {};
inline Index block_index, block_size, grid_size;
inline std::vector<Thread> threads;
inline Thread* self = nullptr;
inline jmp_buf scheduler;
inline std::function<void()> kernel;
inline Meeting block_meeting;
inline std::vector<Meeting> warp_meetings;
inline std::vector<const void*> slots;  // what a thread shows to its warp
inline long progress = 0;               // how often something happened that others may wait for

// By jumps, which ask nothing of the system: swapcontext, which does each time, takes five times as long as all the rest.
inline void yield() {
  if (_setjmp(self->place) == 0) _longjmp(scheduler, 1);
}

// Comes back when the thread yields.
inline void resume(Thread& thread) {
  if (_setjmp(scheduler) != 0) return;
  if (thread.begun) _longjmp(thread.place, 1);
  thread.begun = true;
  setcontext(&thread.beginning);
}

inline void meet(Meeting& meeting) {
  const int before = meeting.times;
  if (++meeting.arrived == meeting.expected) meeting.arrived = 0, ++meeting.times, ++progress;
  while (meeting.times == before) yield();
}

inline int number() { return self->index.x; }
inline int lane() { return number() % 32; }

// Shows `own` to the warp while `read` reads what lane i shows.
template <typename V, typename Read>
void exchange(const V& own, Read read) {
  Meeting& meeting = warp_meetings[number() / 32];
  slots[number()] = &own;
  meet(meeting);
  const int first = number() / 32 * 32;
  read([first](int i) -> const V& { return *static_cast<const V*>(slots[first + i]); });
  meet(meeting);
}

template <typename V>
V shuffle(V value, int from) {
  V result{};
  exchange(value, [&](auto of) { result = of(from); });
  return result;
}

inline void enter() {
  kernel();
  self->done = true;
  ++progress;
  while (true) yield();
}

// Runs each of a warp's threads until it waits or is done; returns whether others may go on by that.
inline bool run_warp(int warp) {
  const long before = progress;
  for (int i = 32 * warp; i < 32 * warp + 32; ++i) {
    self = &threads[i];
    if (!self->done) resume(*self);
  }
  return progress != before;
}

// Runs a block of threads, a warp as far as it can before the next one. Ends the program where all wait for ever.
inline void run_block(Index index, Index grid, int size, std::function<void()> function) {
  block_index = index, grid_size = grid, block_size = {size, 1, 1}, kernel = std::move(function);
  block_meeting = {size};
  warp_meetings.assign(size / 32, {32});
  slots.assign(size, nullptr);
  threads = std::vector<Thread>(size);
  for (int i = 0; i < size; ++i) {
    Thread& thread = threads[i];
    thread.index = {i, 0, 0};
    thread.stack = std::make_unique_for_overwrite<char[]>(STACK);
    getcontext(&thread.beginning);
    thread.beginning.uc_stack.ss_sp = thread.stack.get();
    thread.beginning.uc_stack.ss_size = STACK;
    makecontext(&thread.beginning, enter, 0);
  }
  const int warps = size / 32;
  for (int i = 0; i < warps;) i = run_warp(way.first_warps_behind ? warps - 1 - i : i) ? 0 : i + 1;
  const auto left = std::count_if(threads.begin(), threads.end(), [](const Thread& thread) { return !thread.done; });
  if (left == 0) return;
  std::printf("deadlock: %d threads wait for ever\n", int(left));
  std::exit(1);
}

inline void start(std::vector<std::function<void()>>& open, bool late, std::function<void()> work) {
  if (late) {
    open.push_back(std::move(work));
  } else {
    work();
  }
}

inline void commit(std::vector<std::function<void()>>& open,
                   std::deque<std::vector<std::function<void()>>>& commits) {
  commits.push_back(std::move(open));
  open.clear();
}

inline void wait_for(std::deque<std::vector<std::function<void()>>>& commits, size_t pending) {
  while (commits.size() > pending) {
    const std::vector<std::function<void()>> first = std::move(commits.front());
    commits.pop_front();
    for (const auto& work : first) work();
  }
}

}  // namespace emulated

#define threadIdx (emulated::self->index)
#define blockIdx emulated::block_index
#define blockDim emulated::block_size
#define gridDim emulated::grid_size

inline int __syncthreads_and(int own) {
  static int every;  // of a block's threads, which run in turns
  emulated::meet(emulated::block_meeting);
  every = 1;
  emulated::meet(emulated::block_meeting);
  every &= own != 0;
  emulated::meet(emulated::block_meeting);
  return every;
}
inline void __syncthreads() { emulated::meet(emulated::block_meeting); }
template <typename V>
V __shfl_xor_sync(uint32_t, V value, int mask) {
  return emulated::shuffle(value, emulated::lane() ^ mask);
}
template <typename V>
V __shfl_sync(uint32_t, V value, int from) {
  return emulated::shuffle(value, from);
}
inline float __uint_as_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
inline uint32_t __float_as_uint(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }

namespace flash {

inline uint4 shared[227 * 1024 / 16] __align__(1024);

template <typename T>
constexpr bool is_half = false;
template <>
inline constexpr bool is_half<__half> = true;

inline uint32_t tf32(float x) { return (__float_as_uint(x) + 0x1000) & 0xffffe000; }

inline float power_of_two(float x) { return std::exp2(x); }
inline float logarithm(float x) { return std::log2(x); }

inline float widen_half(uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  float size = exponent == 0 ? std::ldexp(float(fraction), -24) : std::ldexp(float(1024 + fraction), exponent - 25);
  if (exponent == 31) size = fraction ? NAN : INFINITY;
  return bits >> 15 ? -size : size;
}

// All of them, since working one out takes longer than the product that it is for.
inline const std::vector<float> widened_halves = [] {
  std::vector<float> all(1 << 16);
  for (int bits = 0; bits < 1 << 16; ++bits) all[bits] = widen_half(bits);
  return all;
}();

// Rounded to nearest, ties to even.
inline uint16_t narrow_to_half(float x) {
  const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  if (std::isnan(x)) return 0x7fff;
  if (std::abs(x) >= 65520) return sign | 0x7c00;
  const int exponent = std::abs(x) < 0x1p-14f ? -14 : std::ilogb(x);
  const int steps = std::nearbyint(std::ldexp(std::abs(x), 10 - exponent));
  return sign | (std::abs(x) < 0x1p-14f ? steps : ((exponent + 15) << 10) + steps - 1024);
}

template <typename T>
uint16_t narrowed(float x) {
  if constexpr (is_half<T>) {
    return narrow_to_half(x);
  } else {
    const uint32_t bits = __float_as_uint(x);
    return std::isnan(x) ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  }
}

template <typename T>
float widened(uint16_t bits) {
  return is_half<T> ? widened_halves[bits] : __uint_as_float(uint32_t(bits) << 16);
}

template <typename T>
uint32_t pack(float low, float high) {
  return narrowed<T>(low) | uint32_t(narrowed<T>(high)) << 16;
}

inline uint4 load_16_bytes(const void* from) { return *static_cast<const uint4*>(from); }
template <typename V>
V load_written(const V* from) {
  return *from;
}
inline void store_flag(uint64_t* to, uint64_t flag) { *to = flag; }
inline void fence_memory() {}
inline uint32_t load_word(const void* from) { return *static_cast<const uint32_t*>(from); }

inline uint32_t shared_address(const void* at) {
  return static_cast<const char*>(at) - reinterpret_cast<const char*>(shared);
}

template <typename V>
V read_shared(uint32_t address) {
  V value;
  std::memcpy(&value, reinterpret_cast<const char*>(shared) + address, sizeof value);
  return value;
}

inline void copy_in_background(void* to, const void* from, bool inside) {
  emulated::start(emulated::self->copies, emulated::way.late_copies, [=] {
    if (inside) {
      std::memcpy(to, from, 16);
    } else {
      std::memset(to, 0, 16);
    }
  });
}

inline void commit_copies() { emulated::commit(emulated::self->copies, emulated::self->committed_copies); }

template <int PENDING>
void wait_for_committed_copies() {
  emulated::wait_for(emulated::self->committed_copies, PENDING);
}

inline void fence_copies() {}

inline void wait_for_copies() {
  commit_copies();
  wait_for_committed_copies<0>();
}

template <bool TRANSPOSED = false>
void load_matrices(uint32_t (&b)[4], const void* row) {
  const int quad = emulated::lane() / 4, pair = emulated::lane() % 4 * 2;
  emulated::exchange(row, [&](auto of) {
    const auto element = [&](int matrix, int i, int j) {
      return uint32_t(static_cast<const uint16_t*>(of(8 * matrix + i))[j]);
    };
    for (int m = 0; m < 4; ++m) {
      b[m] = TRANSPOSED ? element(m, pair, quad) | element(m, pair + 1, quad) << 16
                        : element(m, quad, pair) | element(m, quad, pair + 1) << 16;
    }
  });
}

// Element [row, k] of the operand a whose words the lanes of a warp have, and [k, column] of b.
template <typename T, typename Of>
float element_of_a(Of of, int row, int k) {
  if constexpr (sizeof(T) == 4) {
    return __uint_as_float(of(row % 8 * 4 + k % 4)[row / 8 + k / 4 * 2]);
  } else {
    return widened<T>(of(row % 8 * 4 + k % 8 / 2)[row / 8 + k / 8 * 2] >> k % 2 * 16);
  }
}

template <typename T>
void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  constexpr int depth = 32 / sizeof(T);
  struct Operands {
    uint32_t a[4], b[2];
  };
  const Operands own = {{a[0], a[1], a[2], a[3]}, {b0, b1}};
  emulated::exchange(own, [&](auto of) {
    const auto a_of = [&](int i) { return of(i).a; };
    const auto b_of = [&](int k, int column) {
      if constexpr (sizeof(T) == 4) return __uint_as_float(of(column * 4 + k % 4).b[k / 4]);
      return widened<T>(of(column * 4 + k % 8 / 2).b[k / 8] >> k % 2 * 16);
    };
    for (int i = 0; i < 4; ++i) {
      double sum = c[i];
      const int row = emulated::lane() / 4 + i / 2 * 8, column = emulated::lane() % 4 * 2 + i % 2;
      for (int k = 0; k < depth; ++k) sum += double(element_of_a<T>(a_of, row, k)) * b_of(k, column);
      c[i] = sum;
    }
  });
}

inline uint64_t matrix_descriptor(const uint4* panel) { return 1ull << 62 | 64ull << 32 | shared_address(panel) / 16; }

// 16 bits at a row and column of 64 from where a panel's description begins; the swizzle is one of the address.
inline uint16_t panel_element(uint64_t description, int row, int column) {
  const uint32_t start = (description & 0x3fff) * 16, eight_rows = (description >> 32 & 0x3fff) * 16;
  const uint32_t address = start + row / 8 * eight_rows + row % 8 * 128 + column * 2;
  return read_shared<uint16_t>(address ^ (address >> 7 & 7) << 4);
}

template <typename T, typename A, typename B>
void add_product(float (&sums)[8][4], bool add, A a, B b) {
  for (int n = 0; n < 8; ++n) {
    for (int i = 0; i < 4; ++i) {
      double sum = add ? sums[n][i] : 0;
      const int row = emulated::lane() / 4 + i / 2 * 8, column = 8 * n + emulated::lane() % 4 * 2 + i % 2;
      for (int k = 0; k < 16; ++k) sum += double(a(row, k)) * widened<T>(b(k, column));
      sums[n][i] = sum;
    }
  }
}

template <typename T, typename B>
void start_product(float (&sums)[8][4], const uint32_t (&a)[4], bool add, B b) {
  emulated::start(emulated::self->products, emulated::way.late_products, [&sums, &a, add, b] {
    using Words = uint32_t[4];
    emulated::exchange(static_cast<const Words&>(a), [&](auto of) {
      add_product<T>(sums, add, [&](int row, int k) { return element_of_a<T>(of, row, k); }, b);
    });
  });
}

template <typename T>
void start_product_of_keys(float (&sums)[8][4], const uint32_t (&a)[4], uint64_t b, bool add) {
  start_product<T>(sums, a, add, [b](int k, int column) { return panel_element(b, column, k); });
}

template <typename T>
void start_product_of_keys(float (&sums)[8][4], uint64_t a, uint64_t b, bool add) {
  emulated::start(emulated::self->products, emulated::way.late_products, [&sums, a, b, add] {
    const int first = emulated::number() / 32 % 4 * 16;
    add_product<T>(sums, add, [&](int row, int k) { return widened<T>(panel_element(a, first + row, k)); },
                   [&](int k, int column) { return panel_element(b, column, k); });
  });
}

template <typename T>
void start_product_of_values(float (&sums)[8][4], const uint32_t (&a)[4], uint64_t b) {
  start_product<T>(sums, a, true, [b](int k, int column) { return panel_element(b, k, column); });
}

inline void fence_products() {}
inline void commit_products() { emulated::commit(emulated::self->products, emulated::self->committed_products); }

template <int PENDING, int TILES>
void wait_for_products(float (&)[TILES][4]) {
  emulated::wait_for(emulated::self->committed_products, PENDING);
  emulated::meet(emulated::warp_meetings[emulated::number() / 32]);  // as all lanes of a warp have them at once
}

template <int COUNT>
void give_registers() {}
template <int COUNT>
void take_registers() {}

struct Barrier {
  int expected, arrived, ended;
  std::vector<std::vector<std::function<void()>>> under_way;  // copies of those who arrive after them

  void make(int arrivals) { expected = arrivals, arrived = ended = 0, under_way.clear(); }

  void arrive_when_copied() {
    under_way.push_back(std::move(emulated::self->copies));
    emulated::self->copies.clear();
    ++emulated::progress;
    if (!emulated::way.late_copies) copy();
  }

  void copy() {
    const auto all = std::move(under_way);
    under_way.clear();
    for (const auto& copies : all) {
      for (const auto& one : copies) one();
      arrive();
    }
  }

  void arrive() {
    if (++arrived < expected) return;
    arrived = 0, ++ended, ++emulated::progress;
    emulated::yield();
  }

  // As the hardware, which knows of a phase no more than whether its number is even.
  void wait(int phase) {
    while (ended % 2 == phase % 2) {
      copy();
      if (ended % 2 == phase % 2) emulated::yield();
    }
  }
};

}  // namespace flash
