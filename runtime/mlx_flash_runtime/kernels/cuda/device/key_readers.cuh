// Keys and values on their way from memory to the registers of a product, 8 numbers of a row at a
// time, as they are or quantized.

#pragma once

#include "rows.cuh"

namespace flash {

// Keys or values of one head. `read` starts to read 8 neighbours of a row, which `unpack` makes
// numbers of 16 bits.
template <typename T, bool WHOLE>
struct Plain {
  using Packed = uint4;
  Rows<T> rows;

  __device__ Packed read(int row, int column) const {
    const T* from = rows.data + row * rows.stride + column * rows.step;
    if constexpr (WHOLE) return load_16_bytes(from);
    uint4 value;
#pragma unroll
    for (int i = 0; i < 8; ++i) reinterpret_cast<T*>(&value)[i] = from[i * rows.step];
    return value;
  }

  __device__ uint4 unpack(const Packed& packed) const { return packed; }
};

// The same as `mx.quantize` packs them: words of BITS for each number, and for GROUP of them a
// scale and a bias.
template <typename T, int BITS, int GROUP>
struct Quantized {
  struct Packed {
    uint32_t words[BITS / 4];
    T scale, bias;
  };
  Rows<uint32_t> words;
  Rows<T> scales, biases;

  __device__ Packed read(int row, int column) const {
    Packed packed;
#pragma unroll
    for (int i = 0; i < BITS / 4; ++i) {
      const int word = column * BITS / 32 + i;
      packed.words[i] = load_word(words.data + row * words.stride + word * words.step);
    }
    packed.scale = scales.data[row * scales.stride + column / GROUP * scales.step];
    packed.bias = biases.data[row * biases.stride + column / GROUP * biases.step];
    return packed;
  }

  __device__ uint4 unpack(const Packed& packed) const {
    const float scale = widen(packed.scale), bias = widen(packed.bias);
    uint32_t pairs[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float pair[2];
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int bit = (2 * i + j) * BITS;
        const uint32_t number = packed.words[bit / 32] >> bit % 32 & ((1u << BITS) - 1);
        // 2^23 + number, without a conversion: those are slow.
        pair[j] = __fmaf_rn(__uint_as_float(0x4b000000 | number) - 8388608.0f, scale, bias);
      }
      pairs[i] = pack<T>(pair[0], pair[1]);
    }
    return {pairs[0], pairs[1], pairs[2], pairs[3]};
  }
};

}  // namespace flash
