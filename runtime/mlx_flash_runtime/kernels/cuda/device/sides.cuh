// The two sides of a score in the backward pass, queries and keys, and the order of the work.

#pragma once

#include "weights.cuh"

namespace flash {

// Whose gradients a kernel makes. Those of keys and values share the scores and fit the registers
// together up to a size: see gradient_tiles.py.
enum Gradients { OF_QUERIES, OF_KEYS, OF_VALUES, OF_KEYS_AND_VALUES };

// What one side has in a score, of D elements, and in the gradient of a weight, of DV: queries and
// the gradients of their outputs, or keys and values. The table is in gradient.cuh.
template <typename T>
struct Side {
  HeadRows<T> of_d, of_dv;

  // Whether 16 bytes of each row can be read at once, see `Rows`.
  __device__ bool is_whole() const { return of_d.is_whole() && of_dv.is_whole(); }
};

// How many heads pass by: the query heads that share a key head. Elements of the mask, and numbers
// of queries, from one of them to the next.
struct Heads {
  int count;
  int64_t mask, states;
};

// The first row of a block of threads. They start in the order of blockIdx, the last axis last, and
// those with the most work of a causal mask are to be first, for none to run alone at the end: the
// last queries, which see the most keys, and the first keys, which the most queries see.
template <bool BY_KEYS>
__device__ inline int first_row(int rows) {
  return (BY_KEYS ? blockIdx.z : gridDim.z - 1 - blockIdx.z) * rows;
}

// Copies what COUNT queries left to shared memory, by as many threads as it takes.
template <int COUNT>
__device__ inline void copy_states(float4* to, const QueryState* states) {
  const int i = threadIdx.x;
  if (i < COUNT / 2) copy_in_background(to + i, states + 2 * i, true);
}

// Writes the QueryState of each of `queries` queries of a head, and what fills up their last block:
// with delta from the outputs and their gradients `dout`. LANES lanes of a warp have one query.
//
// Gradients of weights are products of `dout` with values, and delta is to be their mean by weight
// to the last bits: a query with one key has gradients of scores that are exactly zero. So delta
// takes of `dout` what products take.
template <typename T, int DV, int LANES>
__device__ void query_states(Rows<T> out, Rows<T> dout, const float* logsumexp, int queries,
                             int padded, QueryState* states) {
  constexpr int in_chunk = 16 / sizeof(T);
  const int query = (blockIdx.x * blockDim.x + threadIdx.x) / LANES, lane = threadIdx.x % LANES;
  const bool inside = query < queries;
  const bool whole = out.is_whole() && dout.is_whole() && DV % in_chunk == 0;
  float sum = 0;
  for (int column = lane * in_chunk; inside && column < DV; column += LANES * in_chunk) {
    const T* a = out.data + query * out.stride + column * out.step;
    const T* b = dout.data + query * dout.stride + column * dout.step;
    if (whole) {
      const uint4 of_a = *reinterpret_cast<const uint4*>(a), of_b = *reinterpret_cast<const uint4*>(b);
#pragma unroll
      for (int j = 0; j < in_chunk; ++j) {
        sum += widen(reinterpret_cast<const T*>(&of_a)[j]) *
               multiplied(reinterpret_cast<const T*>(&of_b)[j]);
      }
    } else {
      for (int j = 0; j < in_chunk && column + j < DV; ++j)
        sum += widen(a[j * out.step]) * multiplied(b[j * dout.step]);
    }
  }
#pragma unroll
  for (int step = LANES / 2; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffff, sum, step);
  if (lane == 0 && query < padded) {
    states[query] = inside ? QueryState{logsumexp[query], sum} : QueryState{infinity(), 0};
  }
}

}  // namespace flash
