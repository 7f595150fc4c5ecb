// Tiles of 16-bit elements in shared memory for products of a warpgroup, four warps (wgmma, compute capability 9.0): the
// second operand is read from there, and the threads go on meanwhile.
//
// A tile's rows lie in panels of 64 elements, 128 bytes, whose eight chunks are permuted by the row ("128-byte swizzle"
// in the manual of PTX): rows and columns are then both read without bank conflicts.

#pragma once

#include "rows.cuh"

namespace flash {

constexpr int PANEL = 64;
__host__ __device__ constexpr int panels(int dim) { return (dim + PANEL - 1) / PANEL; }

// Chunks of 16 bytes from the start of a tile of `in_tile` rows to a row's chunk.
__host__ __device__ constexpr int swizzled(int row, int chunk, int in_tile) {
  return (chunk / 8 * in_tile + row) * 8 + (chunk % 8 ^ row % 8);
}

// Fills a tile of IN_TILE rows of DIM elements from the first `count` rows, by a warpgroup; what is beyond them or DIM
// is zeros.
template <typename T, int DIM, int IN_TILE>
__device__ void load_panels(uint4* tile, const Rows<T>& rows, int count) {
  constexpr int at_once = 16;  // rows of a panel
  const int first = threadIdx.x / 8 % at_once, column = threadIdx.x % 8 * 8;
  tile += swizzled(first, threadIdx.x % 8, IN_TILE);
  if (!rows.is_whole()) {
#pragma unroll 1
    for (int i = 0; i < IN_TILE / at_once * panels(DIM); ++i) {
      const int row = i / panels(DIM) * at_once, panel = i % panels(DIM);
      const bool inside = first + row < count && panel * PANEL + column < DIM;
      copy_chunk<T, DIM>(tile + (panel * IN_TILE + row) * 8, rows, first + row, panel * PANEL + column, inside, false);
    }
    return;
  }
  const T* from = rows.data + first * rows.stride + column;
#pragma unroll
  for (int row = 0; row < IN_TILE; row += at_once) {
#pragma unroll
    for (int panel = 0; panel < panels(DIM); ++panel) {
      const bool inside = first + row < count && (DIM % PANEL == 0 || panel * PANEL + column < DIM);
      copy_in_background(tile + (panel * IN_TILE + row) * 8, from + panel * PANEL, inside);
    }
    from += at_once * rows.stride;
  }
}

// Two tiles in turn, one for each block of keys, which a warpgroup fills and others read.
struct Ring {
  uint4* tiles;
  int chunks;  // of a tile
  Barrier *full, *empty;

  // For so many threads that fill a tile, and warps that read it.
  __device__ void make(int threads, int warps) {
    for (int i = 0; i < 2; ++i) full[i].make(threads), empty[i].make(warps);
  }

  __device__ uint4* tile(int block) const { return tiles + block % 2 * chunks; }

  __device__ void wait_until_empty(int block) {
    if (block >= 2) empty[block % 2].wait(block / 2 - 1);
  }

  __device__ void wait_until_full(int block) { full[block % 2].wait(block / 2); }

  __device__ void is_full(int block) { full[block % 2].arrive(); }

  __device__ void is_read(int block) {
    if (threadIdx.x % 32 == 0) empty[block % 2].arrive();
  }
};

}  // namespace flash
