// Attention by the products of warpgroups. The first of a block of threads, the producer, copies blocks of keys and
// values; CONSUMERS others have 64 queries of one head each. While the products of one block of keys run, a consumer
// makes weights of the next one's scores (the design is that of FlashAttention-3, Shah et al. 2024, without its turns:
// consumers drift apart by themselves).

#pragma once

#include "softmax.cuh"
#include "warpgroup_products.cuh"

namespace flash {

constexpr int WARPGROUP = 128;

__shared__ Barrier barriers[8];

template <bool VALUE>
struct Constant {
  static constexpr bool value = VALUE;
};

// What is in shared memory, and barriers for it.
template <int D, int DV, int QUERIES, int KEYS>
struct Tiles {
  uint4* queries;
  Ring keys, values;

  __device__ Tiles(uint4* memory, Barrier* barriers)
      : queries(memory), keys{queries + QUERIES * 8 * panels(D), KEYS * 8 * panels(D), barriers, barriers + 2},
        values{keys.tiles + 2 * keys.chunks, KEYS * 8 * panels(DV), barriers + 4, barriers + 6} {}
};

// Queries and all blocks, in the order in which they are needed.
template <typename T, int D, int DV, int QUERIES, int KEYS>
__device__ void produce(Tiles<D, DV, QUERIES, KEYS>& tiles, const Rows<T>& q, const Rows<T>& k, const Rows<T>& v,
                        int queries, int keys, int begin, int blocks) {
  const auto load_keys = [&](int block) {
    const int start = begin + block * KEYS;
    tiles.keys.wait_until_empty(block);
    load_panels<T, D, KEYS>(tiles.keys.tile(block), {k.data + start * k.stride, k.stride, k.step}, keys - start);
  };
  const auto load_values = [&](int block) {
    const int start = begin + block * KEYS;
    tiles.values.wait_until_empty(block);
    load_panels<T, DV, KEYS>(tiles.values.tile(block), {v.data + start * v.stride, v.stride, v.step}, keys - start);
  };
  load_panels<T, D, QUERIES>(tiles.queries, q, queries);
  load_keys(0);
  close_copies();
  for (int block = 0; block < blocks; ++block) {
    const bool more = block + 1 < blocks;
    if (more) load_keys(block + 1);
    close_copies();
    wait_for_groups_of_copies<1>();
    if (block == 0) {
      tiles.keys.is_full(0);
    } else {
      tiles.values.is_full(block - 1);
    }
    load_values(block);
    close_copies();
    wait_for_groups_of_copies<1>();
    if (more) tiles.keys.is_full(block + 1);
  }
  wait_for_groups_of_copies<0>();
  tiles.values.is_full(blocks - 1);
}

// What a consumer has in registers.
template <typename T, int D, int DV, int QUERIES, int KEYS>
struct Consumer {
  static constexpr int steps = (D + 15) / 16;
  static constexpr bool kept = steps <= 8;  // whether its queries are there too

  Tiles<D, DV, QUERIES, KEYS>& tiles;
  uint64_t queries;
  uint32_t own[kept ? steps : 1][4], weights[KEYS / 16][4];
  float scores[KEYS / 8][4], result[8 * panels(DV)][4] = {};

  __device__ Consumer(Tiles<D, DV, QUERIES, KEYS>& tiles, int warp) : tiles(tiles) {
    // Of the warpgroup, which the compiler would not know to be the same in all lanes.
    queries = describe(tiles.queries + __shfl_sync(0xffffffff, warp / 4, 0) * 64 * 8);
    if constexpr (kept) {
      const int lane = threadIdx.x % 32;
#pragma unroll
      for (int step = 0; step < steps; ++step) {
        load_matrices(own[step], tiles.queries + swizzled(16 * warp + lane % 16, 2 * step + lane / 16, QUERIES));
      }
    }
  }

  __device__ void start_scores(int block) {
    const uint64_t keys = describe(tiles.keys.tile(block));
#pragma unroll
    for (int part = 0; part < KEYS / 64; ++part) {
#pragma unroll
      for (int step = 0; step < steps; ++step) {
        const int panel = step / 4, within = step % 4 * 2;
        const uint64_t b = keys + (panel * KEYS + part * 64) * 8 + within;
        if constexpr (kept) {
          start_product_of_keys<T>(part_of(scores, part), own[step], b, step > 0);
        } else {
          start_product_of_keys<T>(part_of(scores, part), queries + panel * QUERIES * 8 + within, b, step > 0);
        }
      }
    }
    close_products();
  }

  __device__ void start_values(int block) {
    const uint64_t values = describe(tiles.values.tile(block));
#pragma unroll
    for (int panel = 0; panel < panels(DV); ++panel) {
#pragma unroll
      for (int step = 0; step < KEYS / 16; ++step) {
        start_product_of_values<T>(part_of(result, panel), weights[step], values + (panel * KEYS + step * 16) * 8);
      }
    }
    close_products();
  }

  // Scores, weights by now, as the first operand of products.
  __device__ void pack_weights() {
#pragma unroll
    for (int step = 0; step < KEYS / 16; ++step) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float(&columns)[4] = scores[2 * step + i / 2];
        weights[step][i] = pack<T>(columns[i % 2 * 2], columns[i % 2 * 2 + 1]);
      }
    }
  }

  template <int TILES>
  __device__ static float (&part_of(float (&sums)[TILES][4], int part))[8][4] {
    return *reinterpret_cast<float(*)[8][4]>(&sums[8 * part]);
  }
};

template <typename T, int D, int DV, int CONSUMERS, int KEYS, int KIND, typename M>
__device__ void attention(Rows<T> q, Rows<T> k, Rows<T> v, Mask<M> mask, const float* sink, float scale, int queries,
                          int keys, T* out) {
  constexpr int QUERIES = 64 * CONSUMERS;
  extern __shared__ __align__(1024) uint4 shared[];
  Tiles<D, DV, QUERIES, KEYS> tiles(shared, barriers);
  if (threadIdx.x == 0) {
    tiles.keys.make(WARPGROUP, 4 * CONSUMERS);
    tiles.values.make(WARPGROUP, 4 * CONSUMERS);
  }
  __syncthreads();

  // The last queries see the most keys of a causal mask: first come, first served.
  const int first = (gridDim.x - 1 - blockIdx.x) * QUERIES;
  const int begin = Softmax<KIND, M>::begin(mask, queries, keys, first) / KEYS * KEYS;
  const int blocks = (Softmax<KIND, M>::end(queries, keys, first + QUERIES - 1) - begin + KEYS - 1) / KEYS;
  // Registers go from the producer to the consumers.
  if (threadIdx.x < WARPGROUP) {
    give_registers<CONSUMERS == 1 ? 32 : 40>();
    produce(tiles, {q.data + first * q.stride, q.stride, q.step}, k, v, queries - first, keys, begin, blocks);
    return;
  }
  take_registers<CONSUMERS == 1 ? 224 : 232>();

  const int warp = threadIdx.x / 32 - 4, all_see = Softmax<KIND, M>::all_see(queries, keys, first, scale) / KEYS;
  Softmax<KIND, M> softmax(mask, sink, scale, queries, keys, first + 16 * warp);
  float shrink[2];
  tiles.keys.wait_until_full(0);
  Consumer<T, D, DV, QUERIES, KEYS> own(tiles, warp);

  open_products();
  own.start_scores(0);
  wait_for_products<0>(own.scores);
  tiles.keys.is_read(0);
  if (all_see == 0) softmax.hide(own.scores, begin);
  softmax.weigh(own.scores, all_see == 0, shrink);
  own.pack_weights();
  if (blocks > 1) tiles.keys.wait_until_full(1);

  int block = 1;
  const auto step = [&](auto hidden) {
    open_products();
    own.start_scores(block);
    tiles.values.wait_until_full(block - 1);
    own.start_values(block - 1);
    wait_for_products<1>(own.scores);
    tiles.keys.is_read(block);
    if constexpr (hidden.value) softmax.hide(own.scores, begin + block * KEYS);
    softmax.weigh(own.scores, hidden.value, shrink);
    // Here, as the compiler takes the wait that follows to the beginning of what is between two branches.
    if (block + 1 < blocks) tiles.keys.wait_until_full(block + 1);
    wait_for_products<0>(own.result);
    tiles.values.is_read(block - 1);
    multiply_rows(own.result, shrink);
    own.pack_weights();
  };
  // In loops of their own: products are not to be under way in a branch.
  for (; block < all_see; ++block) step(Constant<false>());
  for (; block < blocks; ++block) step(Constant<true>());

  tiles.values.wait_until_full(blocks - 1);
  open_products();
  own.start_values(blocks - 1);
  wait_for_products<0>(own.result);
  softmax.template write<T, DV>(own.result, out);
}

}  // namespace flash
