// Holds the kernel against the float64 definition: `check` runs every case, `check WORDS...` those whose names have any
// of the words in them.
#include <atomic>
#include <cstdio>
#include <thread>

#include "cases.h"
#include "reference.h"

using namespace flash;

namespace {

int failures = 0;

double largest(const std::vector<double>& x) {
  double most = 0;
  for (const double value : x) most = std::max(most, std::isfinite(value) ? std::abs(value) : 0);
  return most;
}

// The largest error against `wanted` may be that of the definition in float32, a few times over, and the rounding to
// the output's own type.
void compare(const std::string& name, const char* what, const void* got, Type type, const std::vector<double>& wanted,
             const std::vector<float>& in_float32, double rounding) {
  double error = 0, budget = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const double x = read(got, type, static_cast<int64_t>(i));
    if (std::isnan(wanted[i]) && std::isnan(x)) continue;
    error = std::max(error, std::isfinite(x) ? std::abs(x - wanted[i]) : HUGE_VAL);
    budget = std::max(budget, std::abs(in_float32[i] - wanted[i]));
  }
  const double allowed = 4 * budget + rounding * largest(wanted) + 1e-6;
  if (error <= allowed) return;
  ++failures;
  std::printf("%s: %s is off by %.3g, allowed %.3g\n", name.c_str(), what, error, allowed);
}

void check(const Case& c, const std::vector<Pool*>& pools) {
  const Problem p(c);
  const auto r = reference<double>(p);
  const auto low = reference<float>(p);
  const double unit = c.type == Type::float32 ? 0x1p-24 : c.type == Type::float16 ? 0x1p-11 : 0x1p-8;
  for (Pool* pool : pools) {
    const std::string name = c.name + ", threads " + std::to_string(pool->threads());
    std::vector<char> out(r.out.size() * bytes_of(c.type));
    std::vector<float> row_max(r.row_max.size()), row_sum(r.row_sum.size());
    const Sums sums{row_max.data(), row_sum.data()};
    forward(p.call, out.data(), sums, *pool);
    compare(name, "out", out.data(), c.type, r.out, low.out, unit);
    compare(name, "row_max", row_max.data(), Type::float32, r.row_max, low.row_max, 0x1p-24);
    compare(name, "row_sum", row_sum.data(), Type::float32, r.row_sum, low.row_sum, 0x1p-24);
    std::vector<char> unasked(out.size());
    forward(p.call, unasked.data(), {}, *pool);
    compare(name, "out without sums", unasked.data(), c.type, r.out, low.out, unit);

    std::vector<char> dq(r.dq.size() * bytes_of(c.type)), dk(r.dk.size() * bytes_of(c.type)),
        dv(r.dv.size() * bytes_of(c.type));
    std::vector<float> dsinks(r.dsinks.size());
    backward(p.call, out.data(), p.cotangent.rows, sums,
             {dq.data(), dk.data(), dv.data(), c.sinks ? dsinks.data() : nullptr}, *pool);
    compare(name, "dq", dq.data(), c.type, r.dq, low.dq, unit);
    compare(name, "dk", dk.data(), c.type, r.dk, low.dk, unit);
    compare(name, "dv", dv.data(), c.type, r.dv, low.dv, unit);
    if (c.sinks) compare(name, "dsinks", dsinks.data(), Type::float32, r.dsinks, low.dsinks, 0x1p-24);
  }
}

// The gradients of the definition are those of its output, by differences.
void check_reference() {
  Case c{.name = "definition", .shape = {1, 2, 1, 4, 5, 3, 2}, .softcap = 1.5f, .sinks = true, .causal = true};
  Problem p(c);
  const auto r = reference<double>(p);
  const auto dout = p.cotangent.values<double>();
  const auto loss = [&] {
    const auto out = reference<double>(p).out;
    return dot(out.data(), dout.data(), static_cast<int>(out.size()));
  };
  const auto against = [&](const char* what, float* x, const std::vector<double>& gradient) {
    for (size_t i = 0; i < gradient.size(); ++i) {
      const float middle = x[i], step = 0x1p-8f;
      x[i] = middle + step;
      const double above = loss(), over = x[i];
      x[i] = middle - step;
      const double slope = (above - loss()) / (over - x[i]);
      x[i] = middle;
      if (std::abs(slope - gradient[i]) <= 1e-4) continue;
      ++failures;
      std::printf("definition: %s[%zu] is %.6g, by differences %.6g\n", what, i, gradient[i], slope);
    }
  };
  against("dq", reinterpret_cast<float*>(p.q.bytes.data()), r.dq);
  against("dk", reinterpret_cast<float*>(p.k.bytes.data()), r.dk);
  against("dv", reinterpret_cast<float*>(p.v.bytes.data()), r.dv);
  against("dsinks", p.sinks.data(), r.dsinks);
}

// Calls from several threads at once, on one pool, leave what a single one leaves.
void check_callers() {
  const Problem p({.name = "callers", .shape = {1, 4, 2, 70, 90, 32, 32}});
  const auto run = [&](Pool& pool) {
    std::vector<float> out(p.outputs());
    forward(p.call, out.data(), {}, pool);
    return out;
  };
  Pool one(1), three(3);
  const auto wanted = run(one);
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  for (int i = 0; i < 3; ++i) {
    callers.emplace_back([&] {
      for (int j = 0; j < 20; ++j) wrong += run(three) != wanted;
    });
  }
  for (auto& caller : callers) caller.join();
  if (wrong == 0) return;
  ++failures;
  std::printf("callers: %d outputs differ\n", wrong.load());
}

}  // namespace

int main(int argc, char** argv) {
  check_reference();
  check_callers();
  int checked = 0;
  Pool one(1), three(3);
  for (const Case& c : cases()) {
    bool named = argc == 1;
    for (int i = 1; i < argc; ++i) named |= c.name.find(argv[i]) != std::string::npos;
    if (!named) continue;
    check(c, {&one, &three});
    ++checked;
  }
  std::printf("%d cases, %d failures\n", checked, failures);
  return failures != 0 || checked == 0;
}
