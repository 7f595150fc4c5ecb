// Attention by the products of warps (mma.sync). Each of a block's WARPS warps has 16 queries of
// one head, the rows of one product; all share the block's keys and values, KEYS at a time.
//
// The tiles' sizes, WARPS and KEYS, are chosen in attention_tiles.py, where the sum of the shared
// memory stands.

#pragma once

#include "products.cuh"
#include "softmax.cuh"

namespace flash {

template <typename T, int D, int DV, int WARPS, int KEYS, int KIND, typename M>
__device__ void attention(Rows<T> q, Rows<T> k, Rows<T> v, Mask<M> mask, const float* sink,
                          float scale, int queries, int keys, ResultRows<T> out,
                          float* logsumexp) {
  constexpr int qk_stride = row_stride<T>(D), tiles = words<T>(DV) * 4 / sizeof(T) / 8;
  constexpr int QUERIES = WARP_QUERIES * WARPS;
  extern __shared__ uint4 shared[];
  uint32_t* q_tile = reinterpret_cast<uint32_t*>(shared);
  uint32_t* k_tile = q_tile + QUERIES * qk_stride;
  uint32_t* v_tile = k_tile + KEYS * qk_stride;

  const int warp = threadIdx.x / WARP;
  // Blocks of threads start in the order of blockIdx. The last queries see the most keys of a
  // causal mask: begun first, they do not run alone at the end.
  const int first = (gridDim.x - 1 - blockIdx.x) * QUERIES;
  Softmax<KIND, M> softmax(mask, sink, scale, queries, keys, first + WARP_QUERIES * warp);
  const int begin = softmax.begin(mask, queries, keys, first) / KEYS * KEYS;
  const int end = softmax.end(queries, keys, first + QUERIES - 1);
  const int all_see = softmax.all_see(queries, keys, first + WARP_QUERIES * warp, scale);

  const auto load_keys = [&](int start) {
    load<T, D>(k_tile, {k.data + start * k.stride, k.stride, k.step}, keys - start, KEYS);
  };
  const auto load_values = [&](int start) {
    load<T, DV>(v_tile, {v.data + start * v.stride, v.stride, v.step}, keys - start, KEYS);
  };
  q.data += first * q.stride;
  load<T, D>(q_tile, q, queries - first, QUERIES);
  // 16-bit rows are copied while products run; float32 is not, as it is rounded on its way.
  constexpr bool in_background = sizeof(T) == 2;
  if constexpr (in_background) load_keys(begin);
  synchronize();
  const Queries<T, D> warp_queries(q_tile + WARP_QUERIES * warp * qk_stride);
  float result[tiles][4] = {}, shrink[2];

  for (int start = begin; start < end; start += KEYS) {
    if constexpr (in_background) {
      load_values(start);  // while the scores are computed
    } else {
      load_keys(start);
      load_values(start);
      synchronize();
    }
    float scores[KEYS / 8][4] = {};
    score<T, D, KEYS>(scores, warp_queries, k_tile);

    const bool hidden = start + KEYS > all_see;
    if (hidden) softmax.hide(scores, start);
    softmax.weigh(scores, hidden, shrink);
    multiply_rows(result, shrink);
    if constexpr (in_background) {
      synchronize();
      if (start + KEYS < end) load_keys(start + KEYS);  // while the values are added
    }
    add_values<T, DV, KEYS>(result, scores, v_tile);
    synchronize();
  }
  softmax.template write<T, DV>(result, out, logsumexp);
}

}  // namespace flash
