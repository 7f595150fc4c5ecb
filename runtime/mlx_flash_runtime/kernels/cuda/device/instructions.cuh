// The GPU's instructions that C++ has no words for, a function each: this is all the assembly there
// is.
//
// Nothing of CUDA's or MLX's headers is included, so that it compiles in a fraction of a second:
// what it needs of them is in prelude.cuh.

#pragma once

namespace flash {

template <typename T>
constexpr bool is_half = false;
template <>
constexpr bool is_half<__half> = true;

__device__ inline uint32_t tf32(float x) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return bits;
}

__device__ inline float power_of_two(float x) {
  float y;
  asm volatile("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// To base two.
__device__ inline float logarithm(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Two numbers in 16 bits each, the first in the lower half.
template <typename T>
__device__ inline uint32_t pack(float low, float high) {
  uint32_t pair;
  if constexpr (is_half<T>) {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  } else {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  }
  return pair;
}

__device__ inline float widen_half(uint16_t bits) {
  float wide;
  asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(bits));
  return wide;
}

// What nobody writes while the kernel runs. Not moved by the compiler: it is read as early as it
// says.
__device__ inline uint4 load_16_bytes(const void* from) {
  uint4 x;
  asm volatile("ld.global.nc.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
               : "l"(from));
  return x;
}

__device__ inline uint32_t load_word(const void* from) {
  uint32_t x;
  asm volatile("ld.global.nc.u32 %0, [%1];" : "=r"(x) : "l"(from));
  return x;
}

// What other blocks of threads may have written while the kernel runs: not from a multiprocessor's
// own cache.
__device__ inline float4 load_written(const float4* from) {
  float4 x;
  asm volatile("ld.global.cg.v4.f32 {%0,%1,%2,%3}, [%4];"
               : "=f"(x.x), "=f"(x.y), "=f"(x.z), "=f"(x.w)
               : "l"(from)
               : "memory");
  return x;
}

__device__ inline float2 load_written(const float2* from) {
  float2 x;
  asm volatile("ld.global.cg.v2.f32 {%0,%1}, [%2];" : "=f"(x.x), "=f"(x.y) : "l"(from) : "memory");
  return x;
}

__device__ inline uint64_t load_written(const uint64_t* from) {
  uint64_t x;
  asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(x) : "l"(from) : "memory");
  return x;
}

__device__ inline void store_flag(uint64_t* to, uint64_t flag) {
  asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" : : "l"(to), "l"(flag) : "memory");
}

// What this thread has written is there for those who read, after a fence of their own, what it
// writes from here on; of two threads that write, fence and read, one at least reads what the other
// wrote.
__device__ inline void fence_memory() { asm volatile("fence.sc.gpu;" : : : "memory"); }

// What instructions take for the address of something in shared memory.
__device__ inline uint32_t shared_address(const void* at) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(at));
}

// Copies 16 bytes to shared memory, or zeros, while the thread goes on.
__device__ inline void copy_in_background(void* to, const void* from, bool inside) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(shared_address(to)), "l"(from), "r"(inside ? 16 : 0));
}

// Waits for all copies of this thread.
__device__ inline void wait_for_copies() { asm volatile("cp.async.wait_all;" : : : "memory"); }

// Copies that this thread started since the last call are committed: they are waited for together.
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" : : : "memory"); }

// Waits until of this thread's commits the last PENDING at most are under way; products of
// warpgroups may read what the others have copied.
template <int PENDING>
__device__ inline void wait_for_committed_copies() {
  asm volatile("cp.async.wait_group %0; fence.proxy.async.shared::cta;"
               :
               : "n"(PENDING)
               : "memory");
}

// Products of warpgroups that follow may read what others have copied to shared memory and this
// thread knows to be there.
__device__ inline void fence_copies() {
  asm volatile("fence.proxy.async.shared::cta;" : : : "memory");
}

// Four 8 x 8 matrices of 16 bits, or their transposes; each lane gives the address of one row, and
// gets a pair of each.
template <bool TRANSPOSED = false>
__device__ inline void load_matrices(uint32_t (&b)[4], const void* row) {
#define LOAD_MATRICES(kind)                                                            \
  asm volatile("ldmatrix.sync.aligned.m8n8.x4" kind ".shared.b16 {%0,%1,%2,%3}, [%4];" \
               : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3])                        \
               : "r"(shared_address(row)))
  if constexpr (TRANSPOSED) {
    LOAD_MATRICES(".trans");
  } else {
    LOAD_MATRICES("");
  }
#undef LOAD_MATRICES
}

// c[16, 8] += a[16, k] b[k, 8] of a warp, with k of 8 TF32 or 16 16-bit elements.
template <typename T>
__device__ inline void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#define MULTIPLY(shape, type)                                                                 \
  asm volatile("mma.sync.aligned." shape ".row.col.f32." type "." type ".f32 {%0,%1,%2,%3}, " \
               "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                                       \
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                               \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))
  if constexpr (sizeof(T) == 4) {
    MULTIPLY("m16n8k8", "tf32");
  } else if constexpr (is_half<T>) {
    MULTIPLY("m16n8k16", "f16");
  } else {
    MULTIPLY("m16n8k16", "bf16");
  }
#undef MULTIPLY
}

// What a product of a warpgroup is told of an operand in shared memory ("matrix descriptor" in the
// manual of PTX), in numbers of 16 bytes: from bit 0 on the address of a panel's first row, laid
// out as in warpgroup_products.cuh; from bit 16 on a stride that this layout has no use for (1 by
// the manual); from bit 32 on the bytes from eight rows to the next eight; from bit 62 on 1 for the
// 128-byte swizzle.
__device__ inline uint64_t matrix_descriptor(const uint4* panel) {
  constexpr uint64_t swizzle = 1ull << 62, eight_rows = 8 * 128;
  return swizzle | eight_rows / 16 << 32 | 1ull << 16 | shared_address(panel) / 16;
}

// A product of [64, 16] and [16, 64], for which the sums are 8 tiles of 8 columns. What is quoted
// is how it names its operands.
#define PRODUCT(type, operands, add, transposed, ...)                                            \
  asm volatile("{.reg .pred p; setp.ne.b32 p, " add ", 0; "                                      \
               "wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type                       \
               " {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,"    \
               "%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}, " operands ", p, 1, 1, " transposed \
               ";}"                                                                              \
               : TILE(0), TILE(1), TILE(2), TILE(3), TILE(4), TILE(5), TILE(6), TILE(7)          \
               : __VA_ARGS__)
#define TILE(n) "+f"(sums[n][0]), "+f"(sums[n][1]), "+f"(sums[n][2]), "+f"(sums[n][3])
#define TYPED_PRODUCT(...)           \
  if constexpr (is_half<T>) {        \
    PRODUCT("f16", __VA_ARGS__);     \
  } else {                           \
    PRODUCT("bf16", __VA_ARGS__);    \
  }

// Starts sums = a b, or += with `add`, of a in registers, 16 rows for each warp; b lies transposed,
// as keys do.
template <typename T>
__device__ inline void start_product_of_keys(float (&sums)[8][4], const uint32_t (&a)[4],
                                             uint64_t b, bool add) {
  TYPED_PRODUCT("{%32,%33,%34,%35}, %36", "%37", "0", "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]),
                "l"(b), "r"(int(add)))
}

// The same with a in shared memory.
template <typename T>
__device__ inline void start_product_of_keys(float (&sums)[8][4], uint64_t a, uint64_t b,
                                             bool add) {
  TYPED_PRODUCT("%32, %33", "%34", "0, 0", "l"(a), "l"(b), "r"(int(add)))
}

// Starts sums += a b; b lies as it is, as values do.
template <typename T>
__device__ inline void start_product_of_values(float (&sums)[8][4], const uint32_t (&a)[4],
                                               uint64_t b) {
  TYPED_PRODUCT("{%32,%33,%34,%35}, %36", "1", "1", "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]),
                "l"(b))
}
#undef TYPED_PRODUCT
#undef TILE
#undef PRODUCT

// Products that follow may use registers as they are now.
__device__ inline void fence_products() {
  asm volatile("wgmma.fence.sync.aligned;" : : : "memory");
}

// Products that were started since the last call are committed: they are waited for together.
__device__ inline void commit_products() {
  asm volatile("wgmma.commit_group.sync.aligned;" : : : "memory");
}

// Waits until at most the last PENDING commits are under way, of which `sums` are none.
template <int PENDING, int TILES>
__device__ inline void wait_for_products(float (&sums)[TILES][4]) {
  asm volatile("wgmma.wait_group.sync.aligned %0;" : : "n"(PENDING) : "memory");
#pragma unroll
  for (int n = 0; n < TILES; ++n) {
#pragma unroll
    // Says that `sums` change here, so that the compiler reads none of them before.
    for (int i = 0; i < 4; ++i) asm volatile("" : "+f"(sums[n][i]) : : "memory");
  }
}

// Has each thread of this warpgroup have COUNT registers, fewer or more than it was started with.
template <int COUNT>
__device__ inline void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" : : "n"(COUNT));
}

template <int COUNT>
__device__ inline void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" : : "n"(COUNT));
}

// A barrier in shared memory (mbarrier). Its phases end one after the other, each with as many
// arrivals as it was made for.
struct Barrier {
  uint64_t state;

  __device__ void make(int arrivals) {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;"
                 :
                 : "r"(shared_address(this)), "r"(arrivals)
                 : "memory");
  }

  __device__ void arrive() {
    asm volatile("mbarrier.arrive.shared.b64 _, [%0];" : : "r"(shared_address(this)) : "memory");
  }

  // Arrives as soon as all copies that this thread has started are there.
  __device__ void arrive_when_copied() {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];"
                 :
                 : "r"(shared_address(this))
                 : "memory");
  }

  // Until the phase of that number has ended. The GPU tells only whether the running phase is an
  // even or an odd one, so nobody may be two phases behind.
  __device__ void wait(int phase) {
    asm volatile("{.reg .pred done; "
                 "again: mbarrier.try_wait.parity.shared.b64 done, [%0], %1; @!done bra again;}"
                 :
                 : "r"(shared_address(this)), "r"(phase % 2)
                 : "memory");
  }
};

}  // namespace flash
