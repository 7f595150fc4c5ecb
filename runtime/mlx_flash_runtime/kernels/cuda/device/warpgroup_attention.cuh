// Attention by the products of warpgroups (wgmma). The first warpgroup of a block of threads, the
// producer, copies blocks of keys and values; CONSUMERS others have 64 queries of one head each.
// While the products of one block of keys run, a consumer makes weights of the next one's scores
// (the design is that of FlashAttention-3, Shah et al. 2024, without its barriers by which
// consumers take turns: they drift apart by themselves).
//
// The tiles' sizes, CONSUMERS and KEYS, are chosen in attention_tiles.py, where the sum of the shared
// memory stands.

#pragma once

#include "softmax.cuh"
#include "warpgroup_products.cuh"

namespace flash {

// Tiles of keys, and of values.
enum : int { STAGES = 2 };

// Barriers in shared memory (mbarrier), one of each kind for each stage of a ring.
enum : int {
  KEYS_FULL = 0,
  KEYS_EMPTY = KEYS_FULL + STAGES,
  VALUES_FULL = KEYS_EMPTY + STAGES,
  VALUES_EMPTY = VALUES_FULL + STAGES,
  BARRIERS = VALUES_EMPTY + STAGES,
};
__shared__ Barrier barriers[BARRIERS];

// What is in shared memory: a block's queries, then the rings of its keys and values.
template <int D, int DV, int QUERIES, int KEYS>
struct SharedMemory {
  uint4* queries;
  Ring<STAGES> keys, values;

  __device__ SharedMemory(uint4* memory, Barrier* barriers)
      : queries(memory), keys{queries + QUERIES * 8 * panels(D), KEYS * 8 * panels(D),
                              barriers + KEYS_FULL, barriers + KEYS_EMPTY},
        values{keys.tiles + STAGES * keys.chunks, KEYS * 8 * panels(DV), barriers + VALUES_FULL,
               barriers + VALUES_EMPTY} {}
};

// Queries and all blocks, in the order in which they are needed.
template <typename T, int D, int DV, int QUERIES, int KEYS>
__device__ void produce(SharedMemory<D, DV, QUERIES, KEYS>& tiles, const Rows<T>& q,
                        const Rows<T>& k, const Rows<T>& v, int queries, int keys, int begin,
                        int blocks) {
  const auto load_keys = [&](int block) {
    const int start = begin + block * KEYS;
    tiles.keys.wait_until_empty(block);
    load_panels<T, D, KEYS>(tiles.keys.tile(block), {k.data + start * k.stride, k.stride, k.step},
                            keys - start);
  };
  const auto load_values = [&](int block) {
    const int start = begin + block * KEYS;
    tiles.values.wait_until_empty(block);
    load_panels<T, DV, KEYS>(tiles.values.tile(block),
                             {v.data + start * v.stride, v.stride, v.step}, keys - start);
  };
  load_panels<T, D, QUERIES>(tiles.queries, q, queries);
  load_keys(0);
  commit_copies();
  for (int block = 0; block < blocks; ++block) {
    const bool more = block + 1 < blocks;
    if (more) load_keys(block + 1);
    commit_copies();
    wait_for_committed_copies<1>();
    if (block == 0) {
      tiles.keys.arrive_full(0);
    } else {
      tiles.values.arrive_full(block - 1);
    }
    load_values(block);
    commit_copies();
    wait_for_committed_copies<1>();
    if (more) tiles.keys.arrive_full(block + 1);
  }
  wait_for_committed_copies<0>();
  tiles.values.arrive_full(blocks - 1);
}

// What a consumer has in registers.
template <typename T, int D, int DV, int QUERIES, int KEYS>
struct Consumer {
  static constexpr int steps = (D + 15) / 16;
  // Whether its queries are there too, 4 registers for each product along a row: at most 32.
  static constexpr bool kept = steps <= 8;

  SharedMemory<D, DV, QUERIES, KEYS>& tiles;
  uint64_t queries;
  uint32_t own[kept ? steps : 1][4], weights[KEYS / 16][4];
  float scores[KEYS / 8][4], result[8 * panels(DV)][4] = {};

  __device__ Consumer(SharedMemory<D, DV, QUERIES, KEYS>& tiles, int warp) : tiles(tiles) {
    // By __shfl_sync, as the compiler would not know that it is the same in all lanes.
    queries = matrix_descriptor(tiles.queries +
                                __shfl_sync(0xffffffff, warp / 4, 0) * WARPGROUP_QUERIES * 8);
    if constexpr (kept) {
      const int lane = threadIdx.x % WARP;
#pragma unroll
      for (int step = 0; step < steps; ++step) {
        load_matrices(own[step], tiles.queries + swizzled(WARP_QUERIES * warp + lane % WARP_QUERIES,
                                                          2 * step + lane / 16, QUERIES));
      }
    }
  }

  __device__ void start_scores(int block) {
    const uint64_t keys = matrix_descriptor(tiles.keys.tile(block));
#pragma unroll
    for (int part = 0; part < KEYS / 64; ++part) {
#pragma unroll
      for (int step = 0; step < steps; ++step) {
        // A step is 16 elements, 2 of the descriptor's 16 bytes; a panel has 4 of them.
        const int panel = step / 4, within = step % 4 * 2;
        const uint64_t b = keys + (panel * KEYS + part * 64) * 8 + within;
        if constexpr (kept) {
          start_product_of_keys<T>(part_of(scores, part), own[step], b, step > 0);
        } else {
          start_product_of_keys<T>(part_of(scores, part), queries + panel * QUERIES * 8 + within, b,
                                   step > 0);
        }
      }
    }
    commit_products();
  }

  __device__ void start_values(int block) {
    const uint64_t values = matrix_descriptor(tiles.values.tile(block));
#pragma unroll
    for (int panel = 0; panel < panels(DV); ++panel) {
#pragma unroll
      for (int step = 0; step < KEYS / 16; ++step) {
        start_product_of_values<T>(part_of(result, panel), weights[step],
                                   values + (panel * KEYS + step * 16) * 8);
      }
    }
    commit_products();
  }

  // Scores, weights by now, as the first operand of products.
  __device__ void pack_weights() {
#pragma unroll
    for (int step = 0; step < KEYS / 16; ++step) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float (&columns)[4] = scores[2 * step + i / 2];
        weights[step][i] = pack<T>(columns[i % 2 * 2], columns[i % 2 * 2 + 1]);
      }
    }
  }

  template <int TILES>
  __device__ static float (&part_of(float (&sums)[TILES][4], int part))[8][4] {
    return *reinterpret_cast<float (*)[8][4]>(&sums[8 * part]);
  }
};

template <typename T, int D, int DV, int CONSUMERS, int KEYS, int KIND, typename M>
__device__ void attention(Rows<T> q, Rows<T> k, Rows<T> v, Mask<M> mask, const float* sink,
                          float scale, int queries, int keys, ResultRows<T> out,
                          float* logsumexp) {
  constexpr int QUERIES = WARPGROUP_QUERIES * CONSUMERS;
  // As the swizzle of warpgroup_products.cuh needs it.
  extern __shared__ __align__(1024) uint4 shared[];
  SharedMemory<D, DV, QUERIES, KEYS> tiles(shared, barriers);
  if (threadIdx.x == 0) {
    constexpr int readers = WARPGROUP / WARP * CONSUMERS;
    tiles.keys.make(WARPGROUP, readers);
    tiles.values.make(WARPGROUP, readers);
  }
  __syncthreads();

  // Blocks of threads start in the order of blockIdx. The last queries see the most keys of a
  // causal mask: begun first, they do not run alone at the end.
  const int first = (gridDim.x - 1 - blockIdx.x) * QUERIES;
  const int begin = Softmax<KIND, M>::begin(mask, queries, keys, first) / KEYS * KEYS;
  const int blocks =
      (Softmax<KIND, M>::end(queries, keys, first + QUERIES - 1) - begin + KEYS - 1) / KEYS;
  if (threadIdx.x < WARPGROUP) {
    give_registers<producer_registers(CONSUMERS)>();
    produce(tiles, {q.data + first * q.stride, q.stride, q.step}, k, v, queries - first, keys,
            begin, blocks);
    return;
  }
  take_registers<consumer_registers(CONSUMERS)>();

  const int warp = threadIdx.x / WARP - WARPGROUP / WARP,
            all_see = Softmax<KIND, M>::all_see(queries, keys, first, scale) / KEYS;
  Softmax<KIND, M> softmax(mask, sink, scale, queries, keys, first + WARP_QUERIES * warp);
  float shrink[2];
  tiles.keys.wait_until_full(0);
  Consumer<T, D, DV, QUERIES, KEYS> own(tiles, warp);

  fence_products();
  own.start_scores(0);
  wait_for_products<0>(own.scores);
  tiles.keys.arrive_empty(0);
  if (all_see == 0) softmax.hide(own.scores, begin);
  softmax.weigh(own.scores, all_see == 0, shrink);
  own.pack_weights();
  if (blocks > 1) tiles.keys.wait_until_full(1);

  int block = 1;
  const auto step = [&](auto hidden) {
    fence_products();
    own.start_scores(block);
    tiles.values.wait_until_full(block - 1);
    own.start_values(block - 1);
    wait_for_products<1>(own.scores);
    tiles.keys.arrive_empty(block);
    if constexpr (hidden.value) softmax.hide(own.scores, begin + block * KEYS);
    softmax.weigh(own.scores, hidden.value, shrink);
    // Here, as the compiler moves the wait for products that follows up to the nearest branch
    // before it: with this one in between it stays below the weights.
    if (block + 1 < blocks) tiles.keys.wait_until_full(block + 1);
    wait_for_products<0>(own.result);
    tiles.values.arrive_empty(block - 1);
    multiply_rows(own.result, shrink);
    own.pack_weights();
  };
  // Two loops rather than a branch inside one: the compiler keeps no product under way across a
  // branch, but waits for each.
  for (; block < all_see; ++block) step(Constant<false>());
  for (; block < blocks; ++block) step(Constant<true>());

  tiles.values.wait_until_full(blocks - 1);
  fence_products();
  own.start_values(blocks - 1);
  wait_for_products<0>(own.result);
  softmax.template write<T, DV>(own.result, out, logsumexp);
}

}  // namespace flash
