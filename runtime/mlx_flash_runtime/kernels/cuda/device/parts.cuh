// Results for parts of the keys, put together: those of a block's warps in shared memory, those of
// blocks by the last of them that is done.

#pragma once

#include "folded_rows.cuh"

namespace flash {

enum : int {
  VALUE_DIMS = 64,  // a step along values: 8 for each of a column's eight lanes
};

// What a warp leaves of its part in shared memory, in places of WARP numbers, one of each lane: a
// lane's sums of weighted values, then the largest scores of its two rows, then the sums of their
// weights. STEPS are those along values.
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

// Where answers go, and, where the keys are split, what is left for the last block: sums of
// weighted values in `parts`, [rows, splits, DV], in `sums`, [rows, splits], the largest score and
// the sum of the weights, and the flags of the blocks. All are those of the block's key head, the
// flags those of the blocks that have its rows.
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

}  // namespace flash
