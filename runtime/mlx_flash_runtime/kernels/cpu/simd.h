// One vector of floats, as wide as the machine's registers, by the vector extensions of GCC and Clang: one source for
// AVX-512, AVX2, SSE and NEON. A SIMD library (Highway, xsimd, Eigen) would add a download to a build that must run
// anywhere MLX is installed, for what are here a dozen operations that the compilers know themselves.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

namespace flash {

#if defined(__AVX512F__)
constexpr int lanes = 16;
#elif defined(__AVX2__)
constexpr int lanes = 8;
#else
constexpr int lanes = 4;
#endif

using Vec = float __attribute__((vector_size(lanes * 4)));
using IntVec = int32_t __attribute__((vector_size(lanes * 4)));
using UintVec = uint32_t __attribute__((vector_size(lanes * 4)));

// What a masked score becomes, here as in MLX: a query that sees no key gets the mean of all values.
constexpr float masked = -3.4028234663852886e38f;

inline Vec load(const float* from) {
  Vec x;
  std::memcpy(&x, from, sizeof x);
  return x;
}

inline void store(float* to, Vec x) { std::memcpy(to, &x, sizeof x); }

inline Vec broadcast(float x) { return x - Vec{}; }

// NaN in `x` is passed over: it reaches the result by its exp.
inline Vec larger(Vec x, Vec y) { return x > y ? x : y; }

inline constexpr int64_t round_up(int64_t x, int64_t step) { return (x + step - 1) / step * step; }

// exp(x) to about 1 ulp; 0 below exp(-87.3), where floats lose precision; infinity above exp(88.3).
inline Vec exp(Vec x) {
  // x = n ln 2 + r. Adding 1.5 * 2^23 rounds to the integer n, and leaves it in the low bits.
  Vec shifted = x * 1.44269504f + 12582912.0f;
  Vec n = shifted - 12582912.0f;
  Vec r = x - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  // exp(r) = 1 + r + r^2 p(r) on |r| <= ln 2 / 2, fitted for the least relative error (3e-9).
  Vec p = 0.0013814539f * r + 0.0083687454f;
  p = p * r + 0.0416683890f;
  p = p * r + 0.1666652113f;
  p = p * r + 0.4999999404f;
  p = p * (r * r) + r;
  p = p + 1.0f;
  Vec power = (Vec)(((UintVec)shifted << 23) + 0x3f800000u);
  Vec y = p * power;
  y = x < -87.3f ? Vec{} : y;
  return x > 88.3f ? broadcast(__builtin_inff()) : y;
}

// tanh(x) to a few ulp.
inline Vec tanh(Vec x) {
  UintVec sign = (UintVec)x & 0x80000000u;
  Vec size = (Vec)((UintVec)x & 0x7fffffffu);
  Vec far = 1.0f - 2.0f / (exp(2.0f * size) + 1.0f);
  // Near 0 by x + x^3 p(x^2), fitted for the least relative error on |x| <= 0.55 (2e-9).
  Vec square = size * size;
  Vec p = -0.0062752301f * square + 0.0210723374f;
  p = p * square - 0.0538524576f;
  p = p * square + 0.1333258748f;
  p = p * square - 0.3333331645f;
  Vec near = p * (square * size) + size;
  Vec y = size < 0.55f ? near : far;
  return (Vec)((UintVec)y | sign);
}

inline bool any(IntVec x) {
  int32_t all = 0;
  for (int i = 0; i < lanes; ++i) all |= x[i];
  return all != 0;
}

inline float sum(Vec x) {
  float total = 0;
  for (int i = 0; i < lanes; ++i) total += x[i];
  return total;
}

template <int... I>
inline Vec shuffle(Vec x, Vec y, std::integer_sequence<int, I...>) {
#if defined(__clang__) || __GNUC__ >= 12
  return __builtin_shufflevector(x, y, I...);
#else
  return __builtin_shuffle(x, y, IntVec{I...});
#endif
}

// x and y, element by element in turn: the lower half of them, or the upper.
template <bool Upper, int... I>
inline Vec interleave(Vec x, Vec y, std::integer_sequence<int, I...>) {
  return shuffle(x, y, std::integer_sequence<int, (I / 2 + (Upper ? lanes / 2 : 0) + (I % 2) * lanes)...>{});
}

// Transposes a square of `lanes` rows in place. Each round moves one bit of an element's row number into its column
// number and the other way round.
inline void transpose(Vec (&rows)[lanes]) {
  constexpr auto each = std::make_integer_sequence<int, lanes>{};
  for (int round = 1; round < lanes; round *= 2) {
    Vec next[lanes];
#pragma GCC unroll 16
    for (int i = 0; i < lanes / 2; ++i) {
      next[2 * i] = interleave<false>(rows[i], rows[i + lanes / 2], each);
      next[2 * i + 1] = interleave<true>(rows[i], rows[i + lanes / 2], each);
    }
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) rows[i] = next[i];
  }
}

}  // namespace flash
