// The CUDA kernels for few queries, run by emulated instructions, against attention in double. Prints the cases that
// fail, and how many; with an argument it ends at the first. BRIEF leaves two kinds of kernel to compile.

#include HEADER
#include "cases.cuh"

#include <random>

namespace {

// Rows of some heads, of 16 bits or packed as `mx.quantize` does, with rows of NaN between the heads.
template <typename T, int BITS>
struct Array {
  static constexpr int GROUP = 32;
  int rows, dim;
  bool backwards;
  std::vector<T> numbers, scales, biases;
  std::vector<uint32_t> words;

  Array(int heads, int rows, int dim, bool backwards, std::mt19937& random)
      : rows(rows), dim(dim), backwards(backwards), numbers(heads * next(dim), number<T>(NAN)) {
    std::normal_distribution<float> normal;
    if (BITS) {
      scales = biases = std::vector<T>(heads * next(dim / GROUP), number<T>(NAN));
      words = std::vector<uint32_t>(heads * next(dim * BITS / 32), 0xffffffff);
    }
    for (int i = 0; i < heads * rows * dim; ++i) {
      const int head = i / dim / rows, row = i / dim % rows, column = i % dim;
      T& x = numbers[head * next(dim) + row * dim + (backwards ? dim - 1 - column : column)];
      if constexpr (BITS == 0) {
        x = number<T>(normal(random));
      } else {
        const int group = head * next(dim / GROUP) + (row * dim + column) / GROUP;
        if (column % GROUP == 0) scales[group] = number<T>(0.1f + 0.01f * normal(random)), biases[group] = number<T>(-1);
        const uint32_t code = random() % (1 << BITS) / (BITS == 8 ? 16 : 1);
        uint32_t& word = words[head * next(dim * BITS / 32) + (row * dim + column) * BITS / 32];
        const int bit = column * BITS % 32;
        word = (word & ~(((1u << BITS) - 1) << bit)) | code << bit;
        x = number<T>(code * flash::widen(scales[group]) + flash::widen(biases[group]));
      }
    }
  }

  int next(int of_row) const { return (rows + 8) * of_row; }
  double at(int head, int row, int column) const {
    return flash::widen(numbers[head * next(dim) + row * dim + (backwards ? dim - 1 - column : column)]);
  }
  flash::HeadRows<T> from(int head) const {
    const T* data = numbers.data() + head * next(dim);
    if (backwards) return {{data + dim - 1, dim, -1}, next(dim)};
    return {{data, dim, 1}, next(dim)};
  }
  auto reader(int head) const {
    if constexpr (BITS == 0) {
      return from(head).rows;
    } else {
      return flash::Quantized<T, BITS, GROUP>{{words.data() + head * next(dim * BITS / 32), dim * BITS / 32, 1},
                                              {scales.data() + head * next(dim / GROUP), dim / GROUP, 1},
                                              {biases.data() + head * next(dim / GROUP), dim / GROUP, 1}};
    }
  }
};

// One case; the largest error over the largest value that it may have.
template <typename T, int D, int DV, int SLICES, int TILES, int WARPS, int KIND, int BITS>
double error(const Sizes& s, int splits) {
  using M = std::conditional_t<KIND == flash::ADDITIVE, T, bool>;
  std::mt19937 random(D + s.queries);
  std::normal_distribution<float> normal;
  const Array<T, 0> q(s.heads, s.queries, D, s.backwards, random);
  const Array<T, BITS> k(s.key_heads, s.keys, D, s.backwards, random), v(s.key_heads, s.keys, DV, s.backwards, random);
  const int entries = s.queries * s.keys, group = s.heads / s.key_heads, rows = group * s.queries;
  const auto mask = std::make_unique<M[]>(s.heads * entries);
  for (int i = 0; i < s.heads * entries; ++i) {
    if constexpr (KIND == flash::ADDITIVE) {
      mask[i] = number<T>(random() % 4 ? normal(random) : random() % 2 ? -INFINITY : -1e38f);
    } else {
      mask[i] = random() % 3 > 0;
    }
  }
  // A query that sees nothing.
  const M nothing = [] {
    if constexpr (KIND == flash::ADDITIVE) return number<T>(flash::is_half<T> ? -65504.0f : -3.38e38f);
    else return false;
  }();
  std::fill_n(&mask[(s.queries - 1) * s.keys], s.keys, nothing);

  std::vector<T> out(s.heads * s.queries * DV, number<T>(NAN));
  std::vector<float> parts(s.heads * s.queries * splits * DV, NAN), sinks(s.heads, 0.7f);
  std::vector<float2> sums(s.heads * s.queries * splits, {NAN, NAN});
  const float scale = 1 / std::sqrt(float(D));
  const int blocks = (rows + 16 * TILES - 1) / (16 * TILES);
  for (int head = 0; head < s.key_heads; ++head) {
    const int first = head * group, row = first * s.queries;
    std::vector<uint64_t> flags(blocks * splits, 0x7ff8000000000000);
    for (int i = 0; i < blocks * splits; ++i) {
      const int block = i / splits;
      const flash::Results<T> results = {out.data() + row * DV, parts.data() + row * splits * DV,
                                         sums.data() + row * splits, &flags[block * splits],
                                         s.sinks ? &sinks[first] : nullptr};
      std::memset(flash::shared, 0xff, sizeof flash::shared);  // NaN, in any type
      emulated::run_block({i % splits, 0, 0}, {splits, 1, 1}, 32 * WARPS, [&] {
        flash::few_queries<T, D, DV, SLICES, TILES, WARPS, KIND>(
            q.from(first), k.reader(head), v.reader(head), flash::Mask<M>{s.window, &mask[first * entries], s.keys, 1},
            entries, scale, {rows, s.queries}, s.keys, block, results);
      });
    }
    // Left set, they would be for whoever gets this memory next.
    if (splits > 1 && std::count(flags.begin(), flags.end(), 0u) != blocks * splits) return INFINITY;
  }

  double worst = 0;
  for (int row = 0; row < s.heads * s.queries; ++row) {
    const int head = row / s.queries, key_head = head / group, query = row % s.queries;
    std::vector<double> scores(s.keys);
    double largest = s.sinks ? sinks[0] : -INFINITY, sum = 0;
    for (int j = 0; j < s.keys; ++j) {
      double& x = scores[j];
      for (int d = 0; d < D; ++d) x += q.at(head, query, d) * k.at(key_head, j, d);
      x *= scale;
      const int own = s.keys - s.queries + query;
      const M entry = mask[head * entries + query * s.keys + j];
      if (KIND == flash::CAUSAL || KIND == flash::WINDOW) x = j <= own ? x : flash::HIDDEN;
      if (KIND == flash::WINDOW && j <= own - s.window) x = flash::HIDDEN;
      if constexpr (KIND == flash::BOOLEAN) x = entry ? x : flash::HIDDEN;
      if constexpr (KIND == flash::ADDITIVE) x = float(x) + flash::widen(entry);
      largest = std::max(largest, x);
    }
    if (largest < -3e38 && KIND == flash::ADDITIVE) scores.assign(s.keys, largest = 0);
    for (double& x : scores) sum += x = std::exp(x - largest);
    if (s.sinks) sum += std::exp(sinks[0] - largest);
    for (int d = 0; d < DV; ++d) {
      double wanted = 0;
      for (int j = 0; j < s.keys; ++j) wanted += scores[j] / sum * v.at(key_head, j, d);
      const double difference = std::abs(flash::widen(out[row * DV + d]) - wanted) / (1 + std::abs(wanted));
      worst = std::isnan(difference) ? INFINITY : std::max(worst, difference);
    }
  }
  return worst;
}

int cases = 0, failures = 0;
bool ends_at_first = false;

template <typename T, int D, int DV, int SLICES, int TILES, int WARPS, int KIND, int BITS = 0>
void check(const Sizes& sizes, int splits) {
  const double allowed = flash::is_half<T> ? 2e-3 : 1.2e-2;
  for (const bool behind : {false, true}) {
    emulated::way = {behind, false, behind};
    const double worst = error<T, D, DV, SLICES, TILES, WARPS, KIND, BITS>(sizes, splits);
    ++cases;
    if (worst <= allowed) continue;
    ++failures;
    std::printf("error %g: D %d, %d, slices %d, tiles %d, warps %d, kind %d, %d bits, %d x %d, splits %d%s%s\n",
                worst, D, DV, SLICES, TILES, WARPS, KIND, BITS, sizes.queries, sizes.keys, splits, sizes.sinks ? ", sinks" : "",
                sizes.backwards ? ", rows backwards" : "");
    if (ends_at_first) std::exit(1);
  }
}

}  // namespace

int main(int arguments, char**) {
  using namespace flash;
  ends_at_first = arguments > 1;
  // Slices, tiles, warps; heads, key heads, queries, keys, window.
  check<__half, 128, 128, 1, 2, 4, BOOLEAN, 8>({4, 1, 5, 200, 0, true, false}, 2);
  check<__half, 256, 256, 2, 2, 4, WINDOW>({5, 1, 5, 150, 40, false, false}, 2);
#ifndef BRIEF
  check<__nv_bfloat16, 128, 128, 1, 1, 8, NONE>({2, 1, 1, 600, 0, false, false}, 3);
  check<__half, 128, 128, 1, 1, 4, CAUSAL>({4, 2, 5, 257, 0, true, false}, 2);
  check<__half, 64, 64, 1, 2, 4, CAUSAL>({3, 1, 11, 140, 0, false, false}, 1);
  check<__half, 64, 64, 1, 4, 4, WINDOW>({8, 1, 7, 300, 33, true, false}, 2);
  check<__half, 72, 80, 1, 1, 4, BOOLEAN>({2, 1, 4, 131, 0, false, true}, 2);
  check<__nv_bfloat16, 96, 64, 1, 2, 4, ADDITIVE>({2, 1, 9, 70, 0, false, false}, 1);
  check<__half, 576, 512, 4, 1, 4, CAUSAL>({20, 1, 1, 70, 0, false, false}, 2);
  check<__nv_bfloat16, 64, 96, 1, 2, 4, CAUSAL, 4>({6, 1, 3, 100, 0, false, false}, 1);
  check<__half, 64, 64, 1, 1, 4, NONE>({1, 1, 1, 1, 0, false, false}, 4);
#endif
  std::printf("%d cases, %d failures\n", cases, failures);
  return failures > 0;
}
