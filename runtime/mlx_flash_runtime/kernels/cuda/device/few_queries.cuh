// Attention of few queries on many keys: a step of decoding, or a draft that is verified. All query
// heads that share a key head are rows of one product, and the keys are split over blocks of
// threads. The last of those that is done puts the results of all together.
//
// What it takes is the time to read keys and values once, so they go from memory to registers, with
// shared memory left out. In a product it is free which number of a row stands in which column, as
// long as both factors agree: so a lane reads 8 neighbours at once, and has of them the operands of
// two products of keys (mma.sync, m16n8k16), or of eight of values.
//
// A warp has 16 rows, the keys of one part, and one of SLICES parts of the head dims; the WARPS of
// a block have TILES times 16 rows. See few_queries.py.

#pragma once

#include "key_readers.cuh"
#include "parts.cuh"
#include "products.cuh"

namespace flash {

enum : int {
  KEYS_AT_ONCE = 16,  // of a warp
  KEY_DIMS = 32,      // a step along keys: 8 for each of a row's four lanes
};

// Bytes of shared memory from one row of queries to the next: rows of lanes that read at once begin
// in different halves of the 32 banks.
template <int D>
__host__ __device__ constexpr int query_row() {
  return (D + 31) / 32 * 64 % 128 ? (D + 31) / 32 * 64 : (D + 31) / 32 * 64 + 64;
}

// Of two rows of 8 numbers those of column `m`, the first row's in the lower half.
__device__ inline uint32_t column_pair(const uint4& low, const uint4& high, int m) {
  const uint32_t a = m / 2 == 0 ? low.x : m / 2 == 1 ? low.y : m / 2 == 2 ? low.z : low.w,
                 b = m / 2 == 0 ? high.x : m / 2 == 1 ? high.y : m / 2 == 2 ? high.z : high.w;
  return m % 2 ? a >> 16 | (b & 0xffff0000) : (a & 0xffff) | b << 16;
}

// Sums up the scores of all slices of the dims, which are those of neighbouring warps, in the same
// order for each; `exchanged` is not to be written again before the next but one call.
template <int SLICES>
__device__ void add_slices(float (&scores)[2][4], float* exchanged, int warp, int slice) {
  float* own = exchanged + threadIdx.x % WARP;
#pragma unroll
  for (int i = 0; i < 8; ++i) own[(8 * warp + i) * WARP] = scores[i / 4][i % 4];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    float sum = 0;
#pragma unroll
    for (int other = 0; other < SLICES; ++other)
      sum += own[(8 * (warp - slice + other) + i) * WARP];
    scores[i / 4][i % 4] = sum;
  }
}

// Fills a tile of the rows from `first` on; what is beyond them or D is zeros.
template <typename T, int D>
__device__ void load_queries(char* tile, HeadRows<T> q, FoldedRows folded, int first, int in_tile) {
  constexpr int chunks = (D + KEY_DIMS - 1) / KEY_DIMS * 4;
  const int threads = blockDim.x;
  const bool whole = q.is_whole();
  for (int i = threadIdx.x; i < in_tile * chunks; i += threads) {
    const int row = first + i / chunks, column = i % chunks * 8;
    const bool inside = row < folded.count && column < D;
    const Rows<T> from = inside ? q.from(folded.query(row), folded.head(row)) : q.rows;
    copy_chunk<T, D>(tile + i / chunks * query_row<D>() + column * 2, from, 0, column, inside,
                     whole);
  }
}

// The attention of the `block`-th block of rows, of what key_readers.cuh reads. A step: read the keys
// of the next one and the values of this one, multiply queries with keys, weigh the scores, add the
// weighted values; after the last one the parts are put together.
template <typename T, int D, int DV, int SLICES, int TILES, int WARPS, int KIND, typename M,
          typename Keys>
__device__ void few_queries(HeadRows<T> q, Keys k, Keys v, Mask<M> mask, int64_t next_mask,
                            float scale, FoldedRows folded, int keys, int block,
                            Results<T> results) {
  constexpr int key_steps = (D + KEY_DIMS - 1) / KEY_DIMS,
                value_steps = (DV + VALUE_DIMS - 1) / VALUE_DIMS;
  constexpr int own_key_steps = (key_steps + SLICES - 1) / SLICES,
                own_value_steps = (value_steps + SLICES - 1) / SLICES;
  constexpr int ROWS = WARP_QUERIES * TILES, PARTS = WARPS / (SLICES * TILES);
  constexpr int row_bytes = query_row<D>();
  extern __shared__ uint4 shared[];
  char* const queries = reinterpret_cast<char*>(shared);
  float* const exchanged = reinterpret_cast<float*>(queries + ROWS * row_bytes);

  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  const int lane_row = lane / 4, lane_pair = lane % 4;
  const int slice = warp % SLICES, tile = warp / SLICES % TILES, part = warp / (SLICES * TILES);
  const int first_row = ROWS * block + WARP_QUERIES * tile;

  // The keys of this warp's part; those that a window hides from all queries are not looked at.
  const int unseen = KIND == WINDOW ? max(0, keys - folded.length - mask.window + 1) : 0;
  const int begin = unseen / KEYS_AT_ONCE * KEYS_AT_ONCE;
  const int all_parts = gridDim.x * PARTS;
  const int steps = ((keys - begin + KEYS_AT_ONCE - 1) / KEYS_AT_ONCE + all_parts - 1) / all_parts;
  const int start_of_part = begin + (blockIdx.x * PARTS + part) * steps * KEYS_AT_ONCE;
  const bool is_scaled_later = (KIND == NONE || KIND == CAUSAL) && scale > 0;
  const int all_see = !is_scaled_later ? 0 : KIND == CAUSAL ? keys - folded.length + 1 : keys;

  typename Keys::Packed k_read[2][own_key_steps];
  const auto read_keys = [&](int start) {
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      const int key = min(start + 8 * n + lane_row, keys - 1);
#pragma unroll
      for (int step = 0; step < own_key_steps; ++step) {
        const int dim = (slice + SLICES * step) * KEY_DIMS + 8 * lane_pair;
        k_read[n][step] = k.read(key, dim < D ? dim : 0);
      }
    }
  };
  RowMasks<KIND, M> masks(mask, next_mask, folded, first_row, keys);
  RowSums softmax(scale);
  float result[8 * own_value_steps][4] = {}, shrink[2];
  read_keys(start_of_part);
  masks.read(start_of_part);

  load_queries<T, D>(queries, q, folded, ROWS * block, ROWS);
  synchronize();
  const char* const own_queries =
      queries + (WARP_QUERIES * tile + lane_row) * row_bytes + lane_pair * 16;

  for (int i = 0; i < steps; ++i) {
    const int start = start_of_part + i * KEYS_AT_ONCE;
    typename Keys::Packed v_read[own_value_steps][4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int key = start + 2 * lane_pair + j / 2 * 8 + j % 2;
#pragma unroll
      for (int step = 0; step < own_value_steps; ++step) {
        const int dim = (slice + SLICES * step) * VALUE_DIMS + 8 * lane_row;
        v_read[step][j] = v.read(min(key, keys - 1), dim < DV ? dim : 0);
      }
    }

    float scores[2][4] = {};
#pragma unroll
    for (int step = 0; step < own_key_steps; ++step) {
      const int dim = (slice + SLICES * step) * KEY_DIMS;
      if (dim >= D) continue;  // there may be fewer for the last slices
      const char* at = own_queries + dim * 2;
      const uint4 a = *reinterpret_cast<const uint4*>(at),
                  b = *reinterpret_cast<const uint4*>(at + 8 * row_bytes);
      const uint32_t low[4] = {a.x, b.x, a.y, b.y}, high[4] = {a.z, b.z, a.w, b.w};
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        const bool inside = dim + 8 * lane_pair < D;
        const uint4 key = inside ? k.unpack(k_read[n][step]) : uint4{0, 0, 0, 0};
        multiply<T>(scores[n], low, key.x, key.y);
        multiply<T>(scores[n], high, key.z, key.w);
      }
    }
    if (SLICES > 1) add_slices<SLICES>(scores, exchanged + i % 2 * WARPS * 8 * WARP, warp, slice);

    const bool hidden = start + KEYS_AT_ONCE > all_see;
    if (hidden) masks.hide(scores, start, softmax.scale);
    // Read while this step's values are added.
    read_keys(start + KEYS_AT_ONCE);
    masks.read(start + KEYS_AT_ONCE);
    softmax.weigh(scores, hidden, shrink);
    multiply_rows(result, shrink);
    const uint32_t weights[4] = {
        pack<T>(scores[0][0], scores[0][1]), pack<T>(scores[0][2], scores[0][3]),
        pack<T>(scores[1][0], scores[1][1]), pack<T>(scores[1][2], scores[1][3])};
#pragma unroll
    for (int step = 0; step < own_value_steps; ++step) {
      uint4 rows[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        // Beyond the last key weights are zero, but values may be anything.
        const bool inside = start + 2 * lane_pair + j / 2 * 8 + j % 2 < keys;
        rows[j] = inside ? v.unpack(v_read[step][j]) : uint4{0, 0, 0, 0};
      }
#pragma unroll
      for (int m = 0; m < 8; ++m) {
        multiply<T>(result[8 * step + m], weights, column_pair(rows[0], rows[1], m),
                    column_pair(rows[2], rows[3], m));
      }
    }
  }

  __syncthreads();  // nobody reads queries any more
  put_together<T, DV, SLICES, TILES, WARPS, own_value_steps>(
      softmax, result, reinterpret_cast<float*>(shared), results, folded, ROWS * block);
}

// The same with keys and values that are not quantized, of any strides.
template <typename T, int D, int DV, int SLICES, int TILES, int WARPS, int KIND, typename M>
__device__ void few_queries(HeadRows<T> q, Rows<T> k, Rows<T> v, Mask<M> mask, int64_t next_mask,
                            float scale, FoldedRows folded, int keys, int block,
                            Results<T> results) {
  const auto run = [&](auto of_keys, auto of_values) {
    few_queries<T, D, DV, SLICES, TILES, WARPS, KIND>(
        q, of_keys, of_values, mask, next_mask, scale, folded, keys, block, results);
  };
  if (k.is_whole() && v.is_whole()) {
    run(Plain<T, true>{k}, Plain<T, true>{v});
  } else {
    run(Plain<T, false>{k}, Plain<T, false>{v});
  }
}

}  // namespace flash
