// Memory that a thread keeps from one piece of work to the next.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#include "simd.h"

namespace flash {

struct FreeAligned {
  void operator()(float* at) const { ::operator delete(at, std::align_val_t{64}); }
};
using Floats = std::unique_ptr<float[], FreeAligned>;

// `count` floats on a cache line's boundary, not initialised.
inline Floats allocate(int64_t count) {
  return Floats(static_cast<float*>(::operator new(static_cast<size_t>(count) * sizeof(float), std::align_val_t{64})));
}

// Hands out pieces of the thread's own memory, which grows to the largest sum asked for. A new Scratch takes the pieces
// of the one before: one piece of work at a time.
class Scratch {
 public:
  explicit Scratch(int64_t floats) {
    if (floats > size) {
      memory.reset();
      memory = allocate(floats);
      size = floats;
    }
    next_ = memory.get();
  }

  float* take(int64_t floats) {
    float* piece = next_;
    next_ += round_up(floats, 16);
    return piece;
  }

 private:
  inline static thread_local Floats memory;
  inline static thread_local int64_t size = 0;
  float* next_;
};

}  // namespace flash
