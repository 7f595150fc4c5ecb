// Attention on the CPU as plain data and two functions: nothing of MLX in here, so that a test, a benchmark or a
// sanitizer can drive it alone.
#pragma once

#include <cstdint>

#include "pool.h"

namespace flash {

enum class Type { float32, float16, bfloat16 };

// [batch, heads, length, dim]: strides in elements; the elements of a row lie side by side.
struct Rows {
  const void* data;
  int64_t batch, head, row;
};

// Broadcasts to [batch, query_heads, query_length, key_length]: strides in elements, 0 along broadcast axes.
struct Mask {
  enum class Kind { none, boolean, additive };
  Kind kind = Kind::none;
  Type type = Type::float32;  // of an additive mask
  const void* data = nullptr;
  int64_t batch = 0, head = 0, row = 0, column = 0;
};

struct Shape {
  int batch, query_heads, key_heads, query_length, key_length, head_dim, value_head_dim;
};

// softmax(scale * q k^T + mask, with sinks) v. q, k, v and the output are of `type`; all sums are float32.
struct Call {
  Shape shape;
  Type type;
  float scale;
  float softcap = 0;  // scores become softcap * tanh(score / softcap) before the mask; 0: as they are
  Rows q, k, v;
  Mask mask;
  // The keys that each query sees, [query_length] each: first <= key <= last, both never falling. Null: all keys.
  // A query that sees no key at all, by these or by a boolean mask, gets the mean of all values, as in MLX.
  const int32_t* first = nullptr;
  const int32_t* last = nullptr;
  const float* sinks = nullptr;  // [query_heads]: one more score each, which has no value
};

// Per query its largest score and sum(exp(score - row_max)), sinks included: [batch, query_heads, query_length] each.
struct Sums {
  float* row_max = nullptr;
  float* row_sum = nullptr;
};

// `out` is [batch, query_heads, query_length, value_head_dim] without gaps; `sums` may be null where no gradient follows.
void forward(const Call& call, void* out, Sums sums, Pool& pool);

// What `backward` writes, each without gaps and of `type`: shapes as q, k, v. `sinks`, [query_heads] in float32, may be
// null.
struct Gradients {
  void* q;
  void* k;
  void* v;
  float* sinks = nullptr;
};

// Recomputes the scores block by block from `sums`; `out` is what `forward` wrote, `cotangent` as `out`.
void backward(const Call& call, const void* out, Rows cotangent, Sums sums, Gradients gradients, Pool& pool);

}  // namespace flash
