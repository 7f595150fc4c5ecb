// Gradients of attention by the products of warps (mma.sync). A block of threads has rows of its own,
// 16 for each of its WARPS warps: queries, for their gradient, or keys with their values, for the
// gradients of those. What the other side has passes by, PASSING rows at a time; the gradients stay
// in registers until they are whole, so nothing is added up in memory and each run gives the same.
//
// The score of a key and a query is the same product from either side, so both are one kernel: with
// keys as rows it has the scores transposed. What its arguments are, in the letters of the paper that
// weights.cuh names (dO is the gradient of the outputs):
//
//                       own.of_d  own.of_dv  passing.of_d  passing.of_dv  d_of_d  d_of_dv
//   OF_QUERIES          Q         dO         K             V              dQ      -
//   OF_KEYS             K         V          Q             dO             dK      -
//   OF_VALUES           K         -          Q             dO             -       dV
//   OF_KEYS_AND_VALUES  K         V          Q             dO             dK      dV
//
// and with them, for each block that passes by:
//
//   scores = own.of_d passing.of_d^T, of which `weigh` makes the weights;
//   d_of_dv += weights passing.of_dv;
//   gradients = own.of_dv passing.of_dv^T, of which `differentiate` makes those of the scores;
//   d_of_d += gradients passing.of_d.
//
// The tiles' sizes, WARPS and PASSING, are chosen in gradient_tiles.py, where the sum of the shared
// memory stands.

#pragma once

#include "products.cuh"
#include "sides.cuh"

namespace flash {

template <typename T, int D, int DV, int WARPS, int PASSING, int KIND, typename M, int OF>
__device__ void gradient(const Side<T>& own, const Side<T>& passing, Mask<M> mask,
                         const Heads& heads, float scale, int queries, int keys,
                         const QueryState* states, ResultRows<T> d_of_d, ResultRows<T> d_of_dv) {
  constexpr bool by_keys = OF != OF_QUERIES, of_d = OF != OF_VALUES,
                 of_dv = OF == OF_VALUES || OF == OF_KEYS_AND_VALUES;
  constexpr int stride = row_stride<T>(D), v_stride = row_stride<T>(DV);
  constexpr int tiles = words<T>(D) * 4 / sizeof(T) / 8, v_tiles = words<T>(DV) * 4 / sizeof(T) / 8;
  constexpr int ROWS = WARP_QUERIES * WARPS;
  extern __shared__ uint4 shared[];
  uint32_t* own_tile = reinterpret_cast<uint32_t*>(shared);
  uint32_t* tile = own_tile + ROWS * stride;
  uint32_t* v_tile = tile + PASSING * stride;
  float4* states_tile = reinterpret_cast<float4*>(v_tile + PASSING * v_stride);
  uint32_t* own_v_tile = reinterpret_cast<uint32_t*>(states_tile + (by_keys ? PASSING / 2 : 0));

  using Scores = Weights<KIND, M, by_keys>;
  const int first = first_row<by_keys>(ROWS), warp = threadIdx.x / WARP;
  const int length = by_keys ? keys : queries, passing_length = by_keys ? queries : keys;
  const int begin = Scores::begin(mask, queries, keys, first) / PASSING * PASSING,
            end = Scores::end(mask, queries, keys, first + ROWS - 1);
  const int seen_begin = Scores::seen_begin(mask, queries, keys, first + ROWS - 1),
            seen_end = Scores::seen_end(mask, queries, keys, first);

  load<T, D>(own_tile, own.of_d.from(first), length - first, ROWS);
  if constexpr (of_d) load<T, DV>(own_v_tile, own.of_dv.from(first), length - first, ROWS);
  synchronize();
  const Queries<T, D, false> rows(own_tile + WARP_QUERIES * warp * stride);
  const Queries<T, DV, false> v_rows(own_v_tile + WARP_QUERIES * warp * v_stride);
  float d_result[of_d ? tiles : 1][4] = {}, dv_result[of_dv ? v_tiles : 1][4] = {};

  for (int head = 0; head < heads.count; ++head) {
    const QueryState* head_states = states + head * heads.states;
    mask.data += head > 0 ? heads.mask : 0;
    const Scores weights(mask, scale, queries, keys, first + WARP_QUERIES * warp, head_states);
    for (int start = begin; start < end; start += PASSING) {
      load<T, D>(tile, passing.of_d.from(start, head), passing_length - start, PASSING);
      load<T, DV>(v_tile, passing.of_dv.from(start, head), passing_length - start, PASSING);
      if constexpr (by_keys) copy_states<PASSING>(states_tile, head_states + start);
      synchronize();

      float scores[PASSING / 8][4] = {};
      score<T, D, PASSING>(scores, rows, tile);
      const bool all_seen = start >= seen_begin && start + PASSING <= seen_end;
      if (all_seen) {
        weights.template weigh<false>(scores, start, states_tile);
      } else {
        weights.template weigh<true>(scores, start, states_tile);
      }
      if constexpr (of_dv) add_values<T, DV, PASSING>(dv_result, scores, v_tile);
      if constexpr (of_d) {
        float gradients[PASSING / 8][4] = {};
        score<T, DV, PASSING>(gradients, v_rows, v_tile);
        if (all_seen) {
          weights.template differentiate<false>(gradients, scores, states_tile);
        } else {
          weights.template differentiate<true>(gradients, scores, states_tile);
        }
        add_values<T, D, PASSING>(d_result, gradients, tile);
      }
      __syncthreads();
    }
  }
  const int row = first + WARP_QUERIES * warp + threadIdx.x % WARP / 4;
  if constexpr (of_d) write_rows<T, D>(d_result, {scale, scale}, d_of_d, row, length);
  if constexpr (of_dv) write_rows<T, DV>(dv_result, {1, 1}, d_of_dv, row, length);
}

}  // namespace flash
