// Tiles of 16-bit elements in shared memory for products of a warpgroup, four warps (wgmma, compute
// capability 9.0): the second operand is read from there, and the threads go on meanwhile.
//
// A tile's rows lie in panels of 64 elements, 128 bytes, whose eight chunks of 16 bytes are
// permuted by the row ("128-byte swizzle" in the manual of PTX): the same chunk of eight rows then
// lies in all 32 banks, and rows and columns are both read without bank conflicts. The permutation
// is one of addresses and repeats after eight rows, so tiles begin at multiples of 1,024 bytes.

#pragma once

#include "rows.cuh"

namespace flash {

constexpr int WARPGROUP = 128;  // threads

// Registers of each thread. The kernel starts with as many for every thread as the bounds of
// attention_tiles.py and gradient_tiles.py let the compiler use. Then setmaxnreg, which counts by eights, takes from the producer,
// which only copies, and gives to the consumers, which hold scores, weights and results; the sum
// stays. A multiprocessor has 65,536 registers:
//   1 consumer, two blocks of 256 threads at once: 65,536 / 512 = 128 each to start with,
//     and 128 threads x (32 + 224) = 32,768 = 256 threads x 128;
//   2 consumers, one block of 384 threads: 65,536 / 384 = 170, by eights 168 each,
//     and 128 threads x (40 + 2 x 232) = 64,512 = 384 threads x 168.
constexpr int producer_registers(int consumers) { return consumers == 1 ? 32 : 40; }
constexpr int consumer_registers(int consumers) { return consumers == 1 ? 224 : 232; }

template <bool VALUE>
struct Constant {
  static constexpr bool value = VALUE;
};

constexpr int PANEL = 64;  // elements: 128 bytes, the widest swizzle that there is
__host__ __device__ constexpr int panels(int dim) { return (dim + PANEL - 1) / PANEL; }

// Chunks of 16 bytes from the start of a tile of `in_tile` rows to a row's chunk.
__host__ __device__ constexpr int swizzled(int row, int chunk, int in_tile) {
  return (chunk / 8 * in_tile + row) * 8 + (chunk % 8 ^ row % 8);
}

// Fills a tile of IN_TILE rows of DIM elements from the first `count` rows, by a warpgroup; what is
// beyond them or DIM is zeros.
template <typename T, int DIM, int IN_TILE>
__device__ void load_panels(uint4* tile, const Rows<T>& rows, int count) {
  // Rows of a panel that a warpgroup copies at once: 128 threads of 16 bytes are 16 rows of 128
  // bytes.
  constexpr int at_once = 16;
  const int first = threadIdx.x / 8 % at_once, column = threadIdx.x % 8 * 8;
  tile += swizzled(first, threadIdx.x % 8, IN_TILE);
  if (!rows.is_whole()) {
#pragma unroll 1
    for (int i = 0; i < IN_TILE / at_once * panels(DIM); ++i) {
      const int row = i / panels(DIM) * at_once, panel = i % panels(DIM);
      const bool inside = first + row < count && panel * PANEL + column < DIM;
      copy_chunk<T, DIM>(tile + (panel * IN_TILE + row) * 8, rows, first + row,
                         panel * PANEL + column, inside, false);
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

// Tiles that are filled and read in turn, STAGES of them: while the consumers read one, the producer
// fills the next. One warpgroup fills them and others read them. Each has two barriers, where those
// arrive who have filled it, or have read it.
template <int STAGES>
struct Ring {
  uint4* tiles;
  int chunks;  // of a tile
  Barrier *full, *empty;  // STAGES of each

  // For so many threads that fill a tile, each of which arrives, and warps that read it, of each of
  // which one lane does.
  __device__ void make(int threads, int warps) {
    for (int i = 0; i < STAGES; ++i) full[i].make(threads), empty[i].make(warps);
  }

  __device__ uint4* tile(int block) const { return tiles + block % STAGES * chunks; }

  __device__ void wait_until_empty(int block) {
    if (block >= STAGES) empty[block % STAGES].wait(block / STAGES - 1);
  }

  __device__ void wait_until_full(int block) { full[block % STAGES].wait(block / STAGES); }

  __device__ void arrive_full(int block) { full[block % STAGES].arrive(); }

  // The same as soon as this thread's copies are there; the thread goes on meanwhile.
  __device__ void arrive_full_when_copied(int block) {
    full[block % STAGES].arrive_when_copied();
  }

  __device__ void arrive_empty(int block) {
    if (threadIdx.x % WARP == 0) empty[block % STAGES].arrive();
  }
};

}  // namespace flash
