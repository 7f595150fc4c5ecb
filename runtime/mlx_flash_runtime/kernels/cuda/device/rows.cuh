// Numbers of each type, and rows of them on their way from memory to shared memory.
//
// What templates of all these files are made for:
//   T     the type of queries, keys and values: float, __half or __nv_bfloat16,
//   D     the head dim of queries and keys, DV that of values,
//   KIND  the kind of mask, one of MaskKind in softmax.cuh, M the type of an array's elements there.
// Capitals beside them are sizes that a file of Python beside this folder has chosen.

#pragma once

#include "instructions.cuh"

namespace flash {

// What the GPU's instructions set. An enum, as a constexpr here would be stored with the kernel.
enum : int {
  // Threads that run in step, each called a lane.
  WARP = 32,
  // Rows of a product of one warp: m16n8k8 in TF32, m16n8k16 in 16 bits.
  WARP_QUERIES = 16,
  // Rows of a product of a warpgroup, 16 for each of its four warps: m64n64k16.
  WARPGROUP_QUERIES = 64,
};

__device__ inline float infinity() { return __uint_as_float(0x7f800000); }

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
      return widen_half(bits);
    } else {
      return __uint_as_float(uint32_t(bits) << 16);
    }
  }
}

// The number that products take for `x`: float32 is rounded to TF32, whose last 13 bits are zeros.
template <typename T>
__device__ inline float multiplied(T x) {
  if constexpr (sizeof(T) == 4) {
    return __uint_as_float(tf32(x) & 0xffffe000);
  } else {
    return widen(x);
  }
}

// Rows of a matrix in memory, in elements from one to the next: `stride` for rows, `step` for the
// elements of a row.
template <typename T>
struct Rows {
  const T* data;
  int64_t stride, step;

  // Whether 16 bytes can be read at once: they lie together, at an address that 16 divides.
  __device__ bool is_whole() const {
    return step == 1 && stride % (16 / sizeof(T)) == 0 &&
           reinterpret_cast<uintptr_t>(data) % 16 == 0;
  }
};

// The rows of one head, and elements to those of the next one.
template <typename T>
struct HeadRows {
  Rows<T> rows;
  int64_t next;

  __device__ bool is_whole() const { return rows.is_whole() && next % (16 / sizeof(T)) == 0; }

  __device__ Rows<T> from(int row, int head = 0) const {
    return {rows.data + head * next + row * rows.stride, rows.stride, rows.step};
  }
};

// Copies 16 bytes of a row, from `column` on, to shared memory. What is not `inside` or beyond DIM
// becomes zeros. Rows of 16-bit elements that are `whole` are copied while the thread goes on;
// float32 goes through registers, where it is rounded to TF32.
template <typename T, int DIM>
__device__ inline void copy_chunk(void* to, const Rows<T>& rows, int row, int column, bool inside,
                                  bool whole) {
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
    value = {tf32(__uint_as_float(value.x)), tf32(__uint_as_float(value.y)),
             tf32(__uint_as_float(value.z)), tf32(__uint_as_float(value.w))};
  }
  *reinterpret_cast<uint4*>(to) = value;
}

}  // namespace flash
