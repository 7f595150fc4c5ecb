// MLX's own attention kernel, `steel_attention.h` of its wheel for Macs, by emulated threads against
// attention in double: what is right on a Mac has to be right here. KERNEL is that header.

#include <metal_stdlib>
using namespace metal;
#include KERNEL

#include <cstdio>
#include <random>

namespace {

enum Kind { PLAIN, CAUSAL, MASKED };

struct Sizes {
  int heads, key_heads, queries, keys;
};

template <class T>
std::vector<T> random_numbers(int seed, int count) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<T> numbers(count);
  for (T& x : numbers) x = T(normal(random));
  return numbers;
}

// The largest error of an output.
template <class T, int BQ, int BK, int D, int DV, class M>
double error(Sizes s, Kind kind, bool sinks, bool last_first) {
  const auto q = random_numbers<T>(1, s.heads * s.queries * D);
  const auto k = random_numbers<T>(2, s.key_heads * s.keys * D);
  const auto v = random_numbers<T>(3, s.key_heads * s.keys * DV);
  const auto sink = random_numbers<T>(4, s.heads);
  const auto added = random_numbers<float>(5, s.queries * s.keys);
  std::unique_ptr<M[]> mask(new M[s.queries * s.keys]);
  for (int i = 0; i < s.queries * s.keys; ++i) {
    if constexpr (std::is_same_v<M, bool>) {
      mask[i] = added[i] > -0.5f || i % s.keys == 0;
    } else {
      mask[i] = M(added[i]);
    }
  }
  std::vector<T> out(s.heads * s.queries * DV, T(NAN));
  std::vector<float> logsumexp(s.heads * s.queries, NAN);
  has_mask = kind == MASKED, do_causal = kind == CAUSAL, has_sinks = sinks, save_lse = true;
  align_Q = s.queries % BQ == 0, align_K = s.keys % BK == 0;
  const float scale = 1 / std::sqrt(float(D));
  const int group = s.heads / s.key_heads;
  const int query_blocks = (s.queries + BQ - 1) / BQ, key_blocks = (s.keys + BK - 1) / BK;
  const int64_t q_head = s.queries * D, k_head = s.keys * D, v_head = s.keys * DV,
                out_head = s.queries * DV;
  const AttnParams params{1, s.heads, D, s.queries, s.keys, group, scale,
                          query_blocks, key_blocks, s.queries / BQ, s.keys / BK,
                          s.queries % BQ, s.keys % BK, s.keys - s.queries,
                          {s.heads * q_head, q_head, D}, {s.key_heads * k_head, k_head, D},
                          {s.key_heads * v_head, v_head, DV}, {s.heads * out_head, out_head, DV}};
  const AttnMaskParams mask_params{{0, 0, s.keys}};
  for (int head = 0; head < s.heads; ++head) {
    for (int block = 0; block < query_blocks; ++block) {
      const int fault = emulated::run(128, last_first, [&](int i) {
        attention<T, BQ, BK, D, DV, 4, 1, M, float>(
            q.data(), k.data(), v.data(), out.data(), &params, &mask_params, mask.get(),
            sink.data(), logsumexp.data(), i % 32, i / 32, uint3(block, head, 0),
            uint3(i % 32, i / 32, 0));
      });
      if (fault) return INFINITY;
    }
  }

  double worst = 0;
  const auto product = [](const T* a, const T* b, int count) {
    double sum = 0;
    for (int i = 0; i < count; ++i) sum += double(float(a[i])) * double(float(b[i]));
    return sum;
  };
  for (int head = 0; head < s.heads; ++head) {
    for (int i = 0; i < s.queries; ++i) {
      std::vector<double> weights(s.keys);
      double sum = sinks ? std::exp(double(float(sink[head]))) : 0;
      for (int j = 0; j < s.keys; ++j) {
        const T* key = k.data() + (head / group * s.keys + j) * D;
        double score = scale * product(q.data() + (head * s.queries + i) * D, key, D);
        bool sees = kind != CAUSAL || j <= s.keys - s.queries + i;
        if (kind == MASKED) {
          if constexpr (std::is_same_v<M, bool>) {
            sees = mask[i * s.keys + j];
          } else {
            score += double(float(mask[i * s.keys + j]));
          }
        }
        sum += weights[j] = sees ? std::exp(score) : 0;
      }
      for (int d = 0; d < DV; ++d) {
        double wanted = 0;
        for (int j = 0; j < s.keys; ++j) {
          wanted += weights[j] / sum * double(float(v[(head / group * s.keys + j) * DV + d]));
        }
        const double off = std::fabs(double(float(out[(head * s.queries + i) * DV + d])) - wanted);
        worst = off <= worst ? worst : off;  // NaN, too, is the worst
      }
    }
  }
  return worst;
}

}  // namespace

int main() {
  int failures = 0;
  const auto check = [&](const char* name, double error, double most) {
    std::printf("%s: %.1e\n", name, error);
    failures += !(error <= most);
  };
  for (bool last_first : {false, true}) {
    check("float32, causal, 2 heads per key head",
          error<float, 32, 32, 64, 64, float>({2, 1, 70, 70}, CAUSAL, false, last_first), 1e-5);
    check("float32, bool mask",
          error<float, 32, 32, 64, 64, bool>({1, 1, 40, 95}, MASKED, false, last_first), 1e-5);
    check("float16, causal, sinks, more keys",
          error<half, 32, 16, 128, 128, half>({2, 1, 64, 100}, CAUSAL, true, last_first), 2e-3);
    check("bfloat16, additive mask, values of another head dim",
          error<bfloat, 32, 32, 96, 64, bfloat>({1, 1, 33, 65}, MASKED, false, last_first), 2e-2);
  }
  std::printf("%d failures\n", failures);
  return failures != 0;
}
