// The products of attention, register-blocked: c (+)= a b, where b and c hold whole vectors side by side and the
// elements of a are broadcast.
//
// c is cut into tiles of `tile_rows` x `tile_vectors` that stay in registers over the whole depth, as in Goto and van de
// Geijn, "Anatomy of high-performance matrix multiplication" (2008).
#pragma once

#include "simd.h"

namespace flash {

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int tile_vectors = 4;  // 6 x 4 sums, 4 vectors and a broadcast of 32 registers
#else
constexpr int tile_vectors = 2;  // 6 x 2 sums, 2 vectors and a broadcast of 16 registers
#endif
constexpr int tile_rows = 6;

// How a(row, k) lies in memory.
enum class Order { rows_outer, depth_outer };  // a[row * stride + k], a[k * stride + row]

struct Product {
  const float* a;
  int64_t a_stride;
  const float* b;  // [depth][vectors * lanes]
  int64_t b_stride;
  float* c;  // [rows][vectors * lanes]
  int64_t c_stride;
  int depth;
};

template <int Rows, int Vectors, Order A, bool Add>
inline void multiply_tile(const Product& p) {
  Vec sums[Rows][Vectors];
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) sums[i][j] = Add ? load(p.c + i * p.c_stride + j * lanes) : Vec{};
  }
  const float* a = p.a;
  const float* b = p.b;
  const int64_t row = A == Order::rows_outer ? p.a_stride : 1;
  const int64_t step = A == Order::rows_outer ? 1 : p.a_stride;
  for (int k = 0; k < p.depth; ++k, a += step, b += p.b_stride) {
    Vec columns[Vectors];
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) columns[j] = load(b + j * lanes);
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i) {
      const float factor = a[i * row];
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) sums[i][j] += factor * columns[j];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) store(p.c + i * p.c_stride + j * lanes, sums[i][j]);
  }
}

template <int Rows, int Vectors, Order A, bool Add>
inline void multiply_last_rows(int rows, const Product& p) {
  if (rows == Rows) {
    multiply_tile<Rows, Vectors, A, Add>(p);
  } else if constexpr (Rows > 1) {
    multiply_last_rows<Rows - 1, Vectors, A, Add>(rows, p);
  }
}

template <int Vectors, Order A, bool Add>
inline void multiply_rows(int rows, Product p) {
  for (; rows >= tile_rows; rows -= tile_rows) {
    multiply_tile<tile_rows, Vectors, A, Add>(p);
    p.a += A == Order::rows_outer ? tile_rows * p.a_stride : tile_rows;
    p.c += tile_rows * p.c_stride;
  }
  multiply_last_rows<tile_rows - 1, Vectors, A, Add>(rows, p);
}

// c = a b, or c += a b where Add. Not inlined: each of the few kinds is compiled once.
template <Order A, bool Add>
[[gnu::noinline]] void multiply(int rows, int vectors, Product p) {
  for (; vectors >= tile_vectors; vectors -= tile_vectors) {
    multiply_rows<tile_vectors, A, Add>(rows, p);
    p.b += tile_vectors * lanes;
    p.c += tile_vectors * lanes;
  }
  if constexpr (tile_vectors > 3) {
    if (vectors == 3) multiply_rows<3, A, Add>(rows, p);
    if (vectors == 2) multiply_rows<2, A, Add>(rows, p);
  }
  if (vectors == 1) multiply_rows<1, A, Add>(rows, p);
}

}  // namespace flash
