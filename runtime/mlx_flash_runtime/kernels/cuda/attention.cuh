// Attention by the products of products.cuh, which goes before: online softmax over blocks of keys, in powers of two. A
// block of WARPS warps takes 16 queries of one head each: the rows of one product.

namespace flash {

constexpr float HIDDEN = -3.4028234663852886e38f;  // a masked score, finite as in MLX: see online_softmax.py
constexpr float LOG2E = 1.4426950408889634f;

enum Mask { NONE, CAUSAL, BOOLEAN, ADDITIVE };

// The mask as an array of [batch, heads, queries, keys], each stride 0 where it is spread.
template <typename M>
struct MaskArray {
  const M* data;  // of this batch row and head
  int64_t row, column;
};

template <typename T, int D, int DV, int WARPS, int KEYS, int MASK, typename M>
__device__ void attention(Rows<T> q, Rows<T> k, Rows<T> v, MaskArray<M> mask, const float* sink, float scale, int queries,
                          int keys, T* out) {
  constexpr int qk_stride = words<T>(D) + 4, v_stride = words<T>(DV) + 4, tiles = words<T>(DV) * 4 / sizeof(T) / 8;
  constexpr int QUERIES = 16 * WARPS;
  extern __shared__ uint4 shared[];
  uint32_t* q_tile = reinterpret_cast<uint32_t*>(shared);
  uint32_t* k_tile = q_tile + QUERIES * qk_stride;
  uint32_t* v_tile = k_tile + KEYS * qk_stride;

  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = lane / 4, pair = lane % 4;
  // The last queries see the most keys of a causal mask: first come, first served.
  const int first = (gridDim.x - 1 - blockIdx.x) * QUERIES;
  const int row[2] = {first + 16 * warp + group, first + 16 * warp + group + 8};  // this lane's queries
  const int offset = keys - queries;
  // A query before the first key sees none, and gets the mean of all values: it needs every block.
  const int end = MASK == CAUSAL && offset >= 0 ? min(keys, offset + first + QUERIES) : keys;

  const auto load_keys = [&](int start) {
    load<T, D>(k_tile, {k.data + start * k.stride, k.stride, k.step}, keys - start, KEYS);
  };
  const auto load_values = [&](int start) {
    load<T, DV>(v_tile, {v.data + start * v.stride, v.stride, v.step}, keys - start, KEYS);
  };
  q.data += first * q.stride;
  load<T, D>(q_tile, q, queries - first, QUERIES);
  constexpr bool in_background = sizeof(T) == 2;
  if constexpr (in_background) load_keys(0);
  arrive();
  const Queries<T, D> warp_queries(q_tile + 16 * warp * qk_stride);
  float result[tiles][4] = {}, row_max[2], row_sum[2];
  row_max[0] = row_max[1] = sink ? *sink * LOG2E : -infinity();
  row_sum[0] = row_sum[1] = sink && pair == 0 ? 1 : 0;  // each of a row's four lanes sums its own keys

  for (int start = 0; start < end; start += KEYS) {
    if constexpr (in_background) {
      load_values(start);  // while the scores are computed
    } else {
      load_keys(start);
      load_values(start);
      arrive();
    }
    float scores[KEYS / 8][4] = {};
    score<T, D, KEYS>(scores, warp_queries, k_tile);

    const bool ragged = start + KEYS > keys;
    const bool diagonal = MASK == CAUSAL && start + KEYS - 1 > offset + first + 16 * warp;
#pragma unroll
    for (int n = 0; n < KEYS / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int key = start + 8 * n + 2 * pair + i % 2, query = row[i / 2];
        float& x = scores[n][i];
        x *= scale * LOG2E;
        if (diagonal && key > offset + query) x = HIDDEN;
        if constexpr (MASK == BOOLEAN || MASK == ADDITIVE) {
          if (query < queries && key < keys) {
            const M own = mask.data[query * mask.row + key * mask.column];
            if constexpr (MASK == BOOLEAN) {
              if (!own) x = HIDDEN;
            } else {
              x += widen(own) * LOG2E;
            }
          }
        }
        if (ragged && key >= keys) x = -infinity();
      }
    }

#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float largest = row_max[r];
#pragma unroll
      for (int n = 0; n < KEYS / 8; ++n) largest = fmaxf(largest, fmaxf(scores[n][2 * r], scores[n][2 * r + 1]));
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffff, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffff, largest, 2));
      const float from = largest == -infinity() ? 0 : largest;  // an additive mask may hide a whole block
      const float shrink = power_of_two(row_max[r] - from);
      row_max[r] = largest;
      row_sum[r] *= shrink;
#pragma unroll
      for (int n = 0; n < KEYS / 8; ++n) {
#pragma unroll
        for (int i = 2 * r; i < 2 * r + 2; ++i) {
          scores[n][i] = power_of_two(scores[n][i] - from);
          row_sum[r] += scores[n][i];
        }
      }
#pragma unroll
      for (int m = 0; m < tiles; ++m) {
        result[m][2 * r] *= shrink;
        result[m][2 * r + 1] *= shrink;
      }
    }
    if constexpr (in_background) {
      arrive();
      if (start + KEYS < end) load_keys(start + KEYS);  // while the values are added
    }
    add_values<T, DV, KEYS>(result, scores, v_tile);
    arrive();
  }

#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float sum = row_sum[r];
    sum += __shfl_xor_sync(0xffffffff, sum, 1);
    sum += __shfl_xor_sync(0xffffffff, sum, 2);
    if (row[r] >= queries) continue;
#pragma unroll
    for (int m = 0; m < tiles; ++m) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int column = 8 * m + 2 * pair + i;
        if (column < DV) out[int64_t(row[r]) * DV + column] = narrow<T>(result[m][2 * r + i] / sum);
      }
    }
  }
}

}  // namespace flash
