// Results of products on their way to memory. A lane has two rows of a warp's 16, and there of every
// 8 columns one pair: see `score` in products.cuh.

#pragma once

#include "rows.cuh"

namespace flash {

// Rows of results in memory, whose elements lie together: `stride` elements from one to the next.
template <typename T>
struct ResultRows {
  T* data;
  int64_t stride;
};

template <int TILES>
__device__ inline void multiply_rows(float (&result)[TILES][4], const float (&by)[2]) {
#pragma unroll
  for (int m = 0; m < TILES; ++m) {
#pragma unroll
    for (int i = 0; i < 4; ++i) result[m][i] *= by[i / 2];
  }
}

// Writes this lane's rows, `row` and `row + 8` of `rows` with DIM elements, multiplied with `by`.
template <typename T, int DIM, int TILES>
__device__ inline void write_rows(const float (&result)[TILES][4], const float (&by)[2],
                                  const ResultRows<T>& out, int row, int rows) {
  const int lane_pair = threadIdx.x % 4;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (row + 8 * r >= rows) continue;
#pragma unroll
    for (int m = 0; m < TILES; ++m) {
      const int column = 8 * m + 2 * lane_pair;
      T* to = out.data + (row + 8 * r) * out.stride + column;
      const float low = result[m][2 * r] * by[r], high = result[m][2 * r + 1] * by[r];
      if (DIM % 2 == 0 && column < DIM) {
        if constexpr (sizeof(T) == 4) {
          *reinterpret_cast<float2*>(to) = {low, high};
        } else {
          *reinterpret_cast<uint32_t*>(to) = pack<T>(low, high);
        }
      } else if (column < DIM) {
        to[0] = narrow<T>(low);
        if (column + 1 < DIM) to[1] = narrow<T>(high);
      }
    }
  }
}

}  // namespace flash
