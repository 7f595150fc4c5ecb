// Attention of few queries on many keys: a step of decoding, or a draft that is verified. The keys
// are split into parts, each for one simdgroup; `combined.metal` puts their results together.
//
// Queries are rows, of all query heads that share a key head, and a simdgroup takes 8 of them. It
// multiplies matrices of 8 x 8 numbers, of which each lane holds two neighbours of one row. Which
// dimension stands in which column is free as long as both factors agree: so a lane reads a run of
// numbers that are neighbours in memory, one for each of several matrices.

namespace flash {

using namespace metal;

// What a lane holds in arrays is in registers only where every index is known.
#define UNROLL _Pragma("clang loop unroll(full)")

constant constexpr int ROWS = 8;        // queries of a simdgroup
constant constexpr int TILE = 32;       // keys that it takes at once
constant constexpr int SIMDGROUPS = 4;  // of a threadgroup
constant constexpr float LOG2E = 1.44269504f;
// The score of a key that a mask hides. It is finite, so that a query that sees no key gets the
// mean of all values, as in MLX's unfused attention.
constant constexpr float HIDDEN = -1e38f;

enum MaskKind { NONE, BAND, BOOLEAN, ADDITIVE };

// A matrix with any strides.
template <typename T>
struct Matrix {
  const device T* data;
  int64_t row_stride, stride;
};

template <typename T>
inline Matrix<T> matrix(const device T* data, int64_t row_stride, int64_t stride) {
  return Matrix<T>{data, row_stride, stride};
}

// What `mx.quantize` makes of rows: words of BITS for each number, and for GROUP of them a scale
// and a bias.
template <typename T, int BITS, int GROUP>
struct Quantized {
  Matrix<uint32_t> words;
  Matrix<T> scales, biases;
};

// The COUNT numbers of a row from the column `first` on. Unless WHOLE, those from the column `end`
// on are zeros.
template <int COUNT, bool WHOLE, typename T>
inline void read(Matrix<T> from, thread float* x, int row, int first, int end) {
  const device T* data = from.data + row * from.row_stride;
  if (from.stride == 1) {  // nearly always: the compiler makes wide loads of this
    UNROLL for (int i = 0; i < COUNT; ++i) {
      x[i] = WHOLE || first + i < end ? float(data[first + i]) : 0.0f;
    }
  } else {
    UNROLL for (int i = 0; i < COUNT; ++i) {
      x[i] = WHOLE || first + i < end ? float(data[(first + i) * from.stride]) : 0.0f;
    }
  }
}

template <int COUNT, bool WHOLE, typename T, int BITS, int GROUP>
inline void read(
    Quantized<T, BITS, GROUP> from, thread float* x, int row, int first, int end) {
  constexpr int PER_WORD = 32 / BITS, STEP = COUNT < PER_WORD ? COUNT : PER_WORD;
  const bool is_there = WHOLE || first < end;  // runs end where the row does
  const int group = is_there ? first / GROUP : 0;
  const float scale = from.scales.data[row * from.scales.row_stride + group * from.scales.stride];
  const float bias = from.biases.data[row * from.biases.row_stride + group * from.biases.stride];
  const device uint32_t* words = from.words.data + row * from.words.row_stride;
  UNROLL for (int i = 0; i < COUNT; i += STEP) {
    const int number = is_there ? first + i : 0;
    uint32_t word = words[number / PER_WORD * from.words.stride] >> number % PER_WORD * BITS;
    UNROLL for (int j = 0; j < STEP; ++j) {
      x[i + j] = is_there ? scale * float(word & ((1u << BITS) - 1)) + bias : 0.0f;
      word >>= BITS;
    }
  }
}

// Where a lane's two numbers stand in a matrix of 8 x 8: as MLX's own kernels have it, `get_coord`
// of its steel/attn/mma.h.
inline int row_of(uint lane) {
  return int((lane / 4 & 4) + lane / 2 % 4);
}

inline int column_of(uint lane) {
  return int((lane / 4 & 2) * 2 + lane % 2 * 2);
}

// The largest, or the sum, of what the four lanes of a row have.
inline float largest_of_row(float x) {
  x = max(x, simd_shuffle_xor(x, ushort(1)));
  return max(x, simd_shuffle_xor(x, ushort(8)));
}

inline float sum_of_row(float x) {
  x += simd_shuffle_xor(x, ushort(1));
  return x + simd_shuffle_xor(x, ushort(8));
}

// sum += a * b, matrices of 8 x 8.
inline void multiply_add(thread float2& sum, float2 a, float2 b) {
  simdgroup_matrix<float, 8, 8> left, right, total;
  reinterpret_cast<thread float2&>(left.thread_elements()) = a;
  reinterpret_cast<thread float2&>(right.thread_elements()) = b;
  reinterpret_cast<thread float2&>(total.thread_elements()) = sum;
  simdgroup_multiply_accumulate(total, left, right, total);
  sum = reinterpret_cast<thread float2&>(total.thread_elements());
}

// What hides keys from one query: see `masked`.
template <typename M>
struct Mask {
  M row;           // of the mask's array, for this query
  int64_t stride;  // from a key to the next
  int position;    // of the query along the keys
  int window;      // the keys that it sees up to its own
};

template <typename M>
inline Mask<M> mask_of(M row, int64_t stride, int position, int window) {
  return Mask<M>{row, stride, position, window};
}

// A score, which is in units of log(2), after the mask; `key` is within the keys.
template <int KIND, typename M>
inline float masked(float score, Mask<M> mask, int key) {
  if constexpr (KIND == BAND) {
    const bool sees = key <= mask.position && key > mask.position - mask.window;
    return sees ? score : HIDDEN;
  } else if constexpr (KIND == BOOLEAN) {
    return mask.row[key * mask.stride] ? score : HIDDEN;
  } else if constexpr (KIND == ADDITIVE) {
    // The most negative number of a type would be minus infinity in units of log(2).
    const float added = float(mask.row[key * mask.stride]);
    score += added * LOG2E;
    return score < HIDDEN && added != -INFINITY ? HIDDEN : score;
  } else {
    return score;
  }
}

// One simdgroup's part: the sum of values weighted by the softmax of scores, over some keys.
// RUN of the keys' dimensions, VALUE_RUN of the values' are neighbours in a lane; D and DV are
// rounded up to whole steps of the loops in DIMS and VALUE_DIMS.
template <int D, int RUN, int VALUE_DIMS, int VALUE_RUN>
struct Part {
  static constant constexpr int DIMS = (D + 8 * RUN - 1) / (8 * RUN) * (8 * RUN);
  float2 scores[TILE / 8];
  float2 out[VALUE_DIMS / 8];
  float largest, sum;  // of the row; the sum is of this lane's keys alone
};

// scores = queries * keys, for TILE keys from `first` on; keys beyond the last are the last again.
template <int D, int RUN, int VALUE_DIMS, int VALUE_RUN, typename T, typename Keys>
inline void multiply_keys(
    thread Part<D, RUN, VALUE_DIMS, VALUE_RUN>& part,
    const threadgroup T* queries,
    Keys keys,
    int first,
    int last,
    uint lane) {
  constexpr int DIMS = Part<D, RUN, VALUE_DIMS, VALUE_RUN>::DIMS;
  const int row = row_of(lane), column = column_of(lane);
  UNROLL for (int n = 0; n < TILE / 8; ++n) part.scores[n] = float2(0.0f);
  for (int dim = 0; dim < DIMS; dim += 8 * RUN) {
    const threadgroup T* own = queries + row * DIMS + dim + column * RUN;
    float2 q[RUN];
    UNROLL for (int i = 0; i < RUN; ++i) q[i] = float2(float(own[i]), float(own[RUN + i]));
    UNROLL for (int n = 0; n < TILE / 8; ++n) {
      float left[RUN], right[RUN];
      const int key = first + 8 * n + column;
      read<RUN, DIMS == D>(keys, left, min(key, last), dim + row * RUN, D);
      read<RUN, DIMS == D>(keys, right, min(key + 1, last), dim + row * RUN, D);
      UNROLL for (int i = 0; i < RUN; ++i) {
        multiply_add(part.scores[n], q[i], float2(left[i], right[i]));
      }
    }
  }
}

// The scores become weights, and what was summed up before is scaled to the new largest score.
template <int KIND, bool SOFTCAP, int D, int RUN, int VALUE_DIMS, int VALUE_RUN, typename M>
inline void weigh(
    thread Part<D, RUN, VALUE_DIMS, VALUE_RUN>& part,
    Mask<M> mask,
    float scale,
    float softcap,
    int first,
    int last,
    uint lane) {
  float largest = part.largest;
  UNROLL for (int n = 0; n < TILE / 8; ++n) {
    UNROLL for (int i = 0; i < 2; ++i) {
      const int key = first + 8 * n + column_of(lane) + i;
      float score = part.scores[n][i] * scale;
      if (SOFTCAP) score = softcap * precise::tanh(score / softcap);
      score *= LOG2E;
      score = key <= last ? masked<KIND>(score, mask, key) : -INFINITY;
      part.scores[n][i] = score;
      largest = max(largest, score);
    }
  }
  largest = largest_of_row(largest);
  const float factor = fast::exp2(part.largest - largest);
  part.largest = largest;
  part.sum *= factor;
  UNROLL for (int n = 0; n < TILE / 8; ++n) {
    UNROLL for (int i = 0; i < 2; ++i) {
      part.scores[n][i] = fast::exp2(part.scores[n][i] - largest);
      part.sum += part.scores[n][i];
    }
  }
  UNROLL for (int i = 0; i < VALUE_DIMS / 8; ++i) part.out[i] *= factor;
}

// out += weights * values, for the columns of the values from `start` to `end`.
template <bool WHOLE, int D, int RUN, int VALUE_DIMS, int VALUE_RUN, typename Values>
inline void multiply_values(
    thread Part<D, RUN, VALUE_DIMS, VALUE_RUN>& part,
    Values values,
    int start,
    int end,
    int first,
    int last,
    uint lane) {
  const int row = row_of(lane), column = column_of(lane) / 2 * VALUE_RUN;
  UNROLL for (int dim = 0; dim < VALUE_DIMS; dim += 4 * VALUE_RUN) {
    UNROLL for (int n = 0; n < TILE / 8; ++n) {
      float x[VALUE_RUN];
      const int key = min(first + 8 * n + row, last);
      read<VALUE_RUN, WHOLE>(values, x, key, start + dim + column, end);
      UNROLL for (int i = 0; i < VALUE_RUN / 2; ++i) {
        multiply_add(part.out[dim / 8 + i], part.scores[n], float2(x[2 * i], x[2 * i + 1]));
      }
    }
  }
}

// The columns from `start` to `end` of one row of this part's result.
template <int D, int RUN, int VALUE_DIMS, int VALUE_RUN>
inline void write(
    thread Part<D, RUN, VALUE_DIMS, VALUE_RUN>& part,
    device float* out,
    int start,
    int end,
    uint lane) {
  const int column = column_of(lane) / 2 * VALUE_RUN;
  UNROLL for (int dim = 0; dim < VALUE_DIMS; dim += 4 * VALUE_RUN) {
    UNROLL for (int i = 0; i < VALUE_RUN; ++i) {
      const int at = start + dim + column + i;
      if (at < end) out[at] = part.out[dim / 8 + i / 2][i % 2];
    }
  }
}

}  // namespace flash
