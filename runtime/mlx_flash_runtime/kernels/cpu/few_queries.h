// Tiles of so few queries that they leave most lanes of a vector empty, as in decode: here the lanes are dimensions.
#pragma once

#include "blocks.h"

namespace flash {

constexpr int few_queries = lanes / 2;

// Reading keys and values is most of the work: in small pieces it overlaps with the rest.
constexpr int few_block_keys = 16;
static_assert(few_block_keys <= block_keys && few_block_keys % lanes == 0);

inline bool is_few(const Tile& tile) { return tile.count <= few_queries; }

// The sum of each of the vectors, in its lane. Each round halves their number, as `transpose` moves their elements.
inline Vec sum_each(Vec (&x)[lanes]) {
  constexpr auto each = std::make_integer_sequence<int, lanes>{};
#pragma GCC unroll 4
  for (int half = lanes / 2; half > 0; half /= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < half; ++i) x[i] = interleave<false>(x[i], x[i + half], each) + interleave<true>(x[i], x[i + half], each);
  }
  return x[0];
}

// scores[key][lane] for `count` keys, up to whole vectors of them: keys [keys][dim], queries [tile.count][dim], dim in
// whole vectors. What lies behind the last key, up to lanes - 1 rows of the scratch memory, is read and not used.
inline void score_few(const Tile& tile, int count, int dim, const float* keys, const float* queries, float* scores) {
  for (int key = 0; key < count; key += lanes, keys += lanes * dim, scores += lanes * lanes) {
    Vec by_query[lanes] = {};
    for (int lane = 0; lane < tile.count; ++lane) {
      Vec sums[lanes] = {};
      for (int i = 0; i < dim; i += lanes) {
        const Vec query = load(queries + lane * dim + i);
#pragma GCC unroll 16
        for (int j = 0; j < lanes; ++j) sums[j] += query * load(keys + j * dim + i);
      }
      by_query[lane] = sum_each(sums);
    }
    transpose(by_query);
    for (int j = 0; j < lanes; ++j) store(scores + j * lanes, by_query[j]);
  }
}

}  // namespace flash
