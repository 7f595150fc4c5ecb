// Tiles of 16-bit elements in shared memory and products of them by a warpgroup, four warps (wgmma, compute capability
// 9.0): the second operand is read from there, and the threads go on meanwhile.
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

// What a product is told of an operand: the first row of a panel, and that eight rows further on it goes on alike.
__device__ inline uint64_t describe(const uint4* panel) {
  constexpr uint64_t swizzle = 1ull << 62, eight_rows = 8 * 2 * PANEL;
  return swizzle | eight_rows / 16 << 32 | 1ull << 16 | shared_address(panel) / 16;
}

// A product of [64, 16] and [16, 64], for which the sums are 8 tiles of 8 columns. What is quoted is how it
// names its operands.
#define PRODUCT(type, operands, add, transposed, ...)                                                            \
  asm volatile("{.reg .pred p; setp.ne.b32 p, " add ", 0; wgmma.mma_async.sync.aligned.m64n64k16.f32." type "."  \
               type " {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,"   \
               "%24,%25,%26,%27,%28,%29,%30,%31}, " operands ", p, 1, 1, " transposed ";}"                       \
               : TILE(0), TILE(1), TILE(2), TILE(3), TILE(4), TILE(5), TILE(6), TILE(7)                          \
               : __VA_ARGS__)
#define TILE(n) "+f"(sums[n][0]), "+f"(sums[n][1]), "+f"(sums[n][2]), "+f"(sums[n][3])
#define TYPED_PRODUCT(...)           \
  if constexpr (is_half<T>) {        \
    PRODUCT("f16", __VA_ARGS__);     \
  } else {                           \
    PRODUCT("bf16", __VA_ARGS__);    \
  }

// Starts sums = a b, or += with `add`, of a in registers, 16 rows for each warp; b lies transposed, as keys do.
template <typename T>
__device__ inline void start_product_of_keys(float (&sums)[8][4], const uint32_t (&a)[4], uint64_t b, bool add) {
  TYPED_PRODUCT("{%32,%33,%34,%35}, %36", "%37", "0", "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int(add)))
}

// The same with a in shared memory.
template <typename T>
__device__ inline void start_product_of_keys(float (&sums)[8][4], uint64_t a, uint64_t b, bool add) {
  TYPED_PRODUCT("%32, %33", "%34", "0, 0", "l"(a), "l"(b), "r"(int(add)))
}

// Starts sums += a b; b lies as it is, as values do.
template <typename T>
__device__ inline void start_product_of_values(float (&sums)[8][4], const uint32_t (&a)[4], uint64_t b) {
  TYPED_PRODUCT("{%32,%33,%34,%35}, %36", "1", "1", "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))
}
#undef TYPED_PRODUCT
#undef TILE
#undef PRODUCT

// Products that follow may use registers as they are now.
__device__ inline void open_products() { asm volatile("wgmma.fence.sync.aligned;" : : : "memory"); }

// Those that were started since the last call are a group.
__device__ inline void close_products() { asm volatile("wgmma.commit_group.sync.aligned;" : : : "memory"); }

// Waits until at most PENDING groups are left, and `sums` are of none of them.
template <int PENDING, int TILES>
__device__ inline void wait_for_products(float (&sums)[TILES][4]) {
  asm volatile("wgmma.wait_group.sync.aligned %0;" : : "n"(PENDING) : "memory");
#pragma unroll
  for (int n = 0; n < TILES; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) asm volatile("" : "+f"(sums[n][i]) : : "memory");  // not to be read before
  }
}

// The same of copies, which products may read then.
__device__ inline void close_copies() { asm volatile("cp.async.commit_group;" : : : "memory"); }

template <int PENDING>
__device__ inline void wait_for_copies() {
  asm volatile("cp.async.wait_group %0; fence.proxy.async.shared::cta;" : : "n"(PENDING) : "memory");
}

// A barrier in shared memory. Its phases end one after the other, each with as many arrivals as it was made for.
struct Barrier {
  uint64_t state;

  __device__ void make(int arrivals) {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" : : "r"(shared_address(this)), "r"(arrivals) : "memory");
  }

  __device__ void arrive() {
    asm volatile("mbarrier.arrive.shared.b64 _, [%0];" : : "r"(shared_address(this)) : "memory");
  }

  // Until the phase of that number has ended.
  __device__ void wait(int phase) {
    asm volatile("{.reg .pred done; again: mbarrier.try_wait.parity.shared.b64 done, [%0], %1; @!done bra again;}"
                 :
                 : "r"(shared_address(this)), "r"(phase % 2)
                 : "memory");
  }
};

// Two tiles in turn, one for each block of keys, which a warpgroup fills and others read.
struct Ring {
  uint4* tiles;
  int chunks;  // of a tile
  Barrier *full, *empty;

  // Both kinds of `arrivals`: of threads that fill it, and of warps that read.
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
