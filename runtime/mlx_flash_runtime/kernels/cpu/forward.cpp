// The forward pass: online softmax over blocks of keys, for blocks of queries that share the keys and values read.
#include <cmath>
#include <vector>

#include "blocks.h"
#include "few_queries.h"
#include "scores.h"
#include "scratch.h"
#include "softmax.h"
#include "workers.h"

namespace flash {
namespace {

// A piece of work: a block of rows of one batch and key head, with its keys in `splits` parts, all of them or, where
// there would be too few pieces for the threads, one (`apart`).
//
// The parts, whose sums are added up, follow from the lengths alone: a query's answer is the same to the last bit in
// every batch and on any number of threads.
struct Plan {
  int block_rows, blocks, splits;
  bool apart;

  int items(const Shape& shape) const { return shape.batch * shape.key_heads * blocks * (apart ? splits : 1); }
};

constexpr int most_rows = 256;
constexpr int least_split_keys = 256;
constexpr int most_splits = 16;
constexpr int most_split_rows = 1024;  // times splits: more rows are pieces enough by themselves
// Up to so many queries do not ask what the values are that they do not see: to read them would be most of the work.
constexpr int decoded_queries = 8;
constexpr int most_tiles = most_rows / tile_queries;

Plan plan_of(const Shape& shape, int threads) {
  const int64_t rows = rows_of(shape), heads = static_cast<int64_t>(shape.batch) * shape.key_heads;
  // The queries and sums of a block should stay in the L2 cache; larger blocks read keys and values less often.
  const int64_t fitting = 65536 / (shape.head_dim + shape.value_head_dim);
  const int64_t wanted = std::min<int64_t>({fitting, most_rows, rows * heads / (4 * threads)});
  Plan plan;
  plan.block_rows = static_cast<int>(std::max<int64_t>(wanted / tile_queries, 1) * tile_queries);
  plan.blocks = static_cast<int>((rows + plan.block_rows - 1) / plan.block_rows);
  const int64_t splits = std::min<int64_t>(most_splits, most_split_rows / std::max<int64_t>(rows, 1));
  plan.splits = static_cast<int>(std::clamp<int64_t>(shape.key_length / least_split_keys, 1, std::max<int64_t>(splits, 1)));
  plan.apart = plan.splits > 1 && threads > 1 && heads * plan.blocks < 2 * threads;
  return plan;
}

// How many sums a tile has, of those that `softmax.h` lays out.
int64_t sums_of(const Sizes& sizes, const Tile& tile) {
  return static_cast<int64_t>(sizes.value_dim) * (is_few(tile) ? tile.count : tile.width());
}

void start(const Call& call, const Sizes& sizes, const State& state, bool with_sinks) {
  const Tile& tile = state.tile;
  std::fill_n(state.sums, sums_of(sizes, tile), 0.0f);
  std::fill_n(state.row_max, tile.width(), masked);
  std::fill_n(state.row_sum, tile.width(), 0.0f);
  if (!with_sinks) return;
  for (int lane = 0; lane < tile.count; ++lane) {
    const float sink = call.sinks[query_at(call.shape, tile, lane).head];
    state.row_max[lane] = std::max(sink, masked);
    state.row_sum[lane] = std::exp(sink - state.row_max[lane]);  // 1, but for a sink that is infinite
  }
}

// Multiplies the sums of each query by its factor, [width].
void scale_sums(const Sizes& sizes, const State& state, const float* factor) {
  const Tile& tile = state.tile;
  const int width = tile.width();
  if (is_few(tile)) {
    for (int lane = 0; lane < tile.count; ++lane) {
      float* sums = state.sums + lane * sizes.value_dim;
      for (int i = 0; i < sizes.value_dim; i += lanes) store(sums + i, load(sums + i) * factor[lane]);
    }
    return;
  }
  for (int j = 0; j < width; j += lanes) {
    const Vec factors = load(factor + j);
    for (int i = 0; i < sizes.value_dim; ++i) {
      float* sums = state.sums + i * width + j;
      store(sums, load(sums) * factors);
    }
  }
}

// The output and sums of a tile that has met all of its keys.
template <class T>
void finish(const Call& call, const Sizes& sizes, const State& state, T* out, Sums sums, float* by_query) {
  const Tile& tile = state.tile;
  const int value_dim = call.shape.value_head_dim;
  float inverse[tile_queries];
  for (int lane = 0; lane < tile.width(); ++lane) inverse[lane] = 1 / state.row_sum[lane];
  scale_sums(sizes, state, inverse);
  const float* rows = state.sums;
  if (!is_few(tile)) {
    transpose(state.sums, tile.width(), sizes.value_dim, tile.width(), by_query, sizes.value_dim);
    rows = by_query;
  }
  for (int lane = 0; lane < tile.count; ++lane) {
    const int64_t place = place_of(call.shape, tile, lane);
    write_row(rows + lane * sizes.value_dim, value_dim, out + place * value_dim);
    if (sums.row_max != nullptr) {
      sums.row_max[place] = state.row_max[lane];
      sums.row_sum[place] = state.row_sum[lane];
    }
  }
}

template <class T>
class Forward {
 public:
  Forward(const Call& call, T* out, Sums sums, int threads)
      : call_(call), out_(out), sums_(sums), sizes_(call.shape), plan_(plan_of(call.shape, threads)) {
    if (plan_.splits > 1) needed_ = needed_by_any(call);
    if (plan_.apart) partial_ = allocate(plan_.items(call.shape) * item_result());
  }

  void run(Workers& workers) {
    if (call_.shape.query_length > decoded_queries && skips_keys(call_)) {
      const int heads = call_.shape.key_heads;
      whole_ = std::vector<uint8_t>(call_.shape.batch * heads);
      workers.run(static_cast<int>(whole_.size()), [this, heads](int index) {
        const Shape& shape = call_.shape;
        whole_[index] = !are_finite<T>(call_.v, index / heads, index % heads, 1, shape.key_length, shape.value_head_dim);
      });
    }
    workers.run(plan_.items(call_.shape), [this](int index) { work(index); });
    if (!plan_.apart) return;
    workers.run(plan_.items(call_.shape) / plan_.splits, [this](int index) { merge(index); });
  }

 private:
  int64_t item_result() const { return plan_.block_rows / tile_queries * sizes_.tile_result(); }

  // The memory of one block of keys: [block_keys][dim] of keys and values, [block_keys][tile_queries], read_mask's.
  struct Memory {
    float *keys, *values, *scores, *masks;
  };

  // The tiles of a block of rows. The last blocks come first: with causal masks they take the longest.
  int tiles_of(int index, State (&states)[most_tiles]) const {
    const int heads = call_.shape.batch * call_.shape.key_heads;
    const int head = index % heads, block = plan_.blocks - 1 - index / heads;
    const int begin = block * plan_.block_rows, end = std::min(begin + plan_.block_rows, rows_of(call_.shape));
    int count = 0;
    for (int row = begin; row < end; row += tile_queries) {
      Tile& tile = states[count++].tile;
      tile = make_tile(call_, head / call_.shape.key_heads, head % call_.shape.key_heads, row);
      if (!whole_.empty() && whole_[head]) tile.needed = {0, call_.shape.key_length};
    }
    return count;
  }

  void lay_out(State& state, float* result) const {
    state.sums = result;
    state.row_max = result + static_cast<int64_t>(sizes_.value_dim) * tile_queries;
    state.row_sum = state.row_max + tile_queries;
  }

  // The keys of a part: as many as of the other parts of those that any query of the call needs.
  Keys part_of(int split) const {
    const int64_t length = needed_.count();
    const auto cut = [&](int at) { return needed_.begin + static_cast<int>(length * at / plan_.splits); };
    return {split == 0 ? 0 : cut(split), split + 1 == plan_.splits ? call_.shape.key_length : cut(split + 1)};
  }

  void work(int index) {
    const int first = plan_.apart ? index % plan_.splits : 0, last = plan_.apart ? first + 1 : plan_.splits;
    State states[most_tiles], others[most_tiles];
    const int tiles = tiles_of(plan_.apart ? index / plan_.splits : index, states);
    const int64_t queries_floats = static_cast<int64_t>(sizes_.head_dim) * tile_queries;
    const int results = partial_ ? 0 : plan_.splits == 1 ? 1 : 2;
    Scratch scratch(tiles * (queries_floats + results * sizes_.tile_result()) + sizes_.keys() + sizes_.values() +
                    sizes_.by_query() + block_keys * tile_queries + mask_floats);
    const Memory memory{scratch.take(sizes_.keys()), scratch.take(sizes_.values()),
                        scratch.take(block_keys * tile_queries), scratch.take(mask_floats)};
    float* by_query = scratch.take(sizes_.by_query());
    for (int i = 0; i < tiles; ++i) {
      states[i].queries = scratch.take(queries_floats);
      lay_out(states[i], partial_ ? partial_.get() + index * item_result() + i * sizes_.tile_result()
                                  : scratch.take(sizes_.tile_result()));
      read(states[i], by_query);
      start(call_, sizes_, states[i], call_.sinks != nullptr && first == 0);
    }
    attend(states, tiles, part_of(first), memory);
    for (int split = first + 1; split < last; ++split) {
      for (int i = 0; i < tiles; ++i) {
        if (split == first + 1) {
          others[i] = states[i];
          lay_out(others[i], scratch.take(sizes_.tile_result()));
        }
        start(call_, sizes_, others[i], false);
      }
      attend(others, tiles, part_of(split), memory);
      for (int i = 0; i < tiles; ++i) add(states[i], others[i]);
    }
    if (partial_) return;
    for (int i = 0; i < tiles; ++i) finish(call_, sizes_, states[i], out_, sums_, by_query);
  }

  // Has the tiles of a block meet some keys.
  void attend(const State* states, int tiles, Keys part, const Memory& memory) const {
    Keys needed{call_.shape.key_length, 0};
    for (int i = 0; i < tiles; ++i) needed = needed.with(states[i].tile.needed);
    const Keys keys = part.and_(needed);
    const int step = rows_of(call_.shape) <= few_queries ? few_block_keys : block_keys;
    for (int key = keys.begin; key < keys.end;) {
      // Cut at the same keys for every tile, whatever the others of its block need.
      const Keys block{key, std::min((key / step + 1) * step, keys.end)};
      read_keys<T>(call_.k, states[0].tile, block, call_.shape.head_dim, memory.keys);
      read_keys<T>(call_.v, states[0].tile, block, call_.shape.value_head_dim, memory.values);
      for (int i = 0; i < tiles; ++i) attend(states[i], block, memory);
      key = block.end;
    }
  }

  void read(const State& state, float* by_query) const {
    const Tile& tile = state.tile;
    const bool few = is_few(tile);
    float* rows = few ? state.queries : by_query;
    read_queries<T>(call_.q, call_.shape, tile, call_.shape.head_dim, [&](int) { return call_.scale; }, rows);
    if (!few) transpose(rows, sizes_.head_dim, tile.width(), sizes_.head_dim, state.queries, tile.width());
  }

  void attend(const State& state, Keys block, const Memory& memory) const {
    const Tile& tile = state.tile;
    const int width = tile.width();
    const Keys seen = block.and_(tile.needed);
    if (seen.empty()) return;
    const MaskBlock mask = read_mask(call_, tile, seen, memory.masks);
    const int skipped = seen.begin - block.begin, count = seen.count();
    const float* keys = memory.keys + skipped * sizes_.head_dim;
    const float* values = memory.values + skipped * sizes_.value_dim;
    float* scores = memory.scores;
    if (mask.hides_all && all_see(tile, state.row_max) && is_finite(values, count * sizes_.value_dim)) return;
    if (is_few(tile)) {
      score_few(tile, count, sizes_.head_dim, keys, state.queries, scores);
    } else {
      multiply<Order::rows_outer, false>(
          count, tile.vectors, {keys, sizes_.head_dim, state.queries, width, scores, width, call_.shape.head_dim});
    }
    if (call_.softcap != 0) cap_scores(scores, static_cast<int64_t>(count) * width, call_.softcap);
    mask_scores(call_, tile, seen, mask, scores);
    float shrink[tile_queries];
    if (weigh(scores, count, state, shrink)) scale_sums(sizes_, state, shrink);
    if (is_few(tile)) {
      multiply<Order::depth_outer, true>(
          tile.count, sizes_.value_dim / lanes,
          {scores, width, values, sizes_.value_dim, state.sums, sizes_.value_dim, count});
    } else {
      multiply<Order::depth_outer, true>(call_.shape.value_head_dim, tile.vectors,
                                         {values, sizes_.value_dim, scores, width, state.sums, width, count});
    }
  }

  // Adds up what the splits of a block of rows have left.
  void merge(int index) {
    State states[most_tiles];
    const int tiles = tiles_of(index, states);
    Scratch scratch(sizes_.by_query());
    float* by_query = scratch.take(sizes_.by_query());
    for (int i = 0; i < tiles; ++i) {
      float* result = partial_.get() + index * plan_.splits * item_result() + i * sizes_.tile_result();
      lay_out(states[i], result);
      for (int split = 1; split < plan_.splits; ++split) {
        State other = states[i];
        lay_out(other, result + split * item_result());
        add(states[i], other);
      }
      finish(call_, sizes_, states[i], out_, sums_, by_query);
    }
  }

  void add(const State& state, const State& other) const {
    float shrink[tile_queries], shrink_other[tile_queries];
    for (int j = 0; j < state.tile.width(); j += lanes) {
      const Vec mine = load(state.row_max + j), theirs = load(other.row_max + j);
      const Vec row_max = larger(mine, theirs);
      const Vec factor = exp(mine - row_max), factor_other = exp(theirs - row_max);
      store(shrink + j, factor);
      store(shrink_other + j, factor_other);
      store(state.row_max + j, row_max);
      store(state.row_sum + j, load(state.row_sum + j) * factor + load(other.row_sum + j) * factor_other);
    }
    scale_sums(sizes_, state, shrink);
    scale_sums(sizes_, other, shrink_other);
    const int64_t count = sums_of(sizes_, state.tile);
    for (int64_t i = 0; i < count; i += lanes) store(state.sums + i, load(state.sums + i) + load(other.sums + i));
  }

  const Call& call_;
  T* out_;
  Sums sums_;
  Sizes sizes_;
  Plan plan_;
  Keys needed_{0, 0};  // by any query; where there are several parts
  Floats partial_;
  // [batch, key_heads]: whether its tiles meet all keys, as in MLX: a value that is infinite or NaN, times a weight of
  // zero, reaches queries that do not see it. Empty where no key is skipped, and in decode.
  std::vector<uint8_t> whole_;
};

}  // namespace

void forward(const Call& call, void* out, Sums sums, Pool& pool) {
  with_type(call.type, [&](auto type) {
    using T = decltype(type);
    Workers workers(call.shape, pool);
    Forward<T>(call, static_cast<T*>(out), sums, workers.threads()).run(workers);
  });
}

}  // namespace flash
