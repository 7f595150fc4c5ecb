// Tiles of queries and blocks of keys as floats: what the products read.
#pragma once

#include "queries.h"
#include "rows.h"

namespace flash {

// At most so many keys at a time: the scores of a tile then stay in the L1 cache.
constexpr int block_keys = 64;
static_assert(block_keys % lanes == 0);

// How many floats things take.
struct Sizes {
  explicit Sizes(const Shape& shape)
      : head_dim(static_cast<int>(round_up(shape.head_dim, lanes))),
        value_dim(static_cast<int>(round_up(shape.value_head_dim, lanes))) {}

  int head_dim, value_dim;  // in whole vectors

  // What a tile leaves: sums, row_max, row_sum.
  int64_t tile_result() const { return static_cast<int64_t>(value_dim + 2) * tile_queries; }
  int64_t keys() const { return static_cast<int64_t>(block_keys) * head_dim; }
  int64_t values() const { return static_cast<int64_t>(block_keys) * value_dim; }
  int64_t by_query() const { return static_cast<int64_t>(tile_queries) * std::max(head_dim, value_dim); }
};

// Reads the rows of a tile, each times scale(lane), and zeros for lanes without a query: [width][dim in whole vectors].
template <class T, class Scale>
void read_queries(const Rows& rows, const Shape& shape, const Tile& tile, int dim, Scale scale, float* to) {
  const int64_t stride = round_up(dim, lanes);
  for (int lane = 0; lane < tile.count; ++lane) {
    const Query query = query_at(shape, tile, lane);
    read_row(row_at<T>(rows, tile.batch, query.head, query.position), dim, scale(lane), to + lane * stride);
  }
  std::fill(to + tile.count * stride, to + tile.width() * stride, 0.0f);
}

// How many rows ahead of its use a row is asked for.
constexpr int rows_ahead = 16;

// Asks for a row's cache lines ahead of their use. The row may lie behind the array's end.
template <class T>
inline void prefetch_row(const T* row, int dim) {
  const auto address = reinterpret_cast<uintptr_t>(row);
  for (uintptr_t line = 0; line < dim * sizeof(T); line += 64) {
    __builtin_prefetch(reinterpret_cast<const void*>(address + line));
  }
}

// Reads the keys or values of a block, and asks for the next ones: [keys][dim in whole vectors].
template <class T>
void read_keys(const Rows& rows, const Tile& tile, Keys block, int dim, float* to) {
  const int64_t stride = round_up(dim, lanes);
  for (int key = block.begin; key < block.end; ++key, to += stride) {
    const T* row = row_at<T>(rows, tile.batch, tile.key_head, key);
    prefetch_row(row + rows_ahead * rows.row, dim);
    read_row(row, dim, 1.0f, to);
  }
}

// Whether all rows of some heads are finite.
template <class T>
bool are_finite(const Rows& rows, int batch, int head, int heads, int length, int dim) {
  for (int i = 0; i < heads; ++i) {
    for (int row = 0; row < length; ++row) {
      if (!is_finite(row_at<T>(rows, batch, head + i, row), dim)) return false;
    }
  }
  return true;
}

// The keys that any of the call's queries needs by its intervals.
inline Keys needed_by_any(const Call& call) {
  Keys needed = {0, call.shape.key_length};
  if (call.first == nullptr) return needed;
  needed = {call.shape.key_length, 0};
  for (int row = 0; row < rows_of(call.shape); row += tile_queries) {
    needed = needed.with(make_tile(call, 0, 0, row).needed);
  }
  return needed;
}

// Whether there are keys that a tile of queries does not need by the intervals of the call.
inline bool skips_keys(const Call& call) {
  if (call.first == nullptr) return false;
  for (int row = 0; row < rows_of(call.shape); row += tile_queries) {
    if (make_tile(call, 0, 0, row).needed != Keys{0, call.shape.key_length}) return true;
  }
  return false;
}

}  // namespace flash
