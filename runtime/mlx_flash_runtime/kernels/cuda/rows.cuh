// Numbers of each type, and rows of them on their way from memory to shared memory.
//
// Nothing of CUDA's or MLX's headers is included, so that it compiles in a fraction of a second: what it needs of them
// is in prelude.cuh.

#pragma once

namespace flash {

template <typename T>
constexpr bool is_half = false;
template <>
constexpr bool is_half<__half> = true;

__device__ inline float infinity() { return __uint_as_float(0x7f800000); }

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

template <typename T>
__device__ inline T narrow(float x) {
  if constexpr (sizeof(T) == 4) {
    return x;
  } else {
    uint16_t bits = pack<T>(x, 0);
    return reinterpret_cast<T&>(bits);
  }
}

template <typename T>
__device__ inline float widen(T x) {
  if constexpr (sizeof(T) == 4) {
    return x;
  } else {
    const uint16_t bits = reinterpret_cast<uint16_t&>(x);
    if constexpr (is_half<T>) {
      float wide;
      asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(bits));
      return wide;
    } else {
      return __uint_as_float(uint32_t(bits) << 16);
    }
  }
}

// What instructions take for the address of something in shared memory.
__device__ inline uint32_t shared_address(const void* at) { return static_cast<uint32_t>(__cvta_generic_to_shared(at)); }

// Rows of a matrix in memory; `step` is the stride of its last axis.
template <typename T>
struct Rows {
  const T* data;
  int64_t stride, step;

  // Whether it can be read by 16 bytes.
  __device__ bool is_whole() const {
    return step == 1 && stride % (16 / sizeof(T)) == 0 && reinterpret_cast<uintptr_t>(data) % 16 == 0;
  }
};

// 16 bytes to shared memory, or zeros, while the thread goes on.
__device__ inline void copy_in_background(void* to, const void* from, bool inside) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" : : "r"(shared_address(to)), "l"(from), "r"(inside ? 16 : 0));
}

// Copies 16 bytes of a row, from `column` on, or zeros where they are not `inside` or beyond DIM; if all of them are
// aligned (`whole`) and of 16 bits each, while the thread goes on.
template <typename T, int DIM>
__device__ inline void copy_chunk(void* to, const Rows<T>& rows, int row, int column, bool inside, bool whole) {
  constexpr int in_chunk = 16 / sizeof(T);
  const T* from = inside ? rows.data + row * rows.stride + column * rows.step : rows.data;
  if (sizeof(T) == 2 && whole) {
    copy_in_background(to, from, inside);
    return;
  }
  uint4 value = {0, 0, 0, 0};
  if (inside) {
    if (whole) {
      value = *reinterpret_cast<const uint4*>(from);
    } else {
      T* elements = reinterpret_cast<T*>(&value);
      for (int j = 0; j < in_chunk && column + j < DIM; ++j) elements[j] = from[j * rows.step];
    }
  }
  if constexpr (sizeof(T) == 4) {
    value = {tf32(__uint_as_float(value.x)), tf32(__uint_as_float(value.y)), tf32(__uint_as_float(value.z)),
             tf32(__uint_as_float(value.w))};
  }
  *reinterpret_cast<uint4*>(to) = value;
}

// Four 8 x 8 matrices of 16 bits; each lane gives the address of one row, and gets a pair of each.
__device__ inline void load_matrices(uint32_t (&b)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3])
               : "r"(shared_address(row)));
}

}  // namespace flash
