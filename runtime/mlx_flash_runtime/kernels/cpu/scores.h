// The scores of a tile of queries with a block of keys: scores[key][lane].
#pragma once

#include <type_traits>

#include "blocks.h"

namespace flash {

// Memory of mask_scores: [tile_queries][block_keys] twice.
constexpr int mask_floats = 2 * tile_queries * block_keys;

inline void cap_scores(float* scores, int64_t count, float softcap) {
  const float inverse = 1 / softcap;
  for (int64_t i = 0; i < count; i += lanes) store(scores + i, softcap * tanh(load(scores + i) * inverse));
}

inline void mask_by_intervals(const Tile& tile, Keys keys, float* scores) {
  if (keys.begin >= tile.seen_by_all.begin && keys.end <= tile.seen_by_all.end) return;
  for (int j = 0; j < tile.vectors; ++j) {
    IntVec first, last;
    std::memcpy(&first, tile.first + j * lanes, sizeof first);
    std::memcpy(&last, tile.last + j * lanes, sizeof last);
    for (int key = keys.begin; key < keys.end; ++key) {
      float* at = scores + (key - keys.begin) * tile.width() + j * lanes;
      const IntVec here = IntVec{} + key;
      store(at, ((here >= first) & (here <= last)) ? load(at) : broadcast(masked));
    }
  }
}

inline float as_float(float x) { return x; }

template <class T>
float as_float(T x) {
  const ShortVec bits = ShortVec{} + x.bits;
  return widen(bits, T{})[0];
}

inline float as_float(bool x) { return x ? 1.0f : 0.0f; }

// `count` elements of a mask as floats, up to the next whole vector.
template <class T>
void read_mask(const T* from, int64_t step, int count, float* to) {
  if constexpr (!std::is_same_v<T, bool>) {
    if (step == 1) return read_row(from, count, 1.0f, to);
  }
  for (int i = 0; i < count; ++i) to[i] = as_float(from[i * step]);
  for (int i = count; i < round_up(count, lanes); ++i) to[i] = 0;
}

template <bool Additive>
inline void mask_row(const float* mask, bool one_for_all, int vectors, float* scores) {
  for (int j = 0; j < vectors; ++j) {
    const Vec entry = one_for_all ? broadcast(*mask) : load(mask + j * lanes);
    const Vec score = load(scores + j * lanes);
    store(scores + j * lanes, Additive ? score + entry : (entry == 0.0f ? broadcast(masked) : score));
  }
}

template <class T>
[[gnu::noinline]] void mask_by_array(const Call& call, const Tile& tile, Keys keys, float* scores, float* memory) {
  constexpr bool additive = !std::is_same_v<T, bool>;
  const Mask& mask = call.mask;
  const T* data = static_cast<const T*>(mask.data) + tile.batch * mask.batch + keys.begin * mask.column;
  const auto row_of = [&](int lane) {
    const Query query = query_at(call.shape, tile, lane);
    return data + query.head * mask.head + query.position * mask.row;
  };
  if (mask.head == 0 && mask.row == 0) {  // of keys alone
    read_mask(row_of(0), mask.column, keys.count(), memory);
    for (int i = 0; i < keys.count(); ++i) {
      mask_row<additive>(memory + i, true, tile.vectors, scores + i * tile.width());
    }
    return;
  }
  float* by_query = memory;
  float* by_key = memory + tile_queries * block_keys;
  for (int lane = 0; lane < tile.width(); ++lane) {
    read_mask(row_of(std::min(lane, tile.count - 1)), mask.column, keys.count(), by_query + lane * block_keys);
  }
  const int padded = static_cast<int>(round_up(keys.count(), lanes));
  transpose(by_query, block_keys, tile.width(), padded, by_key, tile.width());
  for (int i = 0; i < keys.count(); ++i) {
    mask_row<additive>(by_key + i * tile.width(), false, tile.vectors, scores + i * tile.width());
  }
}

// Applies the call's masks to the scores of at most `block_keys` keys. `memory` is of `mask_floats`.
inline void mask_scores(const Call& call, const Tile& tile, Keys keys, float* scores, float* memory) {
  if (call.mask.kind == Mask::Kind::boolean) mask_by_array<bool>(call, tile, keys, scores, memory);
  if (call.mask.kind == Mask::Kind::additive) {
    with_type(call.mask.type, [&](auto type) {
      mask_by_array<decltype(type)>(call, tile, keys, scores, memory);
    });
  }
  if (call.first != nullptr) mask_by_intervals(tile, keys, scores);
}

}  // namespace flash
