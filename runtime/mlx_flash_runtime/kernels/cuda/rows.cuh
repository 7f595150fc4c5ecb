// Numbers of each type, and rows of them on their way from memory to shared memory.

#pragma once

#include "instructions.cuh"

namespace flash {

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

}  // namespace flash
