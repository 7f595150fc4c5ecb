// Which queries are worked on together, and which keys they see.
//
// The query heads that share a key head are folded into its rows, so that keys and values are never repeated: row r of
// batch b and key head k is query r / group of head k * group + r % group. A tile of rows lies in the lanes of one to
// `tile_vectors` vectors, one query a lane: sums over keys need no sum over lanes, and keys and values are read as they
// lie.
#pragma once

#include <algorithm>

#include "attention.h"
#include "products.h"

namespace flash {

constexpr int tile_queries = tile_vectors * lanes;

inline int group_of(const Shape& shape) { return shape.query_heads / shape.key_heads; }

// The rows of one batch and key head.
inline int rows_of(const Shape& shape) { return group_of(shape) * shape.query_length; }

struct Keys {
  int begin, end;

  bool empty() const { return begin >= end; }
  int count() const { return end - begin; }
  Keys and_(Keys other) const { return {std::max(begin, other.begin), std::min(end, other.end)}; }
  Keys with(Keys other) const { return {std::min(begin, other.begin), std::max(end, other.end)}; }
  bool operator==(const Keys&) const = default;
};

struct Tile {
  int batch, key_head;
  int row, count;  // its first row and how many it has
  int vectors;
  Keys needed;                                      // of no other key depends anything, if all numbers are finite
  Keys seen_by_all;                                 // by the intervals alone
  int32_t first[tile_queries], last[tile_queries];  // of each lane's query, where there are intervals

  int width() const { return vectors * lanes; }
};

struct Query {
  int head, position;
};

inline Query query_at(const Shape& shape, const Tile& tile, int lane) {
  const int group = group_of(shape), row = tile.row + lane;
  return {tile.key_head * group + row % group, row / group};
}

template <class T>
const T* row_at(const Rows& rows, int batch, int head, int64_t row) {
  return static_cast<const T*>(rows.data) + batch * rows.batch + head * rows.head + row * rows.row;
}

// Where the query of a lane has its place in a [batch, query_heads, query_length] array without gaps.
inline int64_t place_of(const Shape& shape, const Tile& tile, int lane) {
  const Query query = query_at(shape, tile, lane);
  return (static_cast<int64_t>(tile.batch) * shape.query_heads + query.head) * shape.query_length + query.position;
}

inline Tile make_tile(const Call& call, int batch, int key_head, int row) {
  const Shape& shape = call.shape;
  Tile tile;
  tile.batch = batch;
  tile.key_head = key_head;
  tile.row = row;
  tile.count = std::min(tile_queries, rows_of(shape) - row);
  tile.vectors = (tile.count + lanes - 1) / lanes;
  tile.needed = tile.seen_by_all = {0, shape.key_length};
  if (call.first == nullptr) return tile;

  // A boolean mask may leave nothing of what the intervals show.
  const bool all_needed = call.mask.kind == Mask::Kind::boolean;
  if (!all_needed) tile.needed = {shape.key_length, 0};
  for (int lane = 0; lane < tile.width(); ++lane) {
    const int position = query_at(shape, tile, std::min(lane, tile.count - 1)).position;
    tile.first[lane] = call.first[position];
    tile.last[lane] = call.last[position];
    const Keys seen = Keys{tile.first[lane], tile.last[lane] + 1}.and_({0, shape.key_length});
    // A query without keys takes the mean of all values.
    tile.needed = tile.needed.with(seen.empty() ? Keys{0, shape.key_length} : seen);
    tile.seen_by_all = tile.seen_by_all.and_(seen);
  }
  return tile;
}

}  // namespace flash
