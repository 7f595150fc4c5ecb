// A random attention problem with all of its arrays, to call the kernel with.
#pragma once

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "attention.h"
#include "rows.h"

namespace flash {

struct Case {
  std::string name;
  Shape shape{1, 1, 1, 1, 1, 1, 1};
  Type type = Type::float32;
  float softcap = 0;
  bool sinks = false;
  bool interleaved = false;  // [batch, length, heads, dim] with a gap between rows, read in place
  bool causal = false;
  int window = 0;  // with causal: how many keys a query sees at most
  Mask::Kind mask = Mask::Kind::none;
  Type mask_type = Type::float32;
  enum class MaskShape { full, keys_only, heads_shared, column_strided } mask_shape = MaskShape::full;
  int hidden_rows = 0;           // the first queries see no key by the boolean mask
  int hidden_keys = 0;           // nor does any query the last keys
  float additive_low = -2.0f;    // what a tenth of an additive mask's entries are
  float size = 1.0f;             // of the queries
};

inline int bytes_of(Type type) { return type == Type::float32 ? 4 : 2; }

inline double read(const void* data, Type type, int64_t i) {
  if (type == Type::float32) return static_cast<const float*>(data)[i];
  const uint16_t bits = static_cast<const uint16_t*>(data)[i];
  if (type == Type::bfloat16) {
    const uint32_t wide = static_cast<uint32_t>(bits) << 16;
    float x;
    std::memcpy(&x, &wide, 4);
    return x;
  }
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double sign = bits & 0x8000 ? -1 : 1;
  if (exponent == 31) return fraction ? std::numeric_limits<double>::quiet_NaN() : sign * HUGE_VAL;
  return sign * (exponent ? std::ldexp(1024 + fraction, exponent - 25) : std::ldexp(fraction, -24));
}

// One array of rows in the memory layout of the case; values of `type` from a normal distribution.
struct Array {
  std::vector<char> bytes;
  Rows rows;
  Type type;
  int batch, heads, length, dim;

  // Without gaps, as [batch, heads, length, dim].
  template <class Number>
  std::vector<Number> values() const {
    std::vector<Number> all;
    for (int b = 0; b < batch; ++b) {
      for (int h = 0; h < heads; ++h) {
        for (int i = 0; i < length; ++i) {
          const int64_t row = b * rows.batch + h * rows.head + i * rows.row;
          for (int d = 0; d < dim; ++d) all.push_back(static_cast<Number>(read(bytes.data(), type, row + d)));
        }
      }
    }
    return all;
  }
};

inline void write(void* data, Type type, int64_t i, float x) {
  if (type == Type::float32) {
    static_cast<float*>(data)[i] = x;
  } else if (type == Type::float16) {
    static_cast<uint16_t*>(data)[i] = narrow(broadcast(x), Float16{})[0];
  } else {
    static_cast<uint16_t*>(data)[i] = narrow(broadcast(x), BFloat16{})[0];
  }
}

inline float rounded(float x, Type type) {
  char bytes[4];
  write(bytes, type, 0, x);
  return static_cast<float>(read(bytes, type, 0));
}

inline Array make_array(int batch, int heads, int length, int dim, Type type, bool interleaved, float size,
                        std::mt19937& random) {
  Array array{{}, {}, type, batch, heads, length, dim};
  const int64_t row = interleaved ? dim + 3 : dim;
  array.bytes.resize(static_cast<size_t>(row) * batch * heads * length * bytes_of(type));
  array.rows = interleaved ? Rows{nullptr, row * heads * length, row, row * heads}
                           : Rows{nullptr, row * heads * length, row * length, row};
  std::normal_distribution<float> normal;
  for (int64_t i = 0; i < row * batch * heads * length; ++i) write(array.bytes.data(), type, i, size * normal(random));
  array.rows.data = array.bytes.data();
  return array;
}

struct Problem {
  explicit Problem(const Case& made_from) : c(made_from) {
    std::mt19937 random(12345);
    const Shape& s = c.shape;
    q = make_array(s.batch, s.query_heads, s.query_length, s.head_dim, c.type, c.interleaved, c.size, random);
    k = make_array(s.batch, s.key_heads, s.key_length, s.head_dim, c.type, c.interleaved, 1, random);
    v = make_array(s.batch, s.key_heads, s.key_length, s.value_head_dim, c.type, c.interleaved, 1, random);
    cotangent =
        make_array(s.batch, s.query_heads, s.query_length, s.value_head_dim, c.type, c.interleaved, 1, random);
    call.shape = s;
    call.type = c.type;
    call.scale = 1 / std::sqrt(static_cast<float>(s.head_dim));
    call.softcap = c.softcap;
    call.q = q.rows;
    call.k = k.rows;
    call.v = v.rows;
    std::normal_distribution<float> normal;
    if (c.sinks) {
      for (int i = 0; i < s.query_heads; ++i) sinks.push_back(normal(random));
      call.sinks = sinks.data();
    }
    if (c.causal) {
      for (int i = 0; i < s.query_length; ++i) {
        last.push_back(i + s.key_length - s.query_length);
        first.push_back(c.window > 0 ? std::max(last[i] - c.window + 1, 0) : 0);
      }
      call.first = first.data();
      call.last = last.data();
    }
    make_mask(random);
  }

  void make_mask(std::mt19937& random) {
    if (c.mask == Mask::Kind::none) return;
    const Shape& s = c.shape;
    const bool keys_only = c.mask_shape == Case::MaskShape::keys_only;
    const int heads = c.mask_shape == Case::MaskShape::full ? s.query_heads : 1;
    const int rows = keys_only ? 1 : s.query_length;
    const int64_t column = c.mask_shape == Case::MaskShape::column_strided ? 2 : 1;
    const int64_t row = s.key_length * column, head = row * rows, batch = head * heads;
    const int bytes = c.mask == Mask::Kind::boolean ? 1 : bytes_of(c.mask_type);
    mask.resize(static_cast<size_t>(batch) * s.batch * bytes);
    std::uniform_real_distribution<float> uniform;
    for (int64_t i = 0; i < batch * s.batch; ++i) {
      const float chance = uniform(random);
      const bool hidden = i / row % rows < c.hidden_rows || i % row / column >= s.key_length - c.hidden_keys;
      if (c.mask == Mask::Kind::boolean) {
        mask[i] = chance < 0.7f && !hidden;
      } else {
        write(mask.data(), c.mask_type, i, chance < 0.1f || hidden ? c.additive_low : chance);
      }
    }
    call.mask = {c.mask, c.mask_type, mask.data(), batch, heads == 1 ? 0 : head, keys_only ? 0 : row, column};
  }

  int64_t outputs() const {
    const Shape& s = c.shape;
    return static_cast<int64_t>(s.batch) * s.query_heads * s.query_length * s.value_head_dim;
  }

  Case c;
  Call call;
  Array q, k, v, cotangent;
  std::vector<float> sinks;
  std::vector<int32_t> first, last;
  std::vector<char> mask;
};

}  // namespace flash
