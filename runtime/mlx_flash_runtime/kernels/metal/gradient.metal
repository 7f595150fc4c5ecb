// Gradients of attention that go over the tiles that a mask leaves, on MLX's `steel` headers.
//
// Queries and keys take turns. One side are the rows of a product, 8 for each simdgroup, which it
// holds in registers; the other side are its columns, which come by tiles through the memory of the
// threadgroup. Scores and what is wanted of their weights are products of both sides, and stand in
// registers as the next product needs them: nothing is moved from lane to lane. Where the rows are
// queries, their gradients are sums over columns; where they are keys, those of keys and values.

namespace flash {

using namespace metal;
using namespace mlx::steel;

constant constexpr int SIMDGROUPS = 4;        // of a threadgroup
constant constexpr int ROWS = 8 * SIMDGROUPS;  // of a threadgroup

// Rows of one head, `stride` numbers from one to the next: its own ones where heads lie one after the
// other, those of all heads where the heads of a position lie side by side.
template <typename T>
struct Rows {
  const device T* data;
  int stride;
};

// One side, of one head: what is multiplied to scores, queries or keys; and what is multiplied to
// weights, the gradients of outputs or values.
template <typename T>
struct Side {
  Rows<T> scored, weighted;
  int count;
};

// Of each query the logsumexp of its scores, and `sum(output * its gradient)`.
struct State {
  float logsumexp, delta;
};

struct OfRow {
  State state;
  State at(int) const thread { return state; }
};

struct OfColumns {
  const device float* logsumexp;
  const device float* delta;
  State at(int column) const thread { return State{logsumexp[column], delta[column]}; }
};

// Scale and softcap of scores, in units of log(2).
struct Scores {
  float scale, softcap;
};

// The columns that a row sees.
struct Seen {
  int first, last;
};

// Memory for a tile of columns, and the tiles that any row of a threadgroup sees: from the first to
// before `stop`.
template <typename T>
struct Tiles {
  threadgroup T* scored;
  threadgroup T* weighted;
  int first, stop;
};

// Where a lane is: the column and the row of its numbers in a matrix, and its number.
struct Lane {
  short2 at;
  ushort simdgroup, number;
};

template <typename T, int DIM>
using Held = MMATile<T, 1, DIM / 8>;
template <int DIM>
using Sums = MMATile<float, 1, DIM / 8>;

// Numbers from one row of a tile to the next.
template <typename T>
constexpr int stride(int dim) {
  return dim + 16 / sizeof(T);
}

// What a simdgroup holds of a matrix of so many rows, with zeros beyond them; `row` is the lane's.
template <int DIM, typename T>
inline void hold(thread Held<T, DIM>& own, Rows<T> x, int row, int count, short2 at) {
  const short is_there = row < count;
  own.template load_safe<T, 1, 1>(
      x.data + int64_t(row) * x.stride + at.x, x.stride, short2(short(DIM - at.x), is_there));
}

template <int DIM, typename T>
inline void store(
    thread Sums<DIM>& sums, float factor, device T* x, int stride, int row, int count, short2 at) {
  const short is_there = row < count;
  sums.template row_bin_op<MulOp>(&factor);
  sums.template store_safe<T, 1, 1>(
      x + int64_t(row) * stride + at.x, stride, short2(short(DIM - at.x), is_there));
}

// Adds the products of two rows to `sum`, which all lanes of a row get.
template <int DIM, typename T>
inline void add_products(thread float& sum, thread Held<T, DIM>& x, thread Held<T, DIM>& y) {
  STEEL_PRAGMA_UNROLL
  for (short d = 0; d < DIM / 8; ++d) {
    Sums<8> products;
    products.frag_at(0, 0)[0] = float(x.frag_at(0, d)[0]) * float(y.frag_at(0, d)[0]);
    products.frag_at(0, 0)[1] = float(x.frag_at(0, d)[1]) * float(y.frag_at(0, d)[1]);
    products.template row_reduce<SumOp>(&sum);
  }
}

// Of each row that is held and each column of the tile the sum of their products.
template <int DIM, int COLUMNS, typename T>
inline void multiply(
    thread Sums<COLUMNS>& products, thread Held<T, DIM>& own, const threadgroup T* tile, short2 at) {
  constexpr int STRIDE = stride<T>(DIM);
  products.clear();
  STEEL_PRAGMA_UNROLL
  for (short d = 0; d < DIM / 8; ++d) {
    Held<T, COLUMNS> columns;
    simdgroup_barrier(mem_flags::mem_none);
    columns.template load<T, 1, 1, 1, STRIDE>(&tile[at.x * STRIDE + 8 * d + at.y]);
    simdgroup_barrier(mem_flags::mem_none);
    STEEL_PRAGMA_UNROLL
    for (short j = 0; j < COLUMNS / 8; ++j) {
      Sums<COLUMNS>::MMAFrag_t::mma(
          products.frag_at(0, j), own.frag_at(0, d), columns.frag_at(0, j), products.frag_at(0, j));
    }
  }
}

// Adds to each row the columns of the tile, by their weights.
template <int DIM, int COLUMNS, typename T>
inline void add(
    thread Sums<DIM>& sums, thread Sums<COLUMNS>& weights, const threadgroup T* tile, short2 at) {
  constexpr int STRIDE = stride<T>(DIM);
  STEEL_PRAGMA_UNROLL
  for (short d = 0; d < DIM / 8; ++d) {
    STEEL_PRAGMA_UNROLL
    for (short j = 0; j < COLUMNS / 8; ++j) {
      Sums<8> column;
      simdgroup_barrier(mem_flags::mem_none);
      column.template load<T, 1, 1, STRIDE, 1>(
          &tile[(8 * j + at.y) * STRIDE + 8 * d + at.x]);
      simdgroup_barrier(mem_flags::mem_none);
      Sums<DIM>::MMAFrag_t::mma(
          sums.frag_at(0, d), weights.frag_at(0, j), column.frag_at(0, 0), sums.frag_at(0, d));
    }
  }
}

// Of scores and what is wanted of their weights: the weights, and the gradients of the scores.
template <bool SOFTCAP, int COLUMNS, typename States>
inline void differentiate(
    thread Sums<COLUMNS>& weights, thread Sums<COLUMNS>& wanted, int first_column, Seen seen,
    Scores scores, States states) {
  STEEL_PRAGMA_UNROLL
  for (short j = 0; j < COLUMNS / 8; ++j) {
    STEEL_PRAGMA_UNROLL
    for (short jj = 0; jj < 2; ++jj) {
      const int column = first_column + 8 * j + jj;
      float score = scores.scale * weights.frag_at(0, j)[jj], slope = 1, weight = 0, towards = 0;
      if (SOFTCAP) {
        const float capped = metal::precise::tanh(score / scores.softcap);
        score = scores.softcap * capped;
        slope = 1 - capped * capped;
      }
      if (column >= seen.first && column <= seen.last) {
        const State state = states.at(column);
        weight = fast::exp2(score - M_LOG2E_F * state.logsumexp);
        towards = weight * slope * (wanted.frag_at(0, j)[jj] - state.delta);
      }
      weights.frag_at(0, j)[jj] = weight;
      wanted.frag_at(0, j)[jj] = towards;
    }
  }
}

// Adds what the columns of one head say of the rows that are held.
template <bool OF_KEYS, bool SOFTCAP, int COLUMNS, int D, int DV, typename T, typename States>
inline void over_tiles(
    thread Sums<D>& scored_sums, thread Sums<DV>& weighted_sums, thread Held<T, D>& scored,
    thread Held<T, DV>& weighted, Side<T> columns, Tiles<T> tiles, Seen seen, Scores scores,
    States states, Lane lane) {
  const int64_t start = tiles.first * COLUMNS;
  BlockLoaderT<T, COLUMNS, D, stride<T>(D), 1, 0, 32 * SIMDGROUPS> scored_loader(
      columns.scored.data + start * columns.scored.stride, columns.scored.stride, tiles.scored,
      lane.simdgroup, lane.number);
  BlockLoaderT<T, COLUMNS, DV, stride<T>(DV), 1, 0, 32 * SIMDGROUPS> weighted_loader(
      columns.weighted.data + start * columns.weighted.stride, columns.weighted.stride,
      tiles.weighted, lane.simdgroup, lane.number);
  for (int tile = tiles.first; tile < tiles.stop; ++tile) {
    const int left = columns.count - tile * COLUMNS;
    threadgroup_barrier(mem_flags::mem_threadgroup);  // the tile before is done with
    if (left < COLUMNS) {
      scored_loader.load_safe(short2(short(D), short(left)));
      weighted_loader.load_safe(short2(short(DV), short(left)));
    } else {
      scored_loader.load_unsafe();
      weighted_loader.load_unsafe();
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    Sums<COLUMNS> weights, wanted;
    multiply<D, COLUMNS>(weights, scored, tiles.scored, lane.at);
    multiply<DV, COLUMNS>(wanted, weighted, tiles.weighted, lane.at);
    differentiate<SOFTCAP, COLUMNS>(
        weights, wanted, tile * COLUMNS + lane.at.x, seen, scores, states);
    add<D, COLUMNS>(scored_sums, wanted, tiles.scored, lane.at);
    if (OF_KEYS) add<DV, COLUMNS>(weighted_sums, weights, tiles.weighted, lane.at);
    scored_loader.next();
    weighted_loader.next();
  }
}

}  // namespace flash
