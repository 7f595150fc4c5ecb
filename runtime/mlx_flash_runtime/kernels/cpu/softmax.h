// The online softmax of a tile of queries (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018).
#pragma once

#include "queries.h"

namespace flash {

// A tile between blocks of keys.
struct State {
  Tile tile;
  float* queries;  // [head_dim][width], scaled; [count][head_dim] of few queries
  float* sums;     // [value_head_dim][width]: the weighted values so far; [count][value_head_dim] of few queries
  float* row_max;  // [width]
  float* row_sum;  // [width]
};

// Turns scores [keys][width] into weights, and adds them to row_sum. The sums so far are still to be multiplied by
// `shrink`, [width]; returns whether that changes them.
template <int Vectors>
bool weigh(float* scores, int keys, const State& state, float* shrink) {
  constexpr int width = Vectors * lanes;
  Vec row_max[Vectors], row_sum[Vectors];
  for (int j = 0; j < Vectors; ++j) row_max[j] = load(state.row_max + j * lanes);
  for (int key = 0; key < keys; ++key) {
    for (int j = 0; j < Vectors; ++j) row_max[j] = larger(load(scores + key * width + j * lanes), row_max[j]);
  }
  IntVec changed{};
  for (int j = 0; j < Vectors; ++j) {
    const Vec factor = exp(load(state.row_max + j * lanes) - row_max[j]);
    changed |= factor != 1.0f;
    store(shrink + j * lanes, factor);
    store(state.row_max + j * lanes, row_max[j]);
    row_sum[j] = load(state.row_sum + j * lanes) * factor;
  }
  for (int key = 0; key < keys; ++key) {
    for (int j = 0; j < Vectors; ++j) {
      float* at = scores + key * width + j * lanes;
      const Vec weight = exp(load(at) - row_max[j]);
      store(at, weight);
      row_sum[j] += weight;
    }
  }
  for (int j = 0; j < Vectors; ++j) store(state.row_sum + j * lanes, row_sum[j]);
  return any(changed);
}

inline bool weigh(float* scores, int keys, const State& state, float* shrink) {
  switch (state.tile.vectors) {
    case 1:
      return weigh<1>(scores, keys, state, shrink);
    case 2:
      return weigh<2>(scores, keys, state, shrink);
    case 3:
      return weigh<3>(scores, keys, state, shrink);
    default:
      return weigh<4>(scores, keys, state, shrink);
  }
}

}  // namespace flash
