// The CUDA kernels of gradients of HEADER, run by emulated instructions, against the formulas in double. Prints the
// cases that fail, and how many; with an argument it ends at the first. BRIEF leaves two kernels to
// compile, by warpgroups.

#include HEADER
#include "cases.cuh"

#include <random>
#include <string>

namespace {

// Rows of some heads, with rows of NaN between them.
template <typename T>
struct Array {
  int rows, dim;
  bool backwards;
  std::vector<T> numbers;

  Array(int heads, int rows, int dim, bool backwards, std::mt19937* random)
      : rows(rows), dim(dim), backwards(backwards), numbers(heads * next(), number<T>(NAN)) {
    std::normal_distribution<float> normal;
    for (int i = 0; random && i < heads * rows * dim; ++i)
      at(i / dim / rows, i / dim % rows, i % dim) = flash::narrow<T>(normal(*random));
  }

  void round() {
    for (T& x : numbers) x = number<T>(flash::widen(x));
  }

  int next() const { return (rows + 8) * dim; }
  T& at(int head, int row, int column) {
    return numbers[head * next() + row * dim + (backwards ? dim - 1 - column : column)];
  }
  double wide(int head, int row, int column) { return flash::widen(at(head, row, column)); }
  flash::HeadRows<T> from(int head) const {
    const T* data = numbers.data() + head * next();
    if (backwards) return {{data + dim - 1, dim, -1}, next()};
    return {{data, dim, 1}, next()};
  }
};

// One case: the largest error of a gradient over the largest value that it may have.
template <typename T, int D, int DV, int CONSUMERS, int PASSING, int KIND>
double error(const Sizes& s, int rows, int threads) {
  using M = std::conditional_t<KIND == flash::ADDITIVE, T, bool>;
  std::mt19937 random(D + s.queries);
  std::normal_distribution<float> normal;
  Array<T> q(s.heads, s.queries, D, s.backwards, &random), k(s.key_heads, s.keys, D, s.backwards, &random),
      v(s.key_heads, s.keys, DV, s.backwards, &random), cotangent(s.heads, s.queries, DV, s.backwards, &random),
      out(s.heads, s.queries, DV, false, nullptr);
  q.round(), k.round(), v.round();  // as the forward pass took them, before it left its outputs
  const int entries = s.queries * s.keys, group = s.heads / s.key_heads;
  const auto mask = std::make_unique<M[]>(s.heads * entries);
  for (int i = 0; i < s.heads * entries; ++i) {
    if constexpr (KIND == flash::ADDITIVE) {
      mask[i] = number<T>(normal(random));
    } else {
      mask[i] = random() % 3 > 0;
    }
  }
  if (KIND == flash::BOOLEAN) std::fill_n(&mask[2 * s.keys], s.keys, M{});  // a query that sees nothing
  const double scale = 1 / std::sqrt(double(D)), sink = 0.7f;

  const auto doubles = [](int count) { return std::vector<double>(count); };
  std::vector<double> dq = doubles(s.heads * s.queries * D), dk = doubles(s.key_heads * s.keys * D),
                      dv = doubles(s.key_heads * s.keys * DV);
  std::vector<float> logsumexp(s.heads * s.queries);
  for (int head = 0; head < s.heads; ++head) {
    const int key_head = head / group;
    for (int i = 0; i < s.queries; ++i) {
      std::vector<double> weights(s.keys);
      std::vector<bool> seen(s.keys);
      double largest = s.sinks ? sink : -INFINITY, sum = 0, delta = 0;
      bool sees_none = !s.sinks;
      for (int j = 0; j < s.keys; ++j) {
        double& x = weights[j];
        for (int d = 0; d < D; ++d) x += q.wide(head, i, d) * k.wide(key_head, j, d) * scale;
        const int own = s.keys - s.queries + i;
        const M entry = mask[head * entries + i * s.keys + j];
        seen[j] = true;
        if (KIND == flash::CAUSAL || KIND == flash::WINDOW) seen[j] = j <= own;
        if (KIND == flash::WINDOW) seen[j] = seen[j] && j > own - s.window;
        if constexpr (KIND == flash::BOOLEAN) seen[j] = entry;
        if constexpr (KIND == flash::ADDITIVE) x += flash::widen(entry);
        if (!seen[j]) x = flash::HIDDEN;
        sees_none = sees_none && !seen[j];
        largest = std::max(largest, x);
      }
      for (double& x : weights) sum += x = std::exp(x - largest);
      if (s.sinks) sum += std::exp(sink - largest);
      for (double& x : weights) x /= sum;
      logsumexp[head * s.queries + i] = sees_none ? INFINITY : (largest + std::log(sum)) * std::log2(M_E);
      for (int d = 0; d < DV; ++d) {
        double of_out = 0;
        for (int j = 0; j < s.keys; ++j) {
          of_out += weights[j] * v.wide(key_head, j, d);
          dv[(j * s.key_heads + key_head) * DV + d] += weights[j] * cotangent.wide(head, i, d);
        }
        out.at(head, i, d) = flash::narrow<T>(of_out);
        delta += of_out * cotangent.wide(head, i, d);
      }
      for (int j = 0; j < s.keys; ++j) {
        if (!seen[j]) continue;
        double gradient = 0;
        for (int d = 0; d < DV; ++d) gradient += cotangent.wide(head, i, d) * v.wide(key_head, j, d);
        gradient = weights[j] * (gradient - delta) * scale;
        for (int d = 0; d < D; ++d) {
          dq[(i * s.heads + head) * D + d] += gradient * k.wide(key_head, j, d);
          dk[(j * s.key_heads + key_head) * D + d] += gradient * q.wide(head, i, d);
        }
      }
    }
  }

  const int padded = (s.queries + 127) / 128 * 128;
  std::vector<float2> states(s.heads * padded, {NAN, NAN});
  constexpr int lanes = DV * sizeof(T) <= 128 ? 8 : 32;
  for (int head = 0; head < s.heads; ++head) {
    for (int block = 0; block < padded * lanes / 128; ++block) {
      emulated::run_block({block, head, 0}, {padded * lanes / 128, s.heads, 1}, 128, [&] {
        flash::query_states<T, DV, lanes>(out.from(head).rows, cotangent.from(head).rows,
                                          logsumexp.data() + head * s.queries, s.queries, padded,
                                          states.data() + head * padded);
      });
    }
  }

  const auto run = [&](auto of, int heads, int length, auto call) {
    const int blocks = (length + rows - 1) / rows;
    for (int head = 0; head < heads; ++head) {
      for (int block = 0; block < blocks; ++block) {
        std::memset(flash::shared, 0xff, sizeof flash::shared);  // NaN, in any type
        emulated::run_block({head, 0, block}, {heads, 1, blocks}, threads, [&] { call(of, head); });
      }
    }
  };
  std::vector<T> own_dq(dq.size(), number<T>(NAN)), own_dk(dk.size(), number<T>(NAN)), own_dv(dv.size(), number<T>(NAN));
  const auto mask_of = [&](int head) { return flash::Mask<M>{s.window, mask.get() + head * entries, s.keys, 1}; };
  run(std::integral_constant<int, flash::OF_QUERIES>(), s.heads, s.queries, [&](auto of, int head) {
    flash::gradient<T, D, DV, CONSUMERS, PASSING, KIND, M, of.value>(
        flash::Side<T>{q.from(head), cotangent.from(head)}, flash::Side<T>{k.from(head / group), v.from(head / group)},
        mask_of(head), flash::Heads{1, 0, 0}, float(scale), s.queries, s.keys, states.data() + head * padded,
        flash::ResultRows<T>{own_dq.data() + head * D, s.heads * D}, flash::ResultRows<T>{});
  });
  const auto by_keys = [&](auto of, int head) {
    flash::gradient<T, D, DV, CONSUMERS, PASSING, KIND, M, of.value>(
        flash::Side<T>{k.from(head), v.from(head)}, flash::Side<T>{q.from(head * group), cotangent.from(head * group)},
        mask_of(head * group), flash::Heads{group, entries, padded}, float(scale), s.queries, s.keys,
        states.data() + head * group * padded, flash::ResultRows<T>{own_dk.data() + head * D, s.key_heads * D},
        flash::ResultRows<T>{own_dv.data() + head * DV, s.key_heads * DV});
  };
  if constexpr (D + DV <= 256) {
    run(std::integral_constant<int, flash::OF_KEYS_AND_VALUES>(), s.key_heads, s.keys, by_keys);
  } else {
    run(std::integral_constant<int, flash::OF_KEYS>(), s.key_heads, s.keys, by_keys);
    run(std::integral_constant<int, flash::OF_VALUES>(), s.key_heads, s.keys, by_keys);
  }

  double worst = 0;
  const auto compare = [&](const std::vector<T>& own, const std::vector<double>& wanted) {
    for (size_t i = 0; i < own.size(); ++i) {
      const double difference = std::abs(flash::widen(own[i]) - wanted[i]) / (1 + std::abs(wanted[i]));
      worst = std::isnan(difference) ? INFINITY : std::max(worst, difference);
    }
  };
  compare(own_dq, dq), compare(own_dk, dk), compare(own_dv, dv);
  // The first query sees one key and has no gradient: what there is of it is float32's rounding.
  if (sizeof(T) == 4 && KIND == flash::CAUSAL && s.queries == s.keys && !s.sinks) {
    for (int i = 0; i < s.heads * D; ++i) worst = std::max(worst, 100.0 * std::abs(flash::widen(own_dq[i])));
  }
  return worst;
}

int cases = 0, failures = 0;
bool ends_at_first = false;

template <typename T, int D, int DV, int CONSUMERS, int PASSING, int KIND>
void check(const Sizes& sizes) {
#ifdef BY_WARPGROUPS
  const int rows = 64 * CONSUMERS, threads = 128 * (1 + CONSUMERS);
#else
  const int rows = 16 * CONSUMERS, threads = 32 * CONSUMERS;
#endif
  const double allowed = sizeof(T) == 4 || flash::is_half<T> ? 3e-3 : 2e-2;
  for (const emulated::Way way : {emulated::Way{false, false, false}, {true, true, true}}) {
    emulated::way = way;
    const double worst = error<T, D, DV, CONSUMERS, PASSING, KIND>(sizes, rows, threads);
    ++cases;
    if (worst <= allowed) continue;
    ++failures;
    std::printf("error %g: D %d, %d, consumers %d, passing %d, kind %d, %d/%d heads, %d x %d%s%s%s\n", worst, D, DV,
                CONSUMERS, PASSING, KIND, sizes.heads, sizes.key_heads, sizes.queries, sizes.keys,
                sizes.sinks ? ", sinks" : "", sizes.backwards ? ", rows backwards" : "", way.late_copies ? ", late" : "");
    if (ends_at_first) std::exit(1);
  }
}

}  // namespace

int main(int arguments, char**) {
  using namespace flash;
  ends_at_first = arguments > 1;
#ifdef BY_WARPGROUPS
  check<__half, 64, 64, 2, 64, CAUSAL>({2, 1, 130, 150, 0, true, false});
  check<__half, 64, 64, 2, 64, CAUSAL>({1, 1, 70, 63, 0, false, true});
  check<__half, 64, 64, 1, 64, WINDOW>({1, 1, 140, 200, 40, false, false});
#ifndef BRIEF
  check<__nv_bfloat16, 128, 128, 1, 64, CAUSAL>({1, 1, 70, 63, 0, false, true});
  check<__half, 72, 80, 1, 64, BOOLEAN>({2, 1, 66, 65, 0, false, false});
  check<__half, 192, 128, 1, 64, ADDITIVE>({1, 1, 40, 70, 0, true, false});
  check<__half, 256, 256, 2, 64, NONE>({1, 1, 65, 130, 0, false, false});
#endif
#else
  check<float, 64, 64, 4, 32, CAUSAL>({2, 1, 70, 100, 0, true, false});
  check<float, 64, 64, 4, 32, CAUSAL>({2, 1, 40, 40, 0, false, false});
  check<float, 64, 64, 4, 32, CAUSAL>({1, 1, 40, 40, 0, false, true});
  check<float, 32, 32, 2, 32, WINDOW>({1, 1, 70, 100, 20, false, false});
  check<float, 256, 256, 2, 16, NONE>({1, 1, 20, 35, 0, false, false});
  check<float, 64, 40, 2, 32, BOOLEAN>({2, 1, 40, 35, 0, false, true});
  check<__half, 72, 80, 4, 32, CAUSAL>({1, 1, 70, 33, 0, false, true});
  check<__half, 36, 36, 2, 64, NONE>({1, 1, 40, 70, 0, false, false});
  check<__nv_bfloat16, 128, 128, 2, 32, ADDITIVE>({2, 1, 35, 40, 0, true, false});
#endif
  std::printf("%d cases, %d failures\n", cases, failures);
  return failures > 0;
}
