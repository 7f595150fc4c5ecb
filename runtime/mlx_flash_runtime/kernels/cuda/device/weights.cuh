// The backward pass makes the weights of the softmax again, from scores and the logarithm of each
// query's sum, and of them the gradients of the scores (Dao et al., "FlashAttention", 2022,
// algorithm 4):
//   weight = exp(score - logsumexp),
//   dscore = weight (dweight - delta), where dweight = dout V^T and delta = sum(dout out) of a query.
//
// Scores lie as the results of products do. Their rows are those that a warp has, 16 queries or 16
// keys, and their columns what passes by: keys, or queries.

#pragma once

#include "softmax.cuh"

namespace flash {

// What a query's forward pass left: `logsumexp`, to base two, and `delta`. Two numbers for each
// query of a head, and as many more as make the last block of queries a whole one: infinity and 0,
// by which their weights are 0.
//
// Infinity is also the logsumexp of a query that sees no key, and whose output is the mean of all
// values: each of its weights is 1 / keys, and its scores are constants. (The true one, HIDDEN plus
// a small number, is HIDDEN again in float32.)
using QueryState = float2;

// What is taken from the scores of one warp: its own rows begin at `first`, a key with BY_KEYS, else
// a query.
template <int KIND, typename M, bool BY_KEYS>
struct Weights {
  Mask<M> mask;  // of the head that passes by
  const float scale, mean;  // of scores to powers of two; 1 / keys
  const int queries, keys, first, lane_row, lane_pair;
  float logsumexp[2], delta[2];  // of the lane's own queries, without BY_KEYS

  __device__ Weights(Mask<M> mask, float scale, int queries, int keys, int first,
                     const QueryState* states)
      : mask(mask), scale(scale * LOG2E), mean(1.0f / keys), queries(queries), keys(keys),
        first(first), lane_row(threadIdx.x % WARP / 4), lane_pair(threadIdx.x % 4) {
    if constexpr (!BY_KEYS) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const QueryState state = states[first + lane_row + 8 * r];
        logsumexp[r] = state.x, delta[r] = state.y;
      }
    }
  }

  // Which of the columns have to do with rows from `first` to `last`: from `begin` to before `end`,
  // where there are any.
  __device__ static int begin(const Mask<M>& mask, int queries, int keys, int first) {
    if constexpr (!BY_KEYS) return Softmax<KIND, M>::begin(mask, queries, keys, first);
    const int offset = keys - queries;
    return (KIND == CAUSAL || KIND == WINDOW) && offset >= 0 ? max(0, first - offset) : 0;
  }

  __device__ static int end(const Mask<M>& mask, int queries, int keys, int last) {
    if constexpr (!BY_KEYS) return Softmax<KIND, M>::end(queries, keys, last);
    return KIND == WINDOW ? min(queries, last - (keys - queries) + mask.window) : queries;
  }

  // The columns from `seen_begin` to before `seen_end` are those of which every row from `first` to
  // `last` sees every one: their scores need nothing but a scale. Queries behind the last one may be
  // among them, as their weights are 0 by their logsumexp.
  __device__ static int seen_begin(const Mask<M>& mask, int queries, int keys, int last) {
    const int own_key = keys - queries + last;
    if constexpr (BY_KEYS) return KIND == NONE ? 0 : max(0, last - (keys - queries));
    return KIND == WINDOW ? max(0, own_key - mask.window + 1) : 0;
  }

  __device__ static int seen_end(const Mask<M>& mask, int queries, int keys, int first) {
    const int offset = keys - queries, all = BY_KEYS ? 1 << 30 : keys;
    if (KIND == BOOLEAN || KIND == ADDITIVE) return 0;
    if (BY_KEYS && KIND == WINDOW) return first - offset + mask.window;
    return BY_KEYS || KIND == NONE ? all : min(all, offset + first + 1);
  }

  // Scores of the columns from `start` become weights; some are `HIDDEN_SOME`, by the mask or as
  // there are no more keys. `passing` is what the queries that pass by left, two in each.
  template <bool HIDDEN_SOME, int TILES>
  __device__ void weigh(float (&scores)[TILES][4], int start, const float4* passing) const {
    const int64_t row_step = BY_KEYS ? mask.column : mask.row,
                  column_step = BY_KEYS ? mask.row : mask.column;
    const M* entries = mask.data + (first + lane_row) * row_step +
                       (start + 2 * lane_pair) * column_step;
#pragma unroll
    for (int n = 0; n < TILES; ++n) {
      float of_column[2] = {};
      if constexpr (BY_KEYS) {
        const float4 pair = passing[4 * n + lane_pair];
        of_column[0] = pair.x, of_column[1] = pair.z;
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float sum = BY_KEYS ? of_column[i % 2] : logsumexp[i / 2];
        float& x = scores[n][i];
        if constexpr (HIDDEN_SOME) {
          const int row = first + lane_row + i / 2 * 8, column = start + 8 * n + 2 * lane_pair + i % 2;
          const int query = BY_KEYS ? column : row, key = BY_KEYS ? row : column;
          const bool inside = query < queries && key < keys;
          M entry = {};
          if ((KIND == BOOLEAN || KIND == ADDITIVE) && inside)
            entry = entries[i / 2 * 8 * row_step + (8 * n + i % 2) * column_step];
          x = inside ? masked(x, sum, query, key, entry) : 0;
        } else {
          x = power_of_two(__fmaf_rn(x, scale, -sum));
        }
      }
    }
  }

  // Gradients of weights become those of scores.
  template <bool HIDDEN_SOME, int TILES>
  __device__ void differentiate(float (&gradients)[TILES][4], const float (&weights)[TILES][4],
                                const float4* passing) const {
#pragma unroll
    for (int n = 0; n < TILES; ++n) {
      float4 pair = {};
      if constexpr (BY_KEYS) pair = passing[4 * n + lane_pair];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float shift = BY_KEYS ? (i % 2 ? pair.w : pair.y) : delta[i / 2];
        float& x = gradients[n][i];
        x = weights[n][i] * (x - shift);
        if constexpr (HIDDEN_SOME && (KIND == CAUSAL || KIND == BOOLEAN)) {
          const float sum = BY_KEYS ? (i % 2 ? pair.z : pair.x) : logsumexp[i / 2];
          if (sum == infinity()) x = 0;  // a constant
        }
      }
    }
  }

  // The weight of one score, of which an array of masks has `entry`.
  __device__ float masked(float score, float sum, int query, int key, M entry) const {
    const int own_key = keys - queries + query;
    bool seen = true;
    float bias = 0;
    if constexpr (KIND == CAUSAL || KIND == WINDOW) seen = key <= own_key;
    if constexpr (KIND == WINDOW) seen = seen && key > own_key - mask.window;
    if constexpr (KIND == BOOLEAN) seen = entry;
    if constexpr (KIND == ADDITIVE) bias = widen(entry) * LOG2E;
    if (!seen) return sum == infinity() ? mean : 0;
    return power_of_two(__fmaf_rn(score, scale, bias - sum));
  }
};

}  // namespace flash
