// Attention on tensor cores (mma.sync, compute capability 8.0 and later): float32 as TF32, float16 and bfloat16 as such,
// sums in float32; online softmax over blocks of keys, in powers of two.
//
// A block of WARPS warps takes 16 queries of one head each: the rows of one product. Queries, keys and values lie in
// shared memory as 32-bit words, one TF32 number or two 16-bit ones each, so that the fragments of Q K^T are the same
// words for every type. A row is padded by 4 words: the lanes of a fragment then hit 32 different banks.

// It includes nothing, so that it compiles in a fraction of a second: what it needs of MLX's headers is in prelude.cuh.

namespace flash {

constexpr float HIDDEN = -3.4028234663852886e38f;  // a masked score, finite as in MLX: see online_softmax.py
constexpr float LOG2E = 1.4426950408889634f;

enum Mask { NONE, CAUSAL, BOOLEAN, ADDITIVE };

template <typename T>
constexpr bool is_half = false;
template <>
constexpr bool is_half<__half> = true;

// 32-bit words of a row of `dim` elements, padded to whole products (8 words).
template <typename T>
__host__ __device__ constexpr int words(int dim) {
  constexpr int in_product = 32 / sizeof(T);
  return (dim + in_product - 1) / in_product * 8;
}

__device__ inline float infinity() { return __uint_as_float(0x7f800000); }

__device__ inline uint32_t tf32(float x) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return bits;
}

__device__ inline float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// c[16, 8] += a[16, k] b[k, 8], with k of 8 TF32 or 16 16-bit elements.
template <typename T>
__device__ inline void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#define MULTIPLY(shape, type)                                                                          \
  asm volatile("mma.sync.aligned." shape ".row.col.f32." type "." type ".f32 {%0,%1,%2,%3}, "          \
               "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                                                \
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                        \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))
  if constexpr (sizeof(T) == 4) {
    MULTIPLY("m16n8k8", "tf32");
  } else if constexpr (is_half<T>) {
    MULTIPLY("m16n8k16", "f16");
  } else {
    MULTIPLY("m16n8k16", "bf16");
  }
#undef MULTIPLY
}

// Two numbers in 16 bits each, the first in the lower half.
template <typename T>
__device__ inline uint32_t pack(float low, float high) {
  uint32_t pair;
  if constexpr (is_half<T>) {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  } else {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  }
  return pair;
}

template <typename T>
__device__ inline T narrow(float x) {
  if constexpr (sizeof(T) == 4) {
    return x;
  } else {
    uint16_t bits = pack<T>(x, 0);
    return reinterpret_cast<T&>(bits);
  }
}

template <typename T>
__device__ inline float widen(T x) {
  if constexpr (sizeof(T) == 4) {
    return x;
  } else {
    const uint16_t bits = reinterpret_cast<uint16_t&>(x);
    if constexpr (is_half<T>) {
      float wide;
      asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(bits));
      return wide;
    } else {
      return __uint_as_float(uint32_t(bits) << 16);
    }
  }
}

// Rows of a matrix in memory; `step` is the stride of its last axis.
template <typename T>
struct Rows {
  const T* data;
  int64_t stride, step;
};

// Fills a tile of `in_tile` rows of DIM elements from the first `count` rows; what is beyond them or DIM is zeros. The
// tile is whole for everyone after `arrive`: 16-bit elements of the usual layout are copied while the threads go on.
template <typename T, int DIM>
__device__ void load(uint32_t* tile, Rows<T> rows, int count, int in_tile) {
  const int threads = blockDim.x;
  constexpr int in_chunk = 16 / sizeof(T), chunks = words<T>(DIM) / 4, stride = words<T>(DIM) + 4;
  const bool whole = rows.step == 1 && rows.stride % in_chunk == 0 && DIM % in_chunk == 0 &&
      reinterpret_cast<uintptr_t>(rows.data) % 16 == 0;
  for (int i = threadIdx.x; i < in_tile * chunks; i += threads) {
    const int row = i / chunks, chunk = i % chunks, column = chunk * in_chunk;
    const bool inside = row < count && column < DIM;
    const T* from = inside ? rows.data + row * rows.stride + column * rows.step : rows.data;
    uint32_t* to = tile + row * stride + chunk * 4;
    if (sizeof(T) == 2 && whole) {
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                   :
                   : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(to))), "l"(from), "r"(inside ? 16 : 0));
      continue;
    }
    uint4 value = {0, 0, 0, 0};
    if (inside) {
      if (whole) {
        value = *reinterpret_cast<const uint4*>(from);
      } else {
        T* elements = reinterpret_cast<T*>(&value);
        for (int j = 0; j < in_chunk && column + j < DIM; ++j) elements[j] = from[j * rows.step];
      }
    }
    if constexpr (sizeof(T) == 4) {
      value = {tf32(__uint_as_float(value.x)), tf32(__uint_as_float(value.y)), tf32(__uint_as_float(value.z)),
               tf32(__uint_as_float(value.w))};
    }
    *reinterpret_cast<uint4*>(to) = value;
  }
}

// Waits until what was loaded is there, and until all threads are here.
__device__ inline void arrive() {
  asm volatile("cp.async.wait_all;" : : : "memory");
  __syncthreads();
}

// The operand of 16 queries for all products with keys, where it is small enough to stay in registers.
template <typename T, int D>
struct Queries {
  static constexpr int stride = words<T>(D) + 4, steps = words<T>(D) / 8;
  static constexpr bool kept = sizeof(T) == 2 && steps <= 8;
  const uint32_t* tile;  // this lane's first word
  uint32_t own[kept ? steps : 1][4];

  __device__ explicit Queries(const uint32_t* rows) : tile(rows + threadIdx.x % 32 / 4 * stride + threadIdx.x % 4) {
    if constexpr (kept) {
#pragma unroll
      for (int step = 0; step < steps; ++step) read(own[step], step);
    }
  }

  __device__ void get(uint32_t (&a)[4], int step) const {
    if constexpr (kept) {
#pragma unroll
      for (int i = 0; i < 4; ++i) a[i] = own[step][i];
    } else {
      read(a, step);
    }
  }

  __device__ void read(uint32_t (&a)[4], int step) const {
    const uint32_t* q = tile + 8 * step;
    a[0] = q[0], a[1] = q[8 * stride], a[2] = q[4], a[3] = q[8 * stride + 4];
  }
};

// Four 8 x 8 matrices of 16 bits; each lane gives the address of one row, and gets a pair of each.
__device__ inline void load_matrices(uint32_t (&b)[4], const uint32_t* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3])
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(row))));
}

// scores[16, KEYS] of a warp's queries; the word of a fragment's element is the lane's pair, in rows of its group.
template <typename T, int D, int KEYS>
__device__ void score(float (&scores)[KEYS / 8][4], const Queries<T, D>& queries, const uint32_t* keys) {
  constexpr int stride = words<T>(D) + 4;
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int step = 0; step < words<T>(D) / 8; ++step) {
    uint32_t a[4];
    queries.get(a, step);
    if constexpr (sizeof(T) == 2) {
      const uint32_t* k = keys + (lane / 16 * 8 + lane % 8) * stride + lane / 8 % 2 * 4 + 8 * step;
#pragma unroll
      for (int n = 0; n < KEYS / 8; n += 2) {
        uint32_t b[4];
        load_matrices(b, k + 8 * n * stride);
        multiply<T>(scores[n], a, b[0], b[1]);
        multiply<T>(scores[n + 1], a, b[2], b[3]);
      }
    } else {
      const uint32_t* k = keys + lane / 4 * stride + lane % 4 + 8 * step;
#pragma unroll
      for (int n = 0; n < KEYS / 8; ++n) multiply<T>(scores[n], a, k[8 * n * stride], k[8 * n * stride + 4]);
    }
  }
}

// out[16, DV] += weights[16, KEYS] values[KEYS, DV]: the weights go from the layout of a result to that of an operand
// without leaving the lane. In TF32 by taking the keys 2i and 2i + 1 as i and i + 4 of a product.
template <typename T, int DV, int KEYS>
__device__ void add_values(float (&out)[words<T>(DV) * 4 / sizeof(T) / 8][4], const float (&weights)[KEYS / 8][4],
                           const uint32_t* values) {
  constexpr int stride = words<T>(DV) + 4, tiles = words<T>(DV) * 4 / sizeof(T) / 8;
  const int lane = threadIdx.x % 32, group = lane / 4, pair = lane % 4;
  if constexpr (sizeof(T) == 4) {
#pragma unroll
    for (int n = 0; n < KEYS / 8; ++n) {
      const float(&w)[4] = weights[n];
      const uint32_t a[4] = {tf32(w[0]), tf32(w[2]), tf32(w[1]), tf32(w[3])};
      const uint32_t* v = values + (8 * n + 2 * pair) * stride + group;
#pragma unroll
      for (int m = 0; m < tiles; ++m) multiply<T>(out[m], a, v[8 * m], v[stride + 8 * m]);
    }
  } else {
#pragma unroll
    for (int n = 0; n < KEYS / 8; n += 2) {
      const float(&low)[4] = weights[n];
      const float(&high)[4] = weights[n + 1];
      const uint32_t a[4] = {pack<T>(low[0], low[1]), pack<T>(low[2], low[3]), pack<T>(high[0], high[1]),
                             pack<T>(high[2], high[3])};
      const uint32_t* v = values + (8 * n + lane % 16) * stride + lane / 16 * 4;
#pragma unroll
      for (int m = 0; m < tiles; m += 2) {
        uint32_t b[4];
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3])
                     : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(v + 4 * m))));
        multiply<T>(out[m], a, b[0], b[1]);
        multiply<T>(out[m + 1], a, b[2], b[3]);
      }
    }
  }
}

// The mask as an array of [batch, heads, queries, keys], each stride 0 where it is spread.
template <typename M>
struct MaskArray {
  const M* data;  // of this batch row and head
  int64_t row, column;
};

template <typename T, int D, int DV, int WARPS, int KEYS, int MASK, typename M>
__device__ void attention(Rows<T> q, Rows<T> k, Rows<T> v, MaskArray<M> mask, const float* sink, float scale, int queries,
                          int keys, T* out) {
  constexpr int qk_stride = words<T>(D) + 4, v_stride = words<T>(DV) + 4, tiles = words<T>(DV) * 4 / sizeof(T) / 8;
  constexpr int QUERIES = 16 * WARPS;
  extern __shared__ uint4 shared[];
  uint32_t* q_tile = reinterpret_cast<uint32_t*>(shared);
  uint32_t* k_tile = q_tile + QUERIES * qk_stride;
  uint32_t* v_tile = k_tile + KEYS * qk_stride;

  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = lane / 4, pair = lane % 4;
  // The last queries see the most keys of a causal mask: first come, first served.
  const int first = (gridDim.x - 1 - blockIdx.x) * QUERIES;
  const int row[2] = {first + 16 * warp + group, first + 16 * warp + group + 8};  // this lane's queries
  const int offset = keys - queries;
  // A query before the first key sees none, and gets the mean of all values: it needs every block.
  const int end = MASK == CAUSAL && offset >= 0 ? min(keys, offset + first + QUERIES) : keys;

  const auto load_keys = [&](int start) {
    load<T, D>(k_tile, {k.data + start * k.stride, k.stride, k.step}, keys - start, KEYS);
  };
  const auto load_values = [&](int start) {
    load<T, DV>(v_tile, {v.data + start * v.stride, v.stride, v.step}, keys - start, KEYS);
  };
  q.data += first * q.stride;
  load<T, D>(q_tile, q, queries - first, QUERIES);
  constexpr bool in_background = sizeof(T) == 2;
  if constexpr (in_background) load_keys(0);
  arrive();
  const Queries<T, D> warp_queries(q_tile + 16 * warp * qk_stride);
  float result[tiles][4] = {}, row_max[2], row_sum[2];
  row_max[0] = row_max[1] = sink ? *sink * LOG2E : -infinity();
  row_sum[0] = row_sum[1] = sink && pair == 0 ? 1 : 0;  // each of a row's four lanes sums its own keys

  for (int start = 0; start < end; start += KEYS) {
    if constexpr (in_background) {
      load_values(start);  // while the scores are computed
    } else {
      load_keys(start);
      load_values(start);
      arrive();
    }
    float scores[KEYS / 8][4] = {};
    score<T, D, KEYS>(scores, warp_queries, k_tile);

    const bool ragged = start + KEYS > keys;
    const bool diagonal = MASK == CAUSAL && start + KEYS - 1 > offset + first + 16 * warp;
#pragma unroll
    for (int n = 0; n < KEYS / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int key = start + 8 * n + 2 * pair + i % 2, query = row[i / 2];
        float& x = scores[n][i];
        x *= scale * LOG2E;
        if (diagonal && key > offset + query) x = HIDDEN;
        if constexpr (MASK == BOOLEAN || MASK == ADDITIVE) {
          if (query < queries && key < keys) {
            const M own = mask.data[query * mask.row + key * mask.column];
            if constexpr (MASK == BOOLEAN) {
              if (!own) x = HIDDEN;
            } else {
              x += widen(own) * LOG2E;
            }
          }
        }
        if (ragged && key >= keys) x = -infinity();
      }
    }

#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float largest = row_max[r];
#pragma unroll
      for (int n = 0; n < KEYS / 8; ++n) largest = fmaxf(largest, fmaxf(scores[n][2 * r], scores[n][2 * r + 1]));
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffff, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffff, largest, 2));
      const float from = largest == -infinity() ? 0 : largest;  // an additive mask may hide a whole block
      const float shrink = power_of_two(row_max[r] - from);
      row_max[r] = largest;
      row_sum[r] *= shrink;
#pragma unroll
      for (int n = 0; n < KEYS / 8; ++n) {
#pragma unroll
        for (int i = 2 * r; i < 2 * r + 2; ++i) {
          scores[n][i] = power_of_two(scores[n][i] - from);
          row_sum[r] += scores[n][i];
        }
      }
#pragma unroll
      for (int m = 0; m < tiles; ++m) {
        result[m][2 * r] *= shrink;
        result[m][2 * r + 1] *= shrink;
      }
    }
    if constexpr (in_background) {
      arrive();
      if (start + KEYS < end) load_keys(start + KEYS);  // while the values are added
    }
    add_values<T, DV, KEYS>(result, scores, v_tile);
    arrive();
  }

#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float sum = row_sum[r];
    sum += __shfl_xor_sync(0xffffffff, sum, 1);
    sum += __shfl_xor_sync(0xffffffff, sum, 2);
    if (row[r] >= queries) continue;
#pragma unroll
    for (int m = 0; m < tiles; ++m) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int column = 8 * m + 2 * pair + i;
        if (column < DV) out[int64_t(row[r]) * DV + column] = narrow<T>(result[m][2 * r + i] / sum);
      }
    }
  }
}

}  // namespace flash
