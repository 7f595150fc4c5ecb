// The scores of a tile of queries with a block of keys: scores[key][lane].
#pragma once

#include <optional>

#include "blocks.h"

namespace flash {

// Memory of read_mask: [tile_queries][block_keys] twice.
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

inline float as_float(uint8_t x) { return x != 0 ? 1.0f : 0.0f; }

// `count` entries of a mask as floats, and zeros up to the next whole vector.
template <class T>
void read_entries(const T* from, int64_t step, int count, float* to) {
  if (step == 1) return read_row(from, count, 1.0f, to);
  for (int i = 0; i < count; ++i) to[i] = as_float(from[i * step]);
  std::fill(to + count, to + round_up(count, lanes), 0.0f);
}

// The mask of a tile and a block of keys: entries[key][lane], or entries[key] where all queries have the same.
struct MaskBlock {
  const float* entries = nullptr;  // null: there is no mask array, or a boolean one that hides everything or nothing
  bool one_for_all = false;
  bool hides_all = false;  // a boolean mask that shows none of the keys to any of the queries
};

// The first entries of each lane in a mask's array.
template <class T>
const T* mask_row(const Call& call, const Tile& tile, int key, int lane) {
  const Mask& mask = call.mask;
  const Query query = query_at(call.shape, tile, std::min(lane, tile.count - 1));
  return static_cast<const T*>(mask.data) + tile.batch * mask.batch + key * mask.column + query.head * mask.head +
         query.position * mask.row;
}

// Whether a boolean mask shows the same, everything or nothing, in all of a tile's block: most blocks of most masks, and
// many times faster to tell than to read them as numbers.
[[gnu::noinline]] inline std::optional<bool> shows_alike(const Call& call, const Tile& tile, Keys keys) {
  const int64_t step = call.mask.column;
  uint8_t any = 0, all = 1;
  const uint8_t* before = nullptr;
  for (int lane = 0; lane < tile.count; ++lane) {
    const uint8_t* row = mask_row<uint8_t>(call, tile, keys.begin, lane);
    if (row == before) continue;
    before = row;
    for (int i = 0; i < keys.count(); ++i) any |= row[i * step], all &= row[i * step];
    if (any != all) return std::nullopt;
  }
  return any != 0;
}

template <class T>
[[gnu::noinline]] MaskBlock read_mask(const Call& call, const Tile& tile, Keys keys, float* memory) {
  const Mask& mask = call.mask;
  const bool one_for_all = mask.head == 0 && mask.row == 0;
  const int rows = one_for_all ? 1 : tile.width();
  const int columns = static_cast<int>(round_up(keys.count(), lanes));
  for (int lane = 0; lane < rows; ++lane) {
    read_entries(mask_row<T>(call, tile, keys.begin, lane), mask.column, keys.count(), memory + lane * block_keys);
  }
  if (one_for_all) return {memory, true};
  float* by_key = memory + tile_queries * block_keys;
  transpose(memory, block_keys, rows, columns, by_key, tile.width());
  return {by_key};
}

// `memory`, of `mask_floats`, keeps what it returns; there are at most `block_keys` keys.
inline MaskBlock read_mask(const Call& call, const Tile& tile, Keys keys, float* memory) {
  MaskBlock block;
  if (call.mask.kind == Mask::Kind::boolean) {
    if (const std::optional<bool> shown = shows_alike(call, tile, keys)) return {nullptr, false, !*shown};
    block = read_mask<uint8_t>(call, tile, keys, memory);
  }
  if (call.mask.kind == Mask::Kind::additive) {
    with_type(call.mask.type, [&](auto type) { block = read_mask<decltype(type)>(call, tile, keys, memory); });
  }
  return block;
}

// Whether every query of the tile has seen a key or has a sink. Only then do keys that a mask hides not matter.
inline bool all_see(const Tile& tile, const float* row_max) {
  for (int lane = 0; lane < tile.count; ++lane) {
    if (row_max[lane] <= masked) return false;
  }
  return true;
}

template <bool Additive>
inline void mask_by_block(const Tile& tile, int keys, const MaskBlock& mask, float* scores) {
  for (int key = 0; key < keys; ++key) {
    for (int j = 0; j < tile.width(); j += lanes, scores += lanes) {
      const Vec entry =
          mask.one_for_all ? broadcast(mask.entries[key]) : load(mask.entries + key * tile.width() + j);
      const Vec score = load(scores);
      store(scores, Additive ? score + entry : (entry == 0.0f ? broadcast(masked) : score));
    }
  }
}

// Applies the call's masks to the scores of the keys.
inline void mask_scores(const Call& call, const Tile& tile, Keys keys, const MaskBlock& mask, float* scores) {
  if (mask.hides_all) std::fill_n(scores, static_cast<int64_t>(keys.count()) * tile.width(), masked);
  if (mask.entries != nullptr) {
    if (call.mask.kind == Mask::Kind::additive) {
      mask_by_block<true>(tile, keys.count(), mask, scores);
    } else {
      mask_by_block<false>(tile, keys.count(), mask, scores);
    }
  }
  if (call.first != nullptr) mask_by_intervals(tile, keys, scores);
}

}  // namespace flash
