// The forward pass: online softmax over blocks of keys, for blocks of queries that share the keys and values read.
#include "blocks.h"
#include "few_queries.h"
#include "scores.h"
#include "scratch.h"
#include "softmax.h"

namespace flash {
namespace {

// A piece of work: a block of rows of one batch and key head, with one of `splits` parts of its keys.
struct Plan {
  int block_rows, blocks, splits;

  int items(const Shape& shape) const { return shape.batch * shape.key_heads * blocks * splits; }
};

constexpr int most_rows = 256;
constexpr int least_split_keys = 256;
constexpr int most_tiles = most_rows / tile_queries;

Plan plan_of(const Shape& shape, int threads) {
  const int64_t rows = rows_of(shape), heads = static_cast<int64_t>(shape.batch) * shape.key_heads;
  // The queries and sums of a block should stay in the L2 cache; larger blocks read keys and values less often.
  const int64_t fitting = 65536 / (shape.head_dim + shape.value_head_dim);
  const int64_t wanted = std::min<int64_t>({fitting, most_rows, rows * heads / (4 * threads)});
  Plan plan;
  plan.block_rows = static_cast<int>(std::max<int64_t>(wanted / tile_queries, 1) * tile_queries);
  plan.blocks = static_cast<int>((rows + plan.block_rows - 1) / plan.block_rows);
  const int64_t items = heads * plan.blocks;
  plan.splits = 1;
  if (threads > 1 && items > 0 && items < 2 * threads) {
    plan.splits = static_cast<int>(std::clamp<int64_t>(shape.key_length / least_split_keys, 1, 2 * threads / items));
  }
  return plan;
}

void start(const Call& call, const Sizes& sizes, const State& state, bool with_sinks) {
  const Tile& tile = state.tile;
  std::fill_n(state.sums, static_cast<int64_t>(sizes.value_dim) * tile.width(), 0.0f);
  std::fill_n(state.row_max, tile.width(), masked);
  std::fill_n(state.row_sum, tile.width(), 0.0f);
  if (!with_sinks) return;
  for (int lane = 0; lane < tile.count; ++lane) {
    state.row_max[lane] = call.sinks[query_at(call.shape, tile, lane).head];
    state.row_sum[lane] = 1;
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
    if (plan_.splits > 1) partial_ = allocate(plan_.items(call.shape) * item_result());
  }

  void run(Pool& pool) {
    pool.run(plan_.items(call_.shape), [this](int index, int) { work(index); });
    if (plan_.splits == 1) return;
    pool.run(plan_.items(call_.shape) / plan_.splits, [this](int index, int) { merge(index); });
  }

 private:
  int64_t item_result() const { return plan_.block_rows / tile_queries * sizes_.tile_result(); }

  // The tiles of a block of rows. The last blocks come first: with causal masks they take the longest.
  int tiles_of(int index, State (&states)[most_tiles]) const {
    const int heads = call_.shape.batch * call_.shape.key_heads;
    const int head = index % heads, block = plan_.blocks - 1 - index / heads;
    const int begin = block * plan_.block_rows, end = std::min(begin + plan_.block_rows, rows_of(call_.shape));
    int count = 0;
    for (int row = begin; row < end; row += tile_queries) {
      states[count++].tile = make_tile(call_, head / call_.shape.key_heads, head % call_.shape.key_heads, row);
    }
    return count;
  }

  void lay_out(State& state, float* result) const {
    state.sums = result;
    state.row_max = result + static_cast<int64_t>(sizes_.value_dim) * tile_queries;
    state.row_sum = state.row_max + tile_queries;
  }

  void work(int index) {
    const int split = index % plan_.splits;
    State states[most_tiles];
    const int tiles = tiles_of(index / plan_.splits, states);
    const int64_t queries_floats = static_cast<int64_t>(sizes_.head_dim) * tile_queries;
    Scratch scratch(tiles * (queries_floats + sizes_.tile_result()) + sizes_.keys() + sizes_.values() +
                    sizes_.by_query() + block_keys * tile_queries + mask_floats);
    float* keys = scratch.take(sizes_.keys());
    float* values = scratch.take(sizes_.values());
    float* scores = scratch.take(block_keys * tile_queries);
    float* masks = scratch.take(mask_floats);
    float* by_query = scratch.take(sizes_.by_query());
    Keys needed{call_.shape.key_length, 0};
    for (int i = 0; i < tiles; ++i) {
      states[i].queries = scratch.take(queries_floats);
      lay_out(states[i], partial_ ? partial_.get() + index * item_result() + i * sizes_.tile_result()
                                  : scratch.take(sizes_.tile_result()));
      read(states[i], by_query);
      start(call_, sizes_, states[i], call_.sinks != nullptr && split == 0);
      needed = needed.with(states[i].tile.needed);
    }
    const int64_t length = needed.count();
    const Keys part{needed.begin + static_cast<int>(length * split / plan_.splits),
                    needed.begin + static_cast<int>(length * (split + 1) / plan_.splits)};
    const int step = is_few(states[0].tile) ? few_block_keys : block_keys;
    for (int key = part.begin; key < part.end; key += step) {
      const Keys block{key, std::min(key + step, part.end)};
      read_keys<T>(call_.k, states[0].tile, block, call_.shape.head_dim, keys);
      read_keys<T>(call_.v, states[0].tile, block, call_.shape.value_head_dim, values);
      for (int i = 0; i < tiles; ++i) attend(states[i], block, keys, values, scores, masks);
    }
    if (partial_) return;
    for (int i = 0; i < tiles; ++i) finish(call_, sizes_, states[i], out_, sums_, by_query);
  }

  void read(const State& state, float* by_query) const {
    const Tile& tile = state.tile;
    const bool few = is_few(tile);
    float* rows = few ? state.queries : by_query;
    read_queries<T>(call_.q, call_.shape, tile, call_.shape.head_dim, [&](int) { return call_.scale; }, rows);
    if (!few) transpose(rows, sizes_.head_dim, tile.width(), sizes_.head_dim, state.queries, tile.width());
  }

  void attend(const State& state, Keys block, const float* keys, const float* values, float* scores,
              float* masks) const {
    const Tile& tile = state.tile;
    const int width = tile.width();
    const Keys seen = block.and_(tile.needed);
    if (seen.empty()) return;
    const MaskBlock mask = read_mask(call_, tile, seen, masks);
    if (mask.hides_all && all_see(tile, state.row_max)) return;
    const int skipped = seen.begin - block.begin, count = seen.count();
    keys += skipped * sizes_.head_dim;
    values += skipped * sizes_.value_dim;
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
    const int64_t count = static_cast<int64_t>(sizes_.value_dim) * state.tile.width();
    for (int64_t i = 0; i < count; i += lanes) store(state.sums + i, load(state.sums + i) + load(other.sums + i));
  }

  const Call& call_;
  T* out_;
  Sums sums_;
  Sizes sizes_;
  Plan plan_;
  Floats partial_;
};

}  // namespace

void forward(const Call& call, void* out, Sums sums, Pool& pool) {
  with_type(call.type, [&](auto type) {
    using T = decltype(type);
    Forward<T>(call, static_cast<T*>(out), sums, pool.threads()).run(pool);
  });
}

}  // namespace flash
