// Online softmax over blocks of keys, in powers of two, of scores that lie as the results of
// products do: a warp has 16 queries. A lane has two rows of them, `lane_row` and `lane_row + 8`,
// and there of every 8 keys one pair, `lane_pair`; so four lanes share a row.

#pragma once

#include "results.cuh"

namespace flash {

// A masked score: float32's most negative number, finite as in MLX: see online_softmax.py.
constexpr float HIDDEN = -3.4028234663852886e38f;
// exp(x) is 2^(x log2(e)), and the GPU has an instruction for powers of two: scores are scaled by
// this.
constexpr float LOG2E = 1.4426950408889634f;

enum MaskKind { NONE, CAUSAL, WINDOW, BOOLEAN, ADDITIVE };

// How many of the last keys a query sees (WINDOW), or an array of [batch, heads, queries, keys],
// with stride 0 along the axes over which it is broadcast.
template <typename M>
struct Mask {
  int window;
  const M* data;  // of this batch row and head
  int64_t row, column;
};

// A score in powers of two with what an additive mask adds. The most negative number of a type, which
// some programs hide by, would be minus infinity in powers of two, and a query that sees no key NaN.
template <typename M>
__device__ inline float with_mask(float score, M entry) {
  const float added = widen(entry), x = score + added * LOG2E;
  return added == -infinity() ? x : fmaxf(x, HIDDEN);
}

template <typename M>
struct __align__(2 * sizeof(M)) Pair {
  M of[2];
};

// The largest score and the sum of the weights of a lane's two rows so far; of a row's keys each of
// its four lanes sums its own.
struct RowSums {
  const float scale;  // of scores to powers of two
  float row_max[2] = {-infinity(), -infinity()}, row_sum[2] = {};

  __device__ explicit RowSums(float scale) : scale(scale * LOG2E) {}

  // Scores become weights, relative to each row's largest score so far. They are in powers of two
  // already where `hide` was called (`hidden`). Results so far are to be multiplied with `shrink`.
  template <int TILES>
  __device__ void weigh(float (&scores)[TILES][4], bool hidden, float (&shrink)[2]) {
    const float factor = hidden ? 1 : scale;
    float largest[4];  // of every other key of the lane's rows
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      largest[i] = scores[0][i];
#pragma unroll
      for (int n = 1; n < TILES; ++n) largest[i] = fmaxf(largest[i], scores[n][i]);
    }
    float from[2], sums[4] = {};
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float row = fmaxf(largest[2 * r], largest[2 * r + 1]);
      row = fmaxf(row, __shfl_xor_sync(0xffffffff, row, 1));
      row = fmaxf(row, __shfl_xor_sync(0xffffffff, row, 2));
      row = fmaxf(row_max[r], row * factor);
      from[r] = row == -infinity() ? 0 : row;  // an additive mask may hide a whole block
      shrink[r] = power_of_two(row_max[r] - from[r]);
      row_max[r] = row;
    }
#pragma unroll
    for (int n = 0; n < TILES; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        scores[n][i] = power_of_two(__fmaf_rn(scores[n][i], factor, -from[i / 2]));
        sums[i] += scores[n][i];
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) row_sum[r] = row_sum[r] * shrink[r] + sums[2 * r] + sums[2 * r + 1];
  }
};

template <int KIND, typename M>
struct Softmax : RowSums {
  const Mask<M> mask;
  const int queries, keys, lane_row, lane_pair;
  const int first;  // the warp's first query

  __device__ Softmax(Mask<M> mask, const float* sink, float scale, int queries, int keys, int first)
      : RowSums(scale), mask(mask), queries(queries), keys(keys),
        lane_row(threadIdx.x % WARP / 4), lane_pair(threadIdx.x % 4), first(first) {
    if (!sink) return;
    row_max[0] = row_max[1] = *sink * LOG2E;
    row_sum[0] = row_sum[1] = lane_pair == 0 ? 1 : 0;  // one of the row's four lanes has it
  }

  // The first key that matters to the queries from `first` on.
  __device__ static int begin(const Mask<M>& mask, int queries, int keys, int first) {
    return KIND == WINDOW ? max(0, keys - queries + first - mask.window + 1) : 0;
  }

  // The key behind the last one that matters to the queries up to `last`. A query before the first
  // key sees none, and gets the mean of all values.
  __device__ static int end(int queries, int keys, int last) {
    const int offset = keys - queries;
    return (KIND == CAUSAL || KIND == WINDOW) && offset >= 0 ? min(keys, offset + last + 1) : keys;
  }

  // How many keys, from the first on, all queries from `first` on see, by scores that need nothing
  // but a scale: blocks of keys up to there need no `hide`.
  __device__ static int all_see(int queries, int keys, int first, float scale) {
    if (!(KIND == NONE || KIND == CAUSAL) || !(scale > 0)) return 0;
    return KIND == CAUSAL ? max(0, min(keys, keys - queries + first + 1)) : keys;
  }

  // Scales the scores of the keys from `start`, and applies the mask; what lies beyond the last key
  // has no weight at all.
  template <int TILES>
  __device__ void hide(float (&scores)[TILES][4], int start) const {
    const bool in_pairs = mask.column == 1 && mask.row % 2 == 0 &&
                          reinterpret_cast<uintptr_t>(mask.data) % sizeof(Pair<M>) == 0 &&
                          start + 8 * TILES <= keys;
    if ((KIND == BOOLEAN || KIND == ADDITIVE) && in_pairs) {
      hide<true>(scores, start);
    } else {
      hide<false>(scores, start);
    }
  }

  // The same, with what of a mask's array lies together read at once.
  template <bool IN_PAIRS, int TILES>
  __device__ void hide(float (&scores)[TILES][4], int start) const {
#pragma unroll
    for (int n = 0; n < TILES; ++n) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int key = start + 8 * n + 2 * lane_pair, query = first + lane_row + 8 * r,
                  own_key = keys - queries + query;
        const Pair<M> own = read<IN_PAIRS>(min(query, queries - 1), key);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& x = scores[n][2 * r + i];
          x *= scale;
          if ((KIND == CAUSAL || KIND == WINDOW) && key + i > own_key) x = HIDDEN;
          if (KIND == WINDOW && key + i <= own_key - mask.window) x = HIDDEN;
          if constexpr (KIND == BOOLEAN) x = own.of[i] ? x : HIDDEN;
          if constexpr (KIND == ADDITIVE) x = with_mask(x, own.of[i]);
          if (!IN_PAIRS && key + i >= keys) x = -infinity();
        }
      }
    }
  }

  // The array at a key and the next one, if there are any.
  template <bool IN_PAIRS>
  __device__ Pair<M> read(int query, int key) const {
    Pair<M> own = {};
    if constexpr (KIND == BOOLEAN || KIND == ADDITIVE) {
      const M* row = mask.data + query * mask.row + key * mask.column;
      if constexpr (IN_PAIRS) {
        own = *reinterpret_cast<const Pair<M>*>(row);
      } else {
        if (key < keys) own.of[0] = row[0];
        if (key + 1 < keys) own.of[1] = row[mask.column];
      }
    }
    return own;
  }

  // Writes sums of weighted values, DV of each query, as means; and, unless `logsumexp` is null, what
  // the backward pass makes the weights of again: the logarithm of the sum of each query's weights,
  // to base two. For a query that sees no key that is infinity: see weights.cuh.
  template <typename T, int DV, int TILES>
  __device__ void write(const float (&result)[TILES][4], const ResultRows<T>& out,
                        float* logsumexp) const {
    float share[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float sum = row_sum[r];
      sum += __shfl_xor_sync(0xffffffff, sum, 1);
      sum += __shfl_xor_sync(0xffffffff, sum, 2);
      share[r] = 1 / sum;
      const int query = first + lane_row + 8 * r;
      if (logsumexp && lane_pair == 0 && query < queries)
        logsumexp[query] = row_max[r] == HIDDEN ? infinity() : row_max[r] + logarithm(sum);
    }
    write_rows<T, DV>(result, share, out, first + lane_row, queries);
  }
};

}  // namespace flash
