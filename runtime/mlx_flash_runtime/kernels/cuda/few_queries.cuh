// Attention of few queries on many keys: a step of decoding, or a draft that is verified. All query
// heads that share a key head are rows of one product, and the keys are split over blocks of
// threads. The last of those that is done puts the results of all together.
//
// What it takes is the time to read keys and values once, so they go from memory to registers, with
// shared memory left out. In a product it is free which number of a row stands in which column, as
// long as both factors agree: so a lane reads 8 neighbours at once, and has of them the operands of
// two products of keys (mma.sync, m16n8k16), or of eight of values.
//
// A warp has 16 rows, the keys of one part, and one of SLICES parts of the head dims; the WARPS of a
// block have TILES times 16 rows. See few_queries.py.

#pragma once

#include "products.cuh"
#include "softmax.cuh"

namespace flash {

enum : int {
  KEYS_AT_ONCE = 16,   // of a warp
  KEY_DIMS = 32,       // a step along keys: 8 for each of a row's four lanes
  VALUE_DIMS = 64,     // a step along values: 8 for each of a column's eight lanes
};

// Keys or values of one head. `read` starts to read 8 neighbours of a row, which `unpack` makes
// numbers of 16 bits.
template <typename T, bool WHOLE>
struct Plain {
  using Packed = uint4;
  Rows<T> rows;

  __device__ Packed read(int row, int column) const {
    const T* from = rows.data + row * rows.stride + column * rows.step;
    if constexpr (WHOLE) return load_16_bytes(from);
    uint4 value;
#pragma unroll
    for (int i = 0; i < 8; ++i) reinterpret_cast<T*>(&value)[i] = from[i * rows.step];
    return value;
  }

  __device__ uint4 unpack(const Packed& packed) const { return packed; }
};

// The same as `mx.quantize` packs them: words of BITS for each number, and for GROUP of them a scale
// and a bias.
template <typename T, int BITS, int GROUP>
struct Quantized {
  struct Packed {
    uint32_t words[BITS / 4];
    T scale, bias;
  };
  Rows<uint32_t> words;
  Rows<T> scales, biases;

  __device__ Packed read(int row, int column) const {
    Packed packed;
#pragma unroll
    for (int i = 0; i < BITS / 4; ++i) {
      const int word = column * BITS / 32 + i;
      packed.words[i] = load_word(words.data + row * words.stride + word * words.step);
    }
    packed.scale = scales.data[row * scales.stride + column / GROUP * scales.step];
    packed.bias = biases.data[row * biases.stride + column / GROUP * biases.step];
    return packed;
  }

  __device__ uint4 unpack(const Packed& packed) const {
    const float scale = widen(packed.scale), bias = widen(packed.bias);
    uint32_t pairs[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float pair[2];
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int bit = (2 * i + j) * BITS;
        const uint32_t number = packed.words[bit / 32] >> bit % 32 & ((1u << BITS) - 1);
        // 2^23 + number, without a conversion: those are slow.
        pair[j] = __fmaf_rn(__uint_as_float(0x4b000000 | number) - 8388608.0f, scale, bias);
      }
      pairs[i] = pack<T>(pair[0], pair[1]);
    }
    return {pairs[0], pairs[1], pairs[2], pairs[3]};
  }
};

// The queries of the heads that share a key head: row `r` is query `r % length` of head `r / length`.
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
        if constexpr (KIND == ADDITIVE) {
          // The most negative number of a type would be minus infinity in powers of two.
          const float added = widen(entries[n][i]);
          x += added * LOG2E;
          if (added != -infinity()) x = fmaxf(x, HIDDEN);
        }
        if (key >= keys) x = -infinity();
      }
    }
  }
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
    for (int other = 0; other < SLICES; ++other) sum += own[(8 * (warp - slice + other) + i) * WARP];
    scores[i / 4][i % 4] = sum;
  }
}

// What a warp leaves of its part in shared memory, in places of WARP numbers, one of each lane: sums
// of weighted values, then the largest scores of its two rows, then the sums of their weights.
template <int STEPS>
struct Left {
  static constexpr int VALUES = 32 * STEPS, PLACES = VALUES + 4;
};

template <int STEPS>
__device__ void leave(const RowSums& softmax, const float (&result)[8 * STEPS][4], float* to) {
#pragma unroll
  for (int i = 0; i < 32 * STEPS; ++i) to[i * WARP] = result[i / 4][i % 4];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float sum = softmax.row_sum[r];
    sum += __shfl_xor_sync(0xffffffff, sum, 1);
    sum += __shfl_xor_sync(0xffffffff, sum, 2);
    to[(Left<STEPS>::VALUES + r) * WARP] = softmax.row_max[r];
    to[(Left<STEPS>::VALUES + 2 + r) * WARP] = sum;
  }
}

// Of what the warps of one tile and slice have left, each lane's 8 neighbouring dims of one row: a
// lane has of each step along values two rows, and two runs of 8 dims there.
template <int STEPS>
struct Run {
  int tile_and_slice, step, row, column;
  float x[8] = {}, largest = -infinity(), sum = 0;

  __device__ explicit Run(int number)
      : tile_and_slice(number / (4 * STEPS)), step(number / 4 % STEPS), row(number / 2 % 2),
        column(number % 2) {}

  __device__ int place(int m) const { return (8 * step + m) * 4 + 2 * row + column; }

  // Adds up what COUNT have left; `read` gives a lane's number at a place of one of them.
  template <int COUNT, typename Read>
  __device__ void add(Read read) {
    float from[COUNT];
    largest = -infinity(), sum = 0;
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
      from[i] = read(i, Left<STEPS>::VALUES + row);
      largest = fmaxf(largest, from[i]);
    }
    const float base = largest == -infinity() ? 0 : largest;
    float total[8] = {};
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
      const float weight = power_of_two(from[i] - base);
      sum += weight * read(i, Left<STEPS>::VALUES + 2 + row);
#pragma unroll
      for (int m = 0; m < 8; ++m) total[m] += weight * read(i, place(m));
    }
#pragma unroll
    for (int m = 0; m < 8; ++m) x[m] = total[m];
  }
};

// Where answers go, and, where the keys are split, what is left for the last block: sums of weighted
// values in `parts`, [rows, splits, DV], in `sums`, [rows, splits], the largest score and the sum of
// the weights, and the flags of the blocks. All are those of the block's key head, the flags those of
// the blocks that have its rows.
template <typename T>
struct Results {
  T* out;
  float* parts;
  float2* sums;
  uint64_t* flags;
  const float* sinks;  // of the block's query heads, or null

  // What sums of weighted values, relative to `largest`, are to be multiplied with: a sink takes its
  // share of the weights. Without any weight that is 1 / 0.
  __device__ float share(float largest, float sum, int head) const {
    const float sink = sinks ? sinks[head] * LOG2E : -infinity();
    const float both = fmaxf(largest, sink);
    if (both == -infinity()) return infinity();
    const float factor = power_of_two(largest - both);
    return factor / (sum * factor + power_of_two(sink - both));
  }

  template <int DV, int SLICES, int STEPS>
  __device__ void write(const Run<STEPS>& run, FoldedRows folded, int first_row) const {
    const int lane = threadIdx.x % WARP, slice = run.tile_and_slice % SLICES;
    const int row = first_row + run.tile_and_slice / SLICES * WARP_QUERIES + 8 * run.row + lane / 4;
    const int dim = (slice + SLICES * run.step) * VALUE_DIMS + 8 * (lane % 4 * 2 + run.column);
    if (row >= folded.count || dim >= DV) return;
    const float(&x)[8] = run.x;
    const int splits = gridDim.x;
    if (splits == 1) {
      const float by = share(run.largest, run.sum, folded.head(row));
      *reinterpret_cast<uint4*>(out + int64_t(row) * DV + dim) = {
          pack<T>(x[0] * by, x[1] * by), pack<T>(x[2] * by, x[3] * by),
          pack<T>(x[4] * by, x[5] * by), pack<T>(x[6] * by, x[7] * by)};
      return;
    }
    const int64_t at = int64_t(row) * splits + blockIdx.x;
    float4* to = reinterpret_cast<float4*>(parts + at * DV + dim);
    to[0] = {x[0], x[1], x[2], x[3]}, to[1] = {x[4], x[5], x[6], x[7]};
    if (dim == 0) sums[at] = {run.largest, run.sum};
  }

  // Whether all splits of these rows have left their results; of the blocks that ask when they have
  // left theirs, one at least is told so, the last.
  //
  // Nobody clears the flags before a launch, as that would be a launch of its own: what is set is a
  // number that memory does not hold by chance, and the last block sets them back. Should two blocks
  // both be the last, they write the same.
  __device__ bool is_last() const {
    constexpr uint64_t left = 0x9e3779b97f4a7c15;
    const int thread = threadIdx.x, threads = blockDim.x, splits = gridDim.x;
    __syncthreads();
    if (thread == 0) {
      fence_memory();  // for what all threads have written
      store_flag(flags + blockIdx.x, left);
      fence_memory();  // before any flag is read
    }
    __syncthreads();
    bool all = true;
    for (int split = thread; split < splits; split += threads)
      all = load_written(flags + split) == left && all;
    if (thread < splits) fence_memory();  // before anything else is read
    return __syncthreads_and(all);
  }

  // Puts the splits of `count` rows together.
  template <int DV>
  __device__ void combine(FoldedRows folded, int first_row, int count) const {
    const int threads = blockDim.x, warps = threads / WARP, splits = gridDim.x;
    const int lane = threadIdx.x % WARP;
    for (int split = threadIdx.x; split < splits; split += threads) store_flag(flags + split, 0);
    const int end = min(first_row + count, folded.count);
    for (int row = first_row + threadIdx.x / WARP; row < end; row += warps) {
      const float2* states = sums + int64_t(row) * splits;
      float largest = -infinity(), sum = 0;
      for (int split = lane; split < splits; split += WARP)
        largest = fmaxf(largest, load_written(states + split).x);
#pragma unroll
      for (int step = WARP / 2; step > 0; step /= 2)
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffff, largest, step));
      const float base = largest == -infinity() ? 0 : largest;

      constexpr int quads = DV / 4, own_quads = (quads + WARP - 1) / WARP;
      float4 total[own_quads] = {};
#pragma unroll 8
      for (int split = 0; split < splits; ++split) {
        const float2 state = load_written(states + split);
        const float weight = power_of_two(state.x - base);
        sum += weight * state.y;
        const float* part = parts + (int64_t(row) * splits + split) * DV;
#pragma unroll
        for (int i = 0; i < own_quads; ++i) {
          const int quad = lane + WARP * i;
          if (quads % WARP && quad >= quads) continue;
          const float4 x = load_written(reinterpret_cast<const float4*>(part) + quad);
          total[i].x += weight * x.x, total[i].y += weight * x.y;
          total[i].z += weight * x.z, total[i].w += weight * x.w;
        }
      }
      const float by = share(largest, sum, folded.head(row));
#pragma unroll
      for (int i = 0; i < own_quads; ++i) {
        const int quad = lane + WARP * i;
        if (quad >= quads) continue;
        const float4 x = total[i];
        *reinterpret_cast<uint2*>(out + int64_t(row) * DV + 4 * quad) = {
            pack<T>(x.x * by, x.y * by), pack<T>(x.z * by, x.w * by)};
      }
    }
  }
};

// The parts of a block's warps, and then the splits, put together. `left` is for what each warp
// leaves.
template <typename T, int DV, int SLICES, int TILES, int WARPS, int STEPS>
__device__ void put_together(const RowSums& softmax, const float (&result)[8 * STEPS][4],
                             float* left, const Results<T>& results, FoldedRows folded,
                             int first_row) {
  constexpr int RUNS = 4 * STEPS * SLICES * TILES, PARTS = WARPS / (SLICES * TILES);
  constexpr int SIZE = Left<STEPS>::PLACES * WARP;
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  leave<STEPS>(softmax, result, left + warp * SIZE + lane);
  __syncthreads();
  for (int number = warp; number < RUNS; number += WARPS) {
    Run<STEPS> run(number);
    const float* own = left + run.tile_and_slice * SIZE + lane;
    run.template add<PARTS>([&](int part, int place) {
      return own[part * SLICES * TILES * SIZE + place * WARP];
    });
    results.template write<DV, SLICES>(run, folded, first_row);
  }
  if (gridDim.x > 1 && results.is_last())
    results.template combine<DV>(folded, first_row, WARP_QUERIES * TILES);
}

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

  const int threads = blockDim.x, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  const int lane_row = lane / 4, lane_pair = lane % 4;
  const int slice = warp % SLICES, tile = warp / SLICES % TILES, part = warp / (SLICES * TILES);
  const int first_row = ROWS * block + WARP_QUERIES * tile;

  // The keys of this warp's part; those that a window hides from all queries are not looked at.
  const int begin =
      KIND == WINDOW ? max(0, keys - folded.length - mask.window + 1) / KEYS_AT_ONCE * KEYS_AT_ONCE : 0;
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

  const bool whole = q.is_whole();
  constexpr int chunks = key_steps * 4;
  for (int i = threadIdx.x; i < ROWS * chunks; i += threads) {
    const int row = ROWS * block + i / chunks, column = i % chunks * 8;
    const bool inside = row < folded.count && column < D;
    const Rows<T> from = inside ? q.from(folded.query(row), folded.head(row)) : q.rows;
    copy_chunk<T, D>(queries + i / chunks * row_bytes + column * 2, from, 0, column, inside, whole);
  }
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
