// Rows of a product that are queries of several heads, and their masks.

#pragma once

#include "softmax.cuh"

namespace flash {

// The queries of the heads that share a key head: row `r` is query `r % length` of head
// `r / length`.
struct FoldedRows {
  int count, length;
  __device__ int head(int row) const { return row / length; }
  __device__ int query(int row) const { return row % length; }
};

// The mask of a lane's two rows. `next_head` are the elements from one head's mask to the next.
template <int KIND, typename M>
struct RowMasks {
  static constexpr bool is_array = KIND == BOOLEAN || KIND == ADDITIVE;
  const M* rows[2];
  int own_key[2];
  const int64_t column;
  const int window, keys;
  M entries[2][4];  // of the keys that `read` was for

  __device__ RowMasks(Mask<M> mask, int64_t next_head, FoldedRows folded, int first, int keys)
      : column(mask.column), window(mask.window), keys(keys) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = min(first + int(threadIdx.x) % WARP / 4 + 8 * r, folded.count - 1);
      rows[r] = mask.data + folded.head(row) * next_head + folded.query(row) * mask.row;
      own_key[r] = keys - folded.length + folded.query(row);
    }
  }

  // Which of a row's keys an element of its scores is for.
  __device__ static int key_of(int start, int tile, int i) {
    return start + 8 * tile + 2 * (threadIdx.x % 4) + i % 2;
  }

  __device__ void read(int start) {
    if constexpr (is_array) {
#pragma unroll
      for (int n = 0; n < 2; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i)
          entries[n][i] = rows[i / 2][min(key_of(start, n, i), keys - 1) * column];
      }
    }
  }

  // Scales scores and applies the mask; what lies beyond the last key has no weight at all.
  __device__ void hide(float (&scores)[2][4], int start, float scale) const {
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int key = key_of(start, n, i), own = own_key[i / 2];
        float& x = scores[n][i];
        x *= scale;
        if ((KIND == CAUSAL || KIND == WINDOW) && key > own) x = HIDDEN;
        if (KIND == WINDOW && key <= own - window) x = HIDDEN;
        if constexpr (KIND == BOOLEAN) x = entries[n][i] ? x : HIDDEN;
        if constexpr (KIND == ADDITIVE) x = with_mask(x, entries[n][i]);
        if (key >= keys) x = -infinity();
      }
    }
  }
};

}  // namespace flash
