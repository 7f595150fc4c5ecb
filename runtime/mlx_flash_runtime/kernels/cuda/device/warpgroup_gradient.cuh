// Gradients of attention by the products of warpgroups (wgmma): what gradient.cuh does, in the manner
// of warpgroup_attention.cuh. The first warpgroup of a block of threads, the producer, copies what
// passes by; CONSUMERS others have 64 rows of their own each. Scores of one block of passing rows run
// together with the last product of the block before.
//
// The tiles' sizes and CONSUMERS are chosen in gradient_tiles.py, where the sum of the shared memory
// stands.

#pragma once

#include "sides.cuh"
#include "warpgroup_products.cuh"

namespace flash {

// Which of the gradients a kernel makes, as constants.
template <int OF>
struct Makes {
  static constexpr bool by_keys = OF != OF_QUERIES;
  static constexpr bool of_d = OF != OF_VALUES;
  static constexpr bool of_dv = OF == OF_VALUES || OF == OF_KEYS_AND_VALUES;
  // Tiles in turn of what passes by: what has DV elements is needed to the end of a block for the
  // gradient of the values alone, so one of them is enough for the others.
  static constexpr int stages = 2, v_stages = of_dv ? 2 : 1;
};

__shared__ Barrier gradient_barriers[8];

// What is in shared memory: a block's own rows, then what passes by, with what its queries left.
template <int D, int DV, int ROWS, int PASSING, int OF>
struct GradientMemory {
  using It = Makes<OF>;
  static constexpr int rows = PASSING * 8 * panels(D), v_rows = PASSING * 8 * panels(DV);
  // Two queries in 16 bytes; tiles begin at multiples of 1,024 bytes.
  static constexpr int states = It::by_keys ? (PASSING / 2 + 63) / 64 * 64 : 0;

  uint4 *own, *own_v;
  Ring<It::stages> passing;
  Ring<It::v_stages> v_passing;

  __device__ GradientMemory(uint4* memory, Barrier* barriers)
      : own(memory), own_v(own + ROWS * 8 * panels(D)),
        passing{own_v + (It::of_d ? ROWS * 8 * panels(DV) : 0), rows + states, barriers,
                barriers + It::stages},
        v_passing{passing.tiles + It::stages * passing.chunks, v_rows, barriers + 4,
                  barriers + 4 + It::v_stages} {}

  __device__ float4* states_of(int block) const {
    return reinterpret_cast<float4*>(passing.tile(block) + rows);
  }
};

// Own rows and all blocks, in the order in which they are needed.
template <typename T, int D, int DV, int ROWS, int PASSING, int OF>
__device__ void produce(GradientMemory<D, DV, ROWS, PASSING, OF>& tiles, const Side<T>& own,
                        const Side<T>& passing, const Heads& heads, const QueryState* states,
                        int first, int length, int passing_length, int begin, int blocks) {
  const bool whole = own.is_whole() && passing.is_whole();
  const auto arrive = [&](auto& ring, int block) {
    if (whole) {
      ring.arrive_full_when_copied(block);
    } else {
      commit_copies();
      wait_for_committed_copies<0>();
      ring.arrive_full(block);
    }
  };
  load_panels<T, D, ROWS>(tiles.own, own.of_d.from(first), length - first);
  if constexpr (Makes<OF>::of_d)
    load_panels<T, DV, ROWS>(tiles.own_v, own.of_dv.from(first), length - first);
  for (int head = 0, block = 0; head < heads.count; ++head) {
    for (int i = 0; i < blocks; ++i, ++block) {
      const int start = begin + i * PASSING;
      tiles.passing.wait_until_empty(block);
      load_panels<T, D, PASSING>(tiles.passing.tile(block), passing.of_d.from(start, head),
                                 passing_length - start);
      if constexpr (Makes<OF>::by_keys)
        copy_states<PASSING>(tiles.states_of(block), states + head * heads.states + start);
      arrive(tiles.passing, block);
      tiles.v_passing.wait_until_empty(block);
      load_panels<T, DV, PASSING>(tiles.v_passing.tile(block), passing.of_dv.from(start, head),
                                  passing_length - start);
      arrive(tiles.v_passing, block);
    }
  }
}

// What a consumer has in registers.
template <typename T, int D, int DV, int ROWS, int PASSING, int OF>
struct GradientConsumer {
  using It = Makes<OF>;
  static_assert(PASSING == PANEL, "the columns of one product");
  static constexpr int steps = (D + 15) / 16, v_steps = (DV + 15) / 16;
  // Numbers that are there at once: sums of the gradients, scores and their gradients, and both as
  // operands. A thread has 232 registers; own rows are kept in what they leave, for products that
  // read less of shared memory.
  static constexpr int sums = (It::of_d ? 32 * panels(D) : 0) + (It::of_dv ? 32 * panels(DV) : 0);
  static constexpr int taken = sums + 48 * (It::of_d ? 2 : 1), most = 208;
  static constexpr bool kept = taken + 4 * steps <= most;
  // Whether they leave none: the sums of both gradients are then added to together, when the scores
  // are operands.
  static constexpr bool full = It::of_d && It::of_dv && taken > most;
  static constexpr bool v_kept =
      It::of_d && taken + (kept ? 4 * steps : 0) + 4 * v_steps <= most;

  GradientMemory<D, DV, ROWS, PASSING, OF>& tiles;
  uint64_t own, own_v;
  uint32_t own_rows[kept ? steps : 1][4], own_v_rows[v_kept ? v_steps : 1][4];
  uint32_t weights[PASSING / 16][4], d_scores[PASSING / 16][4];
  float scores[PASSING / 8][4], gradients[PASSING / 8][4];
  float d_sums[It::of_d ? 8 * panels(D) : 8][4] = {}, dv_sums[It::of_dv ? 8 * panels(DV) : 8][4] = {};

  __device__ GradientConsumer(GradientMemory<D, DV, ROWS, PASSING, OF>& tiles, int warp)
      : tiles(tiles) {
    // By __shfl_sync, as the compiler would not know that it is the same in all lanes.
    const int rows = __shfl_sync(0xffffffff, warp / 4, 0) * WARPGROUP_QUERIES * 8;
    own = matrix_descriptor(tiles.own + rows), own_v = matrix_descriptor(tiles.own_v + rows);
    if constexpr (kept) keep(own_rows, tiles.own, warp);
    if constexpr (v_kept) keep(own_v_rows, tiles.own_v, warp);
  }

  template <int STEPS>
  __device__ static void keep(uint32_t (&rows)[STEPS][4], const uint4* tile, int warp) {
    const int lane = threadIdx.x % WARP;
#pragma unroll
    for (int step = 0; step < STEPS; ++step) {
      load_matrices(rows[step], tile + swizzled(WARP_QUERIES * warp + lane % WARP_QUERIES,
                                                2 * step + lane / 16, ROWS));
    }
  }

  // scores = own rows times the passing ones.
  __device__ void start_scores(int block) {
    start_product<kept, steps>(scores, own_rows, own, tiles.passing.tile(block));
  }

  // The gradients of their weights: the same with what has DV elements.
  __device__ void start_gradients(int block) {
    start_product<v_kept, v_steps>(gradients, own_v_rows, own_v, tiles.v_passing.tile(block));
  }

  template <bool KEPT, int STEPS, int ROWS_KEPT>
  __device__ static void start_product(float (&sums)[8][4], const uint32_t (&rows)[ROWS_KEPT][4],
                                       uint64_t a, const uint4* tile) {
    const uint64_t b = matrix_descriptor(tile);
#pragma unroll
    for (int step = 0; step < STEPS; ++step) {
      // A step is 16 elements, 2 of the descriptor's 16 bytes; a panel has 4 of them.
      const int panel = step / 4, within = step % 4 * 2;
      if constexpr (KEPT) {
        start_product_of_keys<T>(sums, rows[step], b + panel * PASSING * 8 + within, step > 0);
      } else {
        start_product_of_keys<T>(sums, a + panel * ROWS * 8 + within,
                                 b + panel * PASSING * 8 + within, step > 0);
      }
    }
    commit_products();
  }

  // sums += factors times a tile of passing rows.
  template <int TILES>
  __device__ static void start_sums(float (&sums)[TILES][4],
                                    const uint32_t (&factors)[PASSING / 16][4], const uint4* tile) {
    const uint64_t b = matrix_descriptor(tile);
#pragma unroll
    for (int panel = 0; panel < TILES / 8; ++panel) {
#pragma unroll
      for (int step = 0; step < PASSING / 16; ++step) {
        start_product_of_values<T>(*reinterpret_cast<float (*)[8][4]>(&sums[8 * panel]),
                                   factors[step], b + (panel * PASSING + step * 16) * 8);
      }
    }
    commit_products();
  }

  // Results of products as the first operand of others.
  __device__ static void pack_rows(uint32_t (&to)[PASSING / 16][4],
                                   const float (&from)[PASSING / 8][4]) {
#pragma unroll
    for (int step = 0; step < PASSING / 16; ++step) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float (&columns)[4] = from[2 * step + i / 2];
        to[step][i] = pack<T>(columns[i % 2 * 2], columns[i % 2 * 2 + 1]);
      }
    }
  }
};

template <typename T, int D, int DV, int CONSUMERS, int PASSING, int KIND, typename M, int OF>
__device__ void gradient(const Side<T>& own, const Side<T>& passing, Mask<M> mask,
                         const Heads& heads, float scale, int queries, int keys,
                         const QueryState* states, ResultRows<T> d_of_d, ResultRows<T> d_of_dv) {
  using It = Makes<OF>;
  using Scores = Weights<KIND, M, It::by_keys>;
  constexpr int ROWS = WARPGROUP_QUERIES * CONSUMERS;
  // As the swizzle of warpgroup_products.cuh needs it.
  extern __shared__ __align__(1024) uint4 shared[];
  GradientMemory<D, DV, ROWS, PASSING, OF> tiles(shared, gradient_barriers);
  if (threadIdx.x == 0) {
    constexpr int readers = WARPGROUP / WARP * CONSUMERS;
    tiles.passing.make(WARPGROUP, readers);
    tiles.v_passing.make(WARPGROUP, readers);
  }
  __syncthreads();

  const int first = first_row<It::by_keys>(ROWS), last = first + ROWS - 1;
  const int length = It::by_keys ? keys : queries, passing_length = It::by_keys ? queries : keys;
  const int begin = Scores::begin(mask, queries, keys, first) / PASSING * PASSING;
  const int blocks =
      max(0, (Scores::end(mask, queries, keys, last) - begin + PASSING - 1) / PASSING);
  if (threadIdx.x < WARPGROUP) {
    give_registers<producer_registers(CONSUMERS)>();
    if (blocks > 0)
      produce(tiles, own, passing, heads, states, first, length, passing_length, begin, blocks);
    return;
  }
  take_registers<consumer_registers(CONSUMERS)>();

  const int warp = threadIdx.x / WARP - WARPGROUP / WARP, row = first + WARP_QUERIES * warp;
  const int all_blocks = blocks * heads.count;
  if (all_blocks > 0) tiles.passing.wait_until_full(0);
  fence_copies();
  using Consumer = GradientConsumer<T, D, DV, ROWS, PASSING, OF>;
  Consumer consumer(tiles, warp);
  Scores weights(mask, scale, queries, keys, row, states);
  fence_products();
  consumer.start_scores(0);
  wait_for_products<0>(consumer.scores);

  int block = 0, start;
  // From the scores of a block to those of the next one. After the last block these are of whatever
  // lies in the next tile: nobody looks at them, and the product is in no branch.
  const auto step = [&](auto hidden) {
    if constexpr (It::of_d) {
      tiles.v_passing.wait_until_full(block);
      fence_copies();
      fence_products();
      consumer.start_gradients(block);
    }
    weights.template weigh<hidden.value>(consumer.scores, start, tiles.states_of(block));
    if constexpr (It::of_dv) {
      consumer.pack_rows(consumer.weights, consumer.scores);
      if constexpr (!It::of_d) {
        tiles.v_passing.wait_until_full(block);
        fence_copies();
      }
      if constexpr (!Consumer::full) {
        fence_products();
        consumer.start_sums(consumer.dv_sums, consumer.weights, tiles.v_passing.tile(block));
      }
    }
    if constexpr (It::of_d) {
      wait_for_products<It::of_dv && !Consumer::full ? 1 : 0>(consumer.gradients);
      if constexpr (!It::of_dv) tiles.v_passing.arrive_empty(block);
      weights.template differentiate<hidden.value>(consumer.gradients, consumer.scores,
                                                   tiles.states_of(block));
      consumer.pack_rows(consumer.d_scores, consumer.gradients);
      fence_products();
      if constexpr (Consumer::full)
        consumer.start_sums(consumer.dv_sums, consumer.weights, tiles.v_passing.tile(block));
      consumer.start_sums(consumer.d_sums, consumer.d_scores, tiles.passing.tile(block));
    }
    if (block + 1 < all_blocks) tiles.passing.wait_until_full(block + 1);
    fence_copies();
    fence_products();
    consumer.start_scores(block + 1);
    wait_for_products<0>(consumer.scores);
    if constexpr (It::of_d) wait_for_products<0>(consumer.d_sums);
    if constexpr (It::of_dv) wait_for_products<0>(consumer.dv_sums);
    tiles.passing.arrive_empty(block);
    if constexpr (It::of_dv) tiles.v_passing.arrive_empty(block);
    ++block, start += PASSING;
  };

  // Blocks before `seen` and from `seen_end` on have scores that are hidden from this warpgroup.
  const int group_first = first + warp / 4 * WARPGROUP_QUERIES;
  const int seen_begin =
      Scores::seen_begin(mask, queries, keys, group_first + WARPGROUP_QUERIES - 1) - begin;
  const int seen = min(blocks, max(0, (seen_begin + PASSING - 1) / PASSING));
  const int seen_end = min(
      blocks, max(0, Scores::seen_end(mask, queries, keys, group_first) - begin) / PASSING);
  for (int head = 0; head < heads.count; ++head) {
    if (head > 0) weights.mask.data += heads.mask;
    start = begin;
    int i = 0, stop = seen;
    do {
      for (; i < stop; ++i) step(Constant<true>());
      for (; i < seen_end; ++i) step(Constant<false>());
      stop = blocks;
    } while (i < blocks);
  }
  const int lane_row = row + threadIdx.x % WARP / 4;
  if constexpr (It::of_d)
    write_rows<T, D>(consumer.d_sums, {scale, scale}, d_of_d, lane_row, length);
  if constexpr (It::of_dv)
    write_rows<T, DV>(consumer.dv_sums, {1, 1}, d_of_dv, lane_row, length);
}

}  // namespace flash
