// The CUDA kernel of HEADER, run by emulated instructions, against attention in double. Prints the cases that fail, and
// how many; with an argument it ends at the first. BRIEF leaves two kernels to compile, by warpgroups.

#include HEADER
#include "cases.cuh"

#include <random>
#include <string>

namespace {

// One case, for each block of threads; the largest error over the largest value that it may have.
template <typename T, int D, int DV, int CONSUMERS, int KEYS, int KIND>
double error(const Sizes& s, int queries_of_block, int threads) {
  using M = std::conditional_t<KIND == flash::ADDITIVE, T, bool>;
  std::mt19937 random(D + s.queries);
  std::normal_distribution<float> normal;
  const auto array = [&](int count) {
    std::vector<T> numbers(count);
    for (T& x : numbers) x = number<T>(normal(random));
    return numbers;
  };
  const std::vector<T> q = array(s.heads * s.queries * D), k = array(s.key_heads * s.keys * D),
                       v = array(s.key_heads * s.keys * DV);
  // Rows that are no whole 16 bytes apart, and whole ones.
  const int mask_row = s.keys + s.keys % 2 * 3;
  const int entries = s.queries * mask_row;
  const auto mask = std::make_unique<M[]>(entries);
  for (int i = 0; i < entries; ++i) {
    M& x = mask[i];
    if constexpr (KIND == flash::ADDITIVE) {
      x = number<T>(normal(random));
    } else {
      x = random() % 3 > 0;
    }
  }
  // A query that sees nothing.
  if constexpr (KIND == flash::BOOLEAN) std::fill_n(&mask[2 * mask_row], mask_row, false);
  if constexpr (KIND == flash::ADDITIVE) std::fill_n(&mask[2 * mask_row], mask_row, number<T>(-3.38e38f));
  std::vector<T> out(s.heads * s.queries * DV, number<T>(NAN));
  std::vector<float> logsumexp(s.heads * s.queries, NAN);
  const float scale = 1 / std::sqrt(float(D)), sink = 0.7f;
  const auto rows = [&](const std::vector<T>& x, int head, int length, int dim) {
    const T* data = x.data() + head * length * dim;
    return s.backwards ? flash::Rows<T>{data + dim - 1, dim, -1} : flash::Rows<T>{data, dim, 1};
  };
  const int blocks = (s.queries + queries_of_block - 1) / queries_of_block;
  for (int head = 0; head < s.heads; ++head) {
    const int key_head = head / (s.heads / s.key_heads);
    for (int block = 0; block < blocks; ++block) {
      std::memset(flash::shared, 0xff, sizeof flash::shared);  // NaN, in any type
      emulated::run_block({block, head, 0}, {blocks, s.heads, 1}, threads, [&] {
        flash::attention<T, D, DV, CONSUMERS, KEYS, KIND>(
            rows(q, head, s.queries, D), rows(k, key_head, s.keys, D), rows(v, key_head, s.keys, DV),
            flash::Mask<M>{s.window, mask.get(), mask_row, 1}, s.sinks ? &sink : nullptr, scale, s.queries, s.keys,
            flash::ResultRows<T>{out.data() + head * DV, s.heads * DV}, logsumexp.data() + head * s.queries);
      });
    }
  }

  double worst = 0;
  const auto at = [&](const flash::Rows<T>& r, int row, int column) {
    return double(flash::widen(r.data[row * r.stride + column * r.step]));
  };
  for (int head = 0; head < s.heads; ++head) {
    const int key_head = head / (s.heads / s.key_heads);
    const auto q_rows = rows(q, head, s.queries, D), k_rows = rows(k, key_head, s.keys, D),
               v_rows = rows(v, key_head, s.keys, DV);
    for (int i = 0; i < s.queries; ++i) {
      std::vector<double> scores(s.keys);
      double largest = s.sinks ? sink : -INFINITY, sum = 0;
      bool sees_none = true;
      for (int j = 0; j < s.keys; ++j) {
        double& x = scores[j];
        for (int d = 0; d < D; ++d) x += at(q_rows, i, d) * at(k_rows, j, d);
        x *= scale;
        const int own = s.keys - s.queries + i;
        bool seen = true;
        if (KIND == flash::CAUSAL || KIND == flash::WINDOW) seen = j <= own;
        if (KIND == flash::WINDOW) seen = seen && j > own - s.window;
        if constexpr (KIND == flash::BOOLEAN) seen = mask[i * mask_row + j];
        if constexpr (KIND == flash::ADDITIVE) {
          const float added = flash::widen(mask[i * mask_row + j]);
          x += added;
          seen = added > -1e38f;
        }
        if (!seen) x = flash::HIDDEN;
        sees_none = sees_none && !seen;
        largest = std::max(largest, x);
      }
      for (double& x : scores) sum += x = std::exp(x - largest);
      if (s.sinks) sum += std::exp(sink - largest);
      const float logarithm = logsumexp[head * s.queries + i];
      if (sees_none && !s.sinks) {
        if (logarithm != INFINITY) worst = INFINITY;
      } else if (!(std::abs(logarithm - (largest + std::log(sum)) * flash::LOG2E) < 1e-2)) {
        worst = INFINITY;
      }
      for (int d = 0; d < DV; ++d) {
        double wanted = 0;
        for (int j = 0; j < s.keys; ++j) wanted += scores[j] / sum * at(v_rows, j, d);
        const double difference =
            std::abs(flash::widen(out[(i * s.heads + head) * DV + d]) - wanted) / (1 + std::abs(wanted));
        worst = std::isnan(difference) ? INFINITY : std::max(worst, difference);
      }
    }
  }
  return worst;
}

int cases = 0, failures = 0;
bool ends_at_first = false;

template <typename T, int D, int DV, int CONSUMERS, int KEYS, int KIND>
void check(const Sizes& sizes) {
#ifdef BY_WARPGROUPS
  const int queries = 64 * CONSUMERS, threads = 128 * (1 + CONSUMERS);
#else
  const int queries = 16 * CONSUMERS, threads = 32 * CONSUMERS;
#endif
  const double allowed = sizeof(T) == 4 || flash::is_half<T> ? 2e-3 : 1.2e-2;
  for (const emulated::Way way : {emulated::Way{false, false, false}, {false, true, false}, {true, false, true},
                                  {true, true, true}}) {
    emulated::way = way;
    const double worst = error<T, D, DV, CONSUMERS, KEYS, KIND>(sizes, queries, threads);
    ++cases;
    if (worst <= allowed) continue;
    ++failures;
    std::printf("error %g: D %d, %d, consumers %d, keys %d, kind %d, %d x %d%s%s%s%s%s\n", worst, D, DV, CONSUMERS, KEYS, KIND,
                sizes.queries, sizes.keys, sizes.sinks ? ", sinks" : "", sizes.backwards ? ", rows backwards" : "",
                way.late_copies ? ", late copies" : "", way.late_products ? ", late products" : "",
                way.first_warps_behind ? ", first warps behind" : "");
    if (ends_at_first) std::exit(1);
  }
}

// Sizes around those of blocks.
template <typename T, int D, int DV, int CONSUMERS, int KEYS, int KIND>
void check_edges() {
  for (const auto& [queries, keys] : {std::pair{1, 1}, {9, 9}, {64, 128}, {65, 127}, {128, 128}, {129, 257}}) {
    check<T, D, DV, CONSUMERS, KEYS, KIND>({1, 1, queries, keys, 20, false, false});
  }
}

}  // namespace

int main(int arguments, char**) {
  using namespace flash;
  ends_at_first = arguments > 1;
#ifdef BY_WARPGROUPS
  check<__nv_bfloat16, 64, 64, 1, 128, CAUSAL>({2, 1, 70, 800, 0, false, false});
  check<__half, 64, 64, 1, 128, WINDOW>({2, 2, 140, 600, 100, false, false});
#ifndef BRIEF
  check<__nv_bfloat16, 64, 64, 1, 128, CAUSAL>({2, 1, 70, 300, 0, false, false});
  check<__half, 128, 128, 2, 128, CAUSAL>({1, 1, 300, 300, 0, true, false});
  check<__half, 128, 128, 1, 128, NONE>({1, 1, 20, 800, 0, false, false});
  check<__half, 72, 80, 2, 128, NONE>({1, 1, 130, 129, 0, false, false});
  check<__half, 64, 64, 1, 128, CAUSAL>({1, 1, 150, 63, 0, false, true});
  check<__half, 192, 128, 2, 64, ADDITIVE>({1, 1, 130, 141, 0, true, false});
  check<__nv_bfloat16, 128, 128, 1, 128, BOOLEAN>({1, 1, 70, 300, 0, false, false});
  check<__half, 256, 256, 2, 64, WINDOW>({1, 1, 130, 300, 33, true, false});
  check_edges<__half, 64, 64, 2, 64, CAUSAL>();
  check_edges<__half, 64, 64, 1, 128, WINDOW>();
#endif
#else
  check<__nv_bfloat16, 64, 64, 8, 64, CAUSAL>({2, 1, 140, 300, 0, false, false});
  check<__half, 128, 128, 4, 64, NONE>({1, 1, 70, 130, 0, true, false});
  check<__half, 72, 80, 4, 64, CAUSAL>({1, 1, 150, 63, 0, false, true});
  check<__half, 256, 256, 4, 32, WINDOW>({1, 1, 70, 200, 33, true, false});
  check<__half, 36, 36, 4, 64, BOOLEAN>({1, 1, 70, 131, 0, false, false});
  check<float, 64, 64, 8, 32, CAUSAL>({1, 1, 140, 200, 0, false, false});
  check<float, 128, 40, 4, 32, ADDITIVE>({1, 1, 70, 131, 0, false, true});
  check<float, 64, 64, 8, 32, WINDOW>({1, 1, 140, 300, 50, false, false});
  check_edges<__half, 64, 64, 4, 64, CAUSAL>();
  check_edges<float, 64, 64, 4, 32, WINDOW>();
#endif
  std::printf("%d cases, %d failures\n", cases, failures);
  return failures > 0;
}
