// Holds the vector operations to the scalar ones: conversions of every 16-bit number and of many floats, exp, tanh,
// transposition.
#include <cstdio>

#include "few_queries.h"
#include "problem.h"

using namespace flash;

namespace {

int failures = 0;

void hold(bool so, const char* what, double x) {
  if (so) return;
  if (++failures < 20) std::printf("not so: %s at %.9g\n", what, x);
}

// Every 16-bit number as a float; then each float at and beside the middle of two neighbours, rounded to the nearest,
// to the even one of two.
template <class T>
void check_type(Type type, uint32_t infinity) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto low = static_cast<uint16_t>(bits);
    const double wanted = read(&low, type, 0);
    const float got = widen(ShortVec{} + low, T{})[0];
    hold(std::isnan(wanted) ? std::isnan(got) : got == wanted, "a 16-bit number is the same as a float", wanted);
    const uint16_t back = narrow(broadcast(got), T{})[0];
    hold(std::isnan(wanted) ? std::isnan(read(&back, type, 0)) : back == low, "and back", wanted);
    if ((bits & 0x7fff) >= infinity) continue;
    const auto high = static_cast<uint16_t>(bits + 1), before = static_cast<uint16_t>(bits - 1);
    // Infinity takes the place of the next number.
    const bool last = (high & 0x7fff) == infinity;
    const double next = last ? 2 * wanted - read(&before, type, 0) : read(&high, type, 0);
    const auto middle = static_cast<float>((wanted + next) / 2);
    const float below = std::nextafter(middle, 0.0f);
    const float above = std::nextafter(middle, bits & 0x8000 ? -HUGE_VALF : HUGE_VALF);
    hold(narrow(broadcast(middle), T{})[0] == (bits & 1 ? high : low), "the middle goes to the even one", middle);
    if (middle != 0) hold(narrow(broadcast(below), T{})[0] == low, "below the middle goes down", below);
    hold(narrow(broadcast(above), T{})[0] == high, "above the middle goes up", above);
  }
  for (const float x : {HUGE_VALF, -HUGE_VALF, 3e38f, -3e38f, 1e-44f, -1e-44f, 0.0f, -0.0f}) {
    const uint16_t bits = narrow(broadcast(x), T{})[0];
    hold(std::signbit(read(&bits, type, 0)) == std::signbit(x), "the sign stays", x);
  }
}

double units_off(float got, double wanted) {
  const float near = static_cast<float>(wanted);
  return std::abs(got - wanted) / (std::nextafter(std::abs(near), HUGE_VALF) - std::abs(near));
}

void check_functions() {
  double worst_exp = 0, worst_tanh = 0;
  for (float x = -87.3f; x < 88.3f; x += 0.00137f) {
    worst_exp = std::max(worst_exp, units_off(exp(broadcast(x))[0], std::exp(double(x))));
  }
  for (float x = 1e-6f; x < 20; x *= 1.0003f) {
    worst_tanh = std::max(worst_tanh, units_off(tanh(broadcast(x))[0], std::tanh(double(x))));
    hold(tanh(broadcast(-x))[0] == -tanh(broadcast(x))[0], "tanh is odd", x);
  }
  hold(worst_exp <= 1.5, "exp is right to 1.5 units", worst_exp);
  hold(worst_tanh <= 4, "tanh is right to 4 units", worst_tanh);
  hold(exp(broadcast(0))[0] == 1, "exp(0) is 1", 0);
  for (const float x : {-HUGE_VALF, masked, -1e30f, -88.0f}) hold(exp(broadcast(x))[0] == 0, "exp is 0", x);
  for (const float x : {HUGE_VALF, 1e30f, 89.0f}) hold(exp(broadcast(x))[0] == HUGE_VALF, "exp is infinite", x);
  for (const float x : {30.0f, 1e30f, HUGE_VALF}) hold(tanh(broadcast(x))[0] == 1, "tanh is 1", x);
  hold(std::isnan(exp(broadcast(NAN))[0]) && std::isnan(tanh(broadcast(NAN))[0]), "NaN stays", NAN);
  hold(std::isnan(larger(broadcast(1), broadcast(NAN))[0]) && larger(broadcast(NAN), broadcast(1))[0] == 1,
       "NaN in the first operand is passed over", NAN);
}

void check_moves() {
  Vec rows[lanes], sums[lanes];
  for (int i = 0; i < lanes; ++i) {
    for (int j = 0; j < lanes; ++j) sums[i][j] = rows[i][j] = static_cast<float>(i * lanes + j);
  }
  const Vec totals = sum_each(sums);
  for (int i = 0; i < lanes; ++i) hold(totals[i] == sum(rows[i]), "sum_each has the sum of each vector", i);
  transpose(rows);
  for (int i = 0; i < lanes; ++i) {
    for (int j = 0; j < lanes; ++j) hold(rows[i][j] == static_cast<float>(j * lanes + i), "rows are columns", i);
  }
}

}  // namespace

int main() {
  check_type<Float16>(Type::float16, 0x7c00);
  check_type<BFloat16>(Type::bfloat16, 0x7f80);
  check_functions();
  check_moves();
  std::printf("numbers: %d failures\n", failures);
  return failures != 0;
}
