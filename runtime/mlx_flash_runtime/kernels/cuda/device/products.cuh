// Tiles of rows in shared memory and products of them on tensor cores (mma.sync, compute capability
// 8.0 and later): float32 as TF32, float16 and bfloat16 as such, sums in float32.
//
// Rows lie there as 32-bit words, one TF32 number or two 16-bit ones each, so that the fragments
// (the part of an operand that one lane holds) of Q K^T are the same words for every type.

#pragma once

#include "rows.cuh"

namespace flash {

// 32-bit words of a row of `dim` elements, in whole products: one takes 8 words of it, which is 32
// bytes of either type.
template <typename T>
__host__ __device__ constexpr int words(int dim) {
  constexpr int in_product = 32 / sizeof(T);
  return (dim + in_product - 1) / in_product * 8;
}

// Words from one row of a tile to the next: 4 more, 16 bytes, so that rows do not begin at the same
// of shared memory's 32 banks. A row is 8n words, so the next one begins 8n + 4 banks further on,
// which is an odd number of fours: eight rows begin at eight different fours of the 32 banks. A
// fragment is eight rows (lane / 4) of four words (lane % 4): each lane has a bank of its own.
template <typename T>
__host__ __device__ constexpr int row_stride(int dim) {
  return words<T>(dim) + 4;
}

// Fills a tile of `in_tile` rows of DIM elements from the first `count` rows; what is beyond them
// or DIM is zeros. The tile is whole for everyone after `synchronize`.
template <typename T, int DIM>
__device__ void load(uint32_t* tile, Rows<T> rows, int count, int in_tile) {
  const int threads = blockDim.x;
  constexpr int in_chunk = 16 / sizeof(T), chunks = words<T>(DIM) / 4, stride = row_stride<T>(DIM);
  const bool whole = rows.is_whole() && DIM % in_chunk == 0;
  for (int i = threadIdx.x; i < in_tile * chunks; i += threads) {
    const int row = i / chunks, chunk = i % chunks, column = chunk * in_chunk;
    copy_chunk<T, DIM>(tile + row * stride + chunk * 4, rows, row, column,
                       row < count && column < DIM, whole);
  }
}

// Waits until what this thread loads is there, and until all threads of the block are here.
__device__ inline void synchronize() {
  wait_for_copies();
  __syncthreads();
}

// A warp's queries as the first operand of the products with all keys. They stay in registers where
// they are small: 4 registers for each of the products along a row, of which a head dim of 128 in
// 16 bits has 8, so at most 32 of a thread's registers; else they are read from shared memory each
// time.
template <typename T, int D>
constexpr bool fits_registers = sizeof(T) == 2 && words<T>(D) <= 64;

template <typename T, int D, bool KEPT = fits_registers<T, D>>
struct Queries {
  static constexpr int stride = row_stride<T>(D), steps = words<T>(D) / 8;
  static constexpr bool kept = KEPT;
  const uint32_t* tile;  // this lane's first word
  uint32_t own[kept ? steps : 1][4];

  __device__ explicit Queries(const uint32_t* rows)
      : tile(rows + threadIdx.x % WARP / 4 * stride + threadIdx.x % 4) {
    if constexpr (kept) {
#pragma unroll
      for (int step = 0; step < steps; ++step) read(own[step], step);
    }
  }

  __device__ void get(uint32_t (&a)[4], int step) const {
    if constexpr (kept) {
#pragma unroll
      for (int i = 0; i < 4; ++i) a[i] = own[step][i];
    } else {
      read(a, step);
    }
  }

  __device__ void read(uint32_t (&a)[4], int step) const {
    const uint32_t* q = tile + 8 * step;
    a[0] = q[0], a[1] = q[8 * stride], a[2] = q[4], a[3] = q[8 * stride + 4];
  }
};

// scores[16, KEYS] of a warp's queries. Lane l has of each product's 16 x 8 scores the rows l / 4
// and l / 4 + 8, and there the columns 2 (l % 4) and the next one. As an operand it has of a row of
// keys the words l % 4 and l % 4 + 4.
template <typename T, int D, int KEYS, bool KEPT>
__device__ void score(float (&scores)[KEYS / 8][4], const Queries<T, D, KEPT>& queries,
                      const uint32_t* keys) {
  constexpr int stride = row_stride<T>(D);
  const int lane = threadIdx.x % WARP;
#pragma unroll
  for (int step = 0; step < words<T>(D) / 8; ++step) {
    uint32_t a[4];
    queries.get(a, step);
    if constexpr (sizeof(T) == 2) {
      const uint32_t* k = keys + (lane / 16 * 8 + lane % 8) * stride + lane / 8 % 2 * 4 + 8 * step;
#pragma unroll
      for (int n = 0; n < KEYS / 8; n += 2) {
        uint32_t b[4];
        load_matrices(b, k + 8 * n * stride);
        multiply<T>(scores[n], a, b[0], b[1]);
        multiply<T>(scores[n + 1], a, b[2], b[3]);
      }
    } else {
      const uint32_t* k = keys + lane / 4 * stride + lane % 4 + 8 * step;
#pragma unroll
      for (int n = 0; n < KEYS / 8; ++n)
        multiply<T>(scores[n], a, k[8 * n * stride], k[8 * n * stride + 4]);
    }
  }
}

// out[16, DV] += weights[16, KEYS] values[KEYS, DV]: the weights go from the layout of a result
// to that of an operand without leaving the lane. In TF32 that is so because the sum over keys may
// take them in any order: the keys 2i and 2i + 1 stand as i and i + 4 in a product.
template <typename T, int DV, int KEYS>
__device__ void add_values(float (&out)[words<T>(DV) * 4 / sizeof(T) / 8][4],
                           const float (&weights)[KEYS / 8][4], const uint32_t* values) {
  constexpr int stride = row_stride<T>(DV), tiles = words<T>(DV) * 4 / sizeof(T) / 8;
  const int lane = threadIdx.x % WARP, column = lane / 4, pair = lane % 4;
  if constexpr (sizeof(T) == 4) {
#pragma unroll
    for (int n = 0; n < KEYS / 8; ++n) {
      const float (&w)[4] = weights[n];
      const uint32_t a[4] = {tf32(w[0]), tf32(w[2]), tf32(w[1]), tf32(w[3])};
      const uint32_t* v = values + (8 * n + 2 * pair) * stride + column;
#pragma unroll
      for (int m = 0; m < tiles; ++m) multiply<T>(out[m], a, v[8 * m], v[stride + 8 * m]);
    }
  } else {
#pragma unroll
    for (int n = 0; n < KEYS / 8; n += 2) {
      const float (&low)[4] = weights[n];
      const float (&high)[4] = weights[n + 1];
      const uint32_t a[4] = {pack<T>(low[0], low[1]), pack<T>(low[2], low[3]),
                             pack<T>(high[0], high[1]), pack<T>(high[2], high[3])};
      const uint32_t* v = values + (8 * n + lane % 16) * stride + lane / 16 * 4;
#pragma unroll
      for (int m = 0; m < tiles; m += 2) {
        uint32_t b[4];
        load_matrices<true>(b, v + 4 * m);
        multiply<T>(out[m], a, b[0], b[1]);
        multiply<T>(out[m + 1], a, b[2], b[3]);
      }
    }
  }
}

}  // namespace flash
