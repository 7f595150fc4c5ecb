// Rows of attention's three types as rows of floats, and back.
#pragma once

#include "attention.h"
#include "simd.h"

namespace flash {

struct Float16 {
  uint16_t bits;
};

struct BFloat16 {
  uint16_t bits;
};

using ShortVec = uint16_t __attribute__((vector_size(lanes * 2)));

inline Vec widen(Vec x, float) { return x; }

inline Vec widen(ShortVec bits, BFloat16) { return (Vec)(__builtin_convertvector(bits, UintVec) << 16); }

inline Vec widen(ShortVec bits, Float16) {
  UintVec x = __builtin_convertvector(bits, UintVec);
  // The exponent's bias changes from 15 to 127 by a product with 2^112, which also makes small numbers normal ones.
  UintVec size = (UintVec)((Vec)((x & 0x7fffu) << 13) * 0x1p112f);
  size = size >= 0x47800000u ? size | 0x7f800000u : size;  // infinity and NaN
  return (Vec)(size | (x & 0x8000u) << 16);
}

// Rounded to nearest, ties to even. A NaN stays one.
inline ShortVec narrow(Vec x, BFloat16) {
  UintVec bits = (UintVec)x;
  UintVec rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  rounded = (bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16 | 0x40u) : rounded;
  return __builtin_convertvector(rounded, ShortVec);
}

inline ShortVec narrow(Vec x, Float16) {
  UintVec bits = (UintVec)x;
  UintVec sign = bits & 0x80000000u;
  UintVec size = bits ^ sign;
  UintVec normal = (size - (112u << 23) + 0xfffu + (size >> 13 & 1u)) >> 13;
  // Below 2^-14 the steps are of 2^-24: adding 0.5, whose last bit is worth that, rounds to them.
  UintVec small = (UintVec)((Vec)size + 0.5f) - 0x3f000000u;
  UintVec y = size < (113u << 23) ? small : normal;
  y = size >= 0x477ff000u ? UintVec{} + 0x7c00u : y;
  y = size > 0x7f800000u ? UintVec{} + 0x7e00u : y;
  return __builtin_convertvector(y | sign >> 16, ShortVec);
}

inline Vec load_as_float(const float* from) { return load(from); }

// A boolean, 0 or 1.
inline Vec load_as_float(const uint8_t* from) {
  using Bytes = uint8_t __attribute__((vector_size(lanes)));
  Bytes bytes;
  std::memcpy(&bytes, from, sizeof bytes);
  return __builtin_convertvector(__builtin_convertvector(bytes, IntVec), Vec);
}

template <class T>
inline Vec load_as_float(const T* from) {
  ShortVec bits;
  std::memcpy(&bits, from, sizeof bits);
  return widen(bits, T{});
}

inline void store_from_float(float* to, Vec x) { store(to, x); }

template <class T>
inline void store_from_float(T* to, Vec x) {
  ShortVec bits = narrow(x, T{});
  std::memcpy(to, &bits, sizeof bits);
}

// Reads `count` elements, times `scale`, and zeros up to the next whole vector.
template <class T>
inline void read_row(const T* from, int count, float scale, float* to) {
  int i = 0;
  for (; i + lanes <= count; i += lanes) store(to + i, load_as_float(from + i) * scale);
  if (i < count) {
    T last[lanes] = {};
    std::memcpy(last, from + i, (count - i) * sizeof(T));
    store(to + i, load_as_float(last) * scale);
  }
}

// Whether none of the elements is infinite or NaN.
template <class T>
inline bool is_finite(const T* from, int count) {
  Vec nothing{};
  int i = 0;
  for (; i + lanes <= count; i += lanes) nothing += load_as_float(from + i) * 0.0f;
  if (i < count) {
    T last[lanes] = {};
    std::memcpy(last, from + i, (count - i) * sizeof(T));
    nothing += load_as_float(last) * 0.0f;
  }
  return sum(nothing) == 0;
}

template <class T>
inline void write_row(const float* from, int count, T* to) {
  int i = 0;
  for (; i + lanes <= count; i += lanes) store_from_float(to + i, load(from + i));
  if (i < count) {
    T last[lanes];
    store_from_float(last, load(from + i));
    std::memcpy(to + i, last, (count - i) * sizeof(T));
  }
}

// to[column][row] = from[row][column]: rows and columns are whole vectors.
inline void transpose(const float* from, int64_t from_stride, int rows, int columns, float* to, int64_t to_stride) {
  for (int row = 0; row < rows; row += lanes) {
    for (int column = 0; column < columns; column += lanes) {
      Vec square[lanes];
      for (int i = 0; i < lanes; ++i) square[i] = load(from + (row + i) * from_stride + column);
      transpose(square);
      for (int i = 0; i < lanes; ++i) store(to + (column + i) * to_stride + row, square[i]);
    }
  }
}

// Calls use(T{}) with the C++ type of `type`.
template <class Use>
inline void with_type(Type type, Use use) {
  switch (type) {
    case Type::float32:
      return use(float{});
    case Type::float16:
      return use(Float16{});
    case Type::bfloat16:
      return use(BFloat16{});
  }
}

}  // namespace flash
