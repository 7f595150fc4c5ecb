// Who works on a call: the pool's threads, or the caller alone.
#pragma once

#include "queries.h"

namespace flash {

// In products of two numbers: some 20 microseconds of one core's work. To wake the others takes as long.
constexpr int64_t least_shared_work = 1 << 19;
// Reading a number of a key or value, in such products.
constexpr int64_t read_products = 4;

// Of a forward pass. A backward pass is more.
inline int64_t work_of(const Shape& shape) {
  const int64_t keys = static_cast<int64_t>(shape.batch) * shape.key_heads * shape.key_length;
  return keys * (shape.head_dim + shape.value_head_dim) * (read_products + rows_of(shape));
}

class Workers {
 public:
  Workers(const Shape& shape, Pool& pool) : pool_(pool), alone_(work_of(shape) < least_shared_work) {}

  int threads() const { return alone_ ? 1 : pool_.threads(); }

  // Calls task(index) for each index in [0, count), each once.
  template <class Task>
  void run(int count, Task task) {
    if (!alone_) return pool_.run(count, [&](int index, int) { task(index); });
    for (int index = 0; index < count; ++index) task(index);
  }

 private:
  Pool& pool_;
  const bool alone_;
};

}  // namespace flash
