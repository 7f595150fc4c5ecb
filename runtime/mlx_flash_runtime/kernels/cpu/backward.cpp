// The backward pass: recomputes the weights of each block from the row sums of the forward pass (Dao et al.,
// "FlashAttention", 2022, algorithm 4).
//
// With d = dout / row_sum and w = exp(score - row_max): dv = w^T d and dscore = w (d v^T + shift), where
// shift = -sum(d * out). A piece of work owns a part of the keys of one key head, and so the gradients of these. The
// gradient of the queries it has in a buffer of its own; where a head is in several parts, these are added up at the end.
#include <vector>

#include "blocks.h"
#include "few_queries.h"
#include "scores.h"
#include "scratch.h"
#include "workers.h"

namespace flash {
namespace {

// Times zero: zeros, but for what is infinite or NaN.
void clear(float* row, int count) {
  for (int i = 0; i < count; ++i) row[i] *= 0.0f;
}

template <class T>
class Backward {
 public:
  Backward(const Call& call, const T* out, Rows cotangent, Sums sums, Gradients gradients, int threads)
      : call_(call), shape_(call.shape), cotangent_(cotangent), sums_(sums), gradients_(gradients), sizes_(call.shape) {
    const int64_t row = shape_.value_head_dim, head = row * shape_.query_length;
    out_ = {out, head * shape_.query_heads, head, row};
    heads_ = shape_.batch * shape_.key_heads;
    tiles_ = (rows_of(shape_) + tile_queries - 1) / tile_queries;
    // Keys, values and their gradients should stay in the L2 cache: they are read once per tile of queries.
    const int fitting = 32768 / (shape_.head_dim + shape_.value_head_dim);
    chunk_keys_ = std::clamp(fitting / block_keys, 1, 4) * block_keys;
    const int chunks = (shape_.key_length + chunk_keys_ - 1) / chunk_keys_;
    parts_ = heads_ > 0 ? std::clamp(2 * threads / heads_, 1, std::max(chunks, 1)) : 1;
    if (parts_ > 1) dq_ = allocate(items() * part_floats());
    shifts_ = allocate(static_cast<int64_t>(heads_) * tiles_ * tile_queries);
  }

  void run(Workers& workers) {
    if (skips_keys(call_) || call_.mask.kind == Mask::Kind::boolean) {
      whole_ = std::vector<uint8_t>(heads_);
      workers.run(heads_, [this](int head) { whole_[head] = !is_finite_head(head); });
    }
    workers.run(items(), [this](int index) { work(index); });
    if (parts_ > 1) workers.run(heads_ * tiles_, [this](int index) { add_parts(index / tiles_, index % tiles_); });
    if (gradients_.sinks != nullptr) add_sinks();
  }

 private:
  // What is known of a tile of queries.
  struct State {
    Tile tile;
    float *queries, *queries_by_row;      // [head_dim][width], [width][head_dim], scaled
    float *cotangent, *cotangent_by_row;  // d: [value_dim][width], [width][value_dim]
    float *row_max, *shift;               // [width]
    float* dq;                            // [head_dim][width]
  };

  // A chunk of keys and values and the gradients of both, [keys][dim] each.
  struct Chunk {
    Keys range;
    float *keys, *values, *dk, *dv;
  };

  // The memory of one block: [block_keys][tile_queries] each.
  struct Memory {
    float *weights, *dscores, *capped, *masks;
  };

  bool is_finite_head(int index) const {
    const int batch = index / shape_.key_heads, head = index % shape_.key_heads, group = group_of(shape_);
    const int first = head * group, length = shape_.query_length, value_dim = shape_.value_head_dim;
    return are_finite<T>(call_.k, batch, head, 1, shape_.key_length, shape_.head_dim) &&
           are_finite<T>(call_.q, batch, first, group, length, shape_.head_dim) &&
           are_finite<T>(cotangent_, batch, first, group, length, value_dim) &&
           are_finite<T>(out_, batch, first, group, length, value_dim);
  }

  Tile tile_of(int head, int index) const {
    Tile tile = make_tile(call_, head / shape_.key_heads, head % shape_.key_heads, index * tile_queries);
    if (is_whole(head)) tile.needed = {0, shape_.key_length};
    return tile;
  }

  bool is_whole(int head) const { return !whole_.empty() && whole_[head]; }

  // Whether the scores of a query at that place are constants, as it sees no key: its weights reach v, but what reaches q
  // and k is times zero.
  bool sees_nothing(int64_t place) const { return sums_.row_max[place] <= masked; }

  int items() const { return heads_ * parts_; }
  // Of the gradient of queries: a tile's (the last one's may be fewer) and a head's.
  int64_t tile_floats() const { return static_cast<int64_t>(sizes_.head_dim) * tile_queries; }
  int64_t part_floats() const { return sizes_.head_dim * round_up(rows_of(shape_), lanes); }

  void work(int index) {
    const int head = index % heads_, part = index / heads_;
    const Floats own = parts_ > 1 ? Floats() : allocate(part_floats());
    float* dq = parts_ > 1 ? dq_.get() + index * part_floats() : own.get();
    std::fill_n(dq, part_floats(), 0.0f);
    const int64_t length = shape_.key_length;
    const Keys range{static_cast<int>(length * part / parts_), static_cast<int>(length * (part + 1) / parts_)};

    constexpr int64_t block_floats = block_keys * tile_queries;
    const int64_t chunk_floats = static_cast<int64_t>(chunk_keys_) * 2 * (sizes_.head_dim + sizes_.value_dim);
    const int64_t state_floats = 2 * (sizes_.head_dim + sizes_.value_dim + 1) * tile_queries;
    Scratch scratch(chunk_floats + state_floats + sizes_.by_query() + 3 * block_floats + mask_floats);
    Chunk chunk;
    chunk.keys = scratch.take(chunk_keys_ * sizes_.head_dim);
    chunk.values = scratch.take(chunk_keys_ * sizes_.value_dim);
    chunk.dk = scratch.take(chunk_keys_ * sizes_.head_dim);
    chunk.dv = scratch.take(chunk_keys_ * sizes_.value_dim);
    State state;
    state.queries = scratch.take(tile_floats());
    state.queries_by_row = scratch.take(tile_floats());
    state.cotangent = scratch.take(sizes_.value_dim * tile_queries);
    state.cotangent_by_row = scratch.take(sizes_.value_dim * tile_queries);
    state.row_max = scratch.take(tile_queries);
    state.shift = scratch.take(tile_queries);
    float* by_query = scratch.take(sizes_.by_query());
    const Memory memory{scratch.take(block_floats), scratch.take(block_floats), scratch.take(block_floats),
                        scratch.take(mask_floats)};

    for (int key = range.begin; key < range.end; key += chunk_keys_) {
      chunk.range = {key, std::min(key + chunk_keys_, range.end)};
      start(head, chunk);
      for (int i = 0; i < tiles_; ++i) {
        state.tile = tile_of(head, i);
        const Keys seen = chunk.range.and_(state.tile.needed);
        if (seen.empty()) continue;
        state.dq = dq + i * tile_floats();
        read(state, by_query);
        for (int begin = seen.begin; begin < seen.end; begin += block_keys) {
          differentiate(state, chunk, {begin, std::min(begin + block_keys, seen.end)}, memory, is_whole(head));
        }
      }
      write(head, chunk);
    }
    if (parts_ > 1) return;
    for (int i = 0; i < tiles_; ++i) finish(head, i, dq + i * tile_floats(), by_query, state.cotangent_by_row);
  }

  void start(int head, const Chunk& chunk) const {
    Tile tile;
    tile.batch = head / shape_.key_heads;
    tile.key_head = head % shape_.key_heads;
    read_keys<T>(call_.k, tile, chunk.range, shape_.head_dim, chunk.keys);
    read_keys<T>(call_.v, tile, chunk.range, shape_.value_head_dim, chunk.values);
    std::fill_n(chunk.dk, static_cast<int64_t>(chunk.range.count()) * sizes_.head_dim, 0.0f);
    std::fill_n(chunk.dv, static_cast<int64_t>(chunk.range.count()) * sizes_.value_dim, 0.0f);
  }

  void write(int head, const Chunk& chunk) const {
    const int64_t first = static_cast<int64_t>(head) * shape_.key_length + chunk.range.begin;
    T* dk = static_cast<T*>(gradients_.k) + first * shape_.head_dim;
    T* dv = static_cast<T*>(gradients_.v) + first * shape_.value_head_dim;
    for (int64_t i = 0; i < chunk.range.count(); ++i) {
      write_row(chunk.dk + i * sizes_.head_dim, shape_.head_dim, dk + i * shape_.head_dim);
      write_row(chunk.dv + i * sizes_.value_dim, shape_.value_head_dim, dv + i * shape_.value_head_dim);
    }
  }

  void read(const State& state, float* by_query) const {
    const Tile& tile = state.tile;
    const int width = tile.width();
    read_queries<T>(call_.q, shape_, tile, shape_.head_dim, [&](int) { return call_.scale; }, state.queries_by_row);
    transpose(state.queries_by_row, sizes_.head_dim, width, sizes_.head_dim, state.queries, width);
    read_cotangent(tile, state.cotangent_by_row, by_query, state.shift);
    transpose(state.cotangent_by_row, sizes_.value_dim, width, sizes_.value_dim, state.cotangent, width);
    for (int lane = 0; lane < width; ++lane) {
      const int64_t place = lane < tile.count ? place_of(shape_, tile, lane) : 0;
      state.row_max[lane] = lane < tile.count ? sums_.row_max[place] : 0;
      if (lane < tile.count && sees_nothing(place)) {
        clear(state.queries_by_row + lane * sizes_.head_dim, sizes_.head_dim);
      }
    }
  }

  // d, [width][value_dim], and its shift, [width]. `memory` is as large as d.
  void read_cotangent(const Tile& tile, float* d, float* memory, float* shift) const {
    const auto inverse_sum = [&](int lane) { return 1 / sums_.row_sum[place_of(shape_, tile, lane)]; };
    read_queries<T>(cotangent_, shape_, tile, shape_.value_head_dim, inverse_sum, d);
    read_queries<T>(out_, shape_, tile, shape_.value_head_dim, [](int) { return 1.0f; }, memory);
    for (int lane = 0; lane < tile.width(); ++lane) {
      Vec dot{}, nothing{};
      for (int i = lane * sizes_.value_dim; i < (lane + 1) * sizes_.value_dim; i += lanes) {
        dot += load(d + i) * load(memory + i);
        nothing += load(d + i) * 0.0f;
      }
      shift[lane] = sum(nothing) - sum(dot);  // NaN for an infinite d: over the values its terms have both signs
    }
  }

  void differentiate(const State& state, const Chunk& chunk, Keys block, const Memory& memory, bool whole) const {
    const Tile& tile = state.tile;
    const int width = tile.width(), keys = block.count();
    const int64_t skipped = block.begin - chunk.range.begin, count = static_cast<int64_t>(keys) * width;
    const MaskBlock mask = read_mask(call_, tile, block, memory.masks);
    if (mask.hides_all && !whole && all_see(tile, state.row_max)) return;
    const float* k = chunk.keys + skipped * sizes_.head_dim;
    const float* v = chunk.values + skipped * sizes_.value_dim;
    // As in the forward pass, rounding included: row_sum is that of these scores.
    if (is_few(tile)) {
      score_few(tile, keys, sizes_.head_dim, k, state.queries_by_row, memory.weights);
    } else {
      multiply<Order::rows_outer, false>(
          keys, tile.vectors, {k, sizes_.head_dim, state.queries, width, memory.weights, width, shape_.head_dim});
    }
    if (call_.softcap != 0) {
      cap_scores(memory.weights, count, call_.softcap);
      std::copy_n(memory.weights, count, memory.capped);
    }
    mask_scores(call_, tile, block, mask, memory.weights);
    multiply<Order::rows_outer, false>(
        keys, tile.vectors,
        {v, sizes_.value_dim, state.cotangent, width, memory.dscores, width, shape_.value_head_dim});
    for (int64_t i = 0; i < count; i += lanes) {
      const int64_t lane = i % width;
      const Vec weight = exp(load(memory.weights + i) - load(state.row_max + lane));
      store(memory.weights + i, weight);
      Vec dscore = weight * (load(memory.dscores + i) + load(state.shift + lane));
      if (call_.softcap != 0) {
        const Vec ratio = load(memory.capped + i) * (1 / call_.softcap);
        dscore *= 1.0f - ratio * ratio;
      }
      store(memory.dscores + i, dscore);
    }
    multiply<Order::rows_outer, true>(keys, sizes_.value_dim / lanes,
                                      {memory.weights, width, state.cotangent_by_row, sizes_.value_dim,
                                       chunk.dv + skipped * sizes_.value_dim, sizes_.value_dim, tile.count});
    multiply<Order::rows_outer, true>(keys, sizes_.head_dim / lanes,
                                      {memory.dscores, width, state.queries_by_row, sizes_.head_dim,
                                       chunk.dk + skipped * sizes_.head_dim, sizes_.head_dim, tile.count});
    multiply<Order::depth_outer, true>(shape_.head_dim, tile.vectors,
                                       {k, sizes_.head_dim, memory.dscores, width, state.dq, width, keys});
  }

  void add_parts(int head, int index) {
    Scratch scratch(2 * sizes_.by_query());
    float* by_query = scratch.take(sizes_.by_query());
    float* cotangent = scratch.take(sizes_.by_query());
    float* total = dq_.get() + head * part_floats() + index * tile_floats();
    const int64_t floats = std::min(tile_floats(), part_floats() - index * tile_floats());
    for (int part = 1; part < parts_; ++part) {
      const float* more = total + part * heads_ * part_floats();
      for (int64_t i = 0; i < floats; i += lanes) store(total + i, load(total + i) + load(more + i));
    }
    finish(head, index, total, by_query, cotangent);
  }

  // The gradient of a tile of queries, of which `total` lacks the scale, and what its sinks need. The rest is memory.
  void finish(int head, int index, float* total, float* by_query, float* cotangent) {
    const Tile tile = tile_of(head, index);
    const int width = tile.width();
    for (int64_t i = 0; i < static_cast<int64_t>(sizes_.head_dim) * width; i += lanes) {
      store(total + i, load(total + i) * call_.scale);
    }
    transpose(total, width, sizes_.head_dim, width, by_query, sizes_.head_dim);
    for (int lane = 0; lane < tile.count; ++lane) {
      const int64_t place = place_of(shape_, tile, lane);
      float* row = by_query + lane * sizes_.head_dim;
      if (sees_nothing(place)) clear(row, sizes_.head_dim);
      write_row(row, shape_.head_dim, static_cast<T*>(gradients_.q) + place * shape_.head_dim);
    }
    if (gradients_.sinks == nullptr) return;
    float shift[tile_queries];
    read_cotangent(tile, cotangent, by_query, shift);
    for (int lane = 0; lane < tile.count; ++lane) shifts_[place_of(shape_, tile, lane)] = shift[lane];
  }

  void add_sinks() {
    for (int head = 0; head < shape_.query_heads; ++head) {
      double total = 0;
      for (int batch = 0; batch < shape_.batch; ++batch) {
        const int64_t first = (static_cast<int64_t>(batch) * shape_.query_heads + head) * shape_.query_length;
        for (int64_t i = first; i < first + shape_.query_length; ++i) {
          total += exp(broadcast(call_.sinks[head] - sums_.row_max[i]))[0] * shifts_[i];
        }
      }
      gradients_.sinks[head] = static_cast<float>(total);
    }
  }

  const Call& call_;
  const Shape& shape_;
  Rows out_, cotangent_;
  Sums sums_;
  Gradients gradients_;
  Sizes sizes_;
  int heads_, tiles_, parts_, chunk_keys_;
  Floats dq_;      // [parts][batch, key_heads][tiles][head_dim][width], where there are several parts
  Floats shifts_;  // [batch, query_heads, query_length]
  // [batch, key_heads]: whether all queries meet all keys, as a NaN or an infinity spreads by way of weights that are
  // zero. Empty where the masks skip nothing.
  std::vector<uint8_t> whole_;
};

}  // namespace

void backward(const Call& call, const void* out, Rows cotangent, Sums sums, Gradients gradients, Pool& pool) {
  with_type(call.type, [&](auto type) {
    using T = decltype(type);
    Workers workers(call.shape, pool);
    Backward<T>(call, static_cast<const T*>(out), cotangent, sums, gradients, workers.threads()).run(workers);
  });
}

}  // namespace flash
