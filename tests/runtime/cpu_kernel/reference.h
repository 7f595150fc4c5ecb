// The definition of attention and its gradients, in float64. In float32, with the output rounded to its type before the
// gradients, it shows what error the number types cost.
#pragma once

#include "problem.h"

namespace flash {

template <class Number>
struct Reference {
  std::vector<Number> out, row_max, row_sum;  // row_sum is that of exp(score - row_max)
  std::vector<Number> dq, dk, dv, dsinks;
};

// The score after softcap and masks of query i and key j; `slope` is its derivative.
template <class Number>
Number mask_score(const Call& call, int b, int h, int i, int j, Number score, Number* slope) {
  *slope = 1;
  if (call.softcap != 0) {
    const Number ratio = std::tanh(score / call.softcap);
    score = call.softcap * ratio;
    *slope = 1 - ratio * ratio;
  }
  const Mask& mask = call.mask;
  const int64_t at = b * mask.batch + h * mask.head + i * mask.row + j * mask.column;
  if (mask.kind == Mask::Kind::boolean && !static_cast<const bool*>(mask.data)[at]) return masked;
  if (mask.kind == Mask::Kind::additive) score = static_cast<float>(score + read(mask.data, mask.type, at));
  return call.first != nullptr && (j < call.first[i] || j > call.last[i]) ? masked : score;
}

template <class Number>
Number dot(const Number* x, const Number* y, int count) {
  Number total = 0;
  for (int i = 0; i < count; ++i) total += x[i] * y[i];
  return total;
}

template <class Number>
void add(Number* to, Number factor, const Number* x, int count) {
  for (int i = 0; i < count; ++i) to[i] += factor * x[i];
}

template <class Number>
Reference<Number> reference(const Problem& p) {
  const Shape& s = p.call.shape;
  const int D = s.head_dim, V = s.value_head_dim, S = s.key_length, group = s.query_heads / s.key_heads;
  auto q = p.q.values<Number>();
  const auto k = p.k.values<Number>(), v = p.v.values<Number>(), dout = p.cotangent.values<Number>();
  for (Number& x : q) x *= p.call.scale;
  Reference<Number> r;
  r.out.assign(dout.size(), 0);
  r.dq.assign(q.size(), 0);
  r.dk.assign(k.size(), 0);
  r.dv.assign(v.size(), 0);
  r.dsinks.assign(s.query_heads, 0);
  std::vector<Number> w(S), slope(S);
  for (int row = 0; row < s.batch * s.query_heads * s.query_length; ++row) {
    const int i = row % s.query_length, head = row / s.query_length;
    const int h = head % s.query_heads, b = head / s.query_heads;
    const int64_t key = static_cast<int64_t>(head / group) * S;
    Number top = p.call.sinks ? p.call.sinks[h] : masked;
    for (int j = 0; j < S; ++j) {
      w[j] = mask_score(p.call, b, h, i, j, dot(&q[row * D], &k[(key + j) * D], D), &slope[j]);
      top = std::max(top, w[j]);
    }
    const Number sink = p.call.sinks ? std::exp(p.call.sinks[h] - top) : 0;
    Number total = sink;
    for (int j = 0; j < S; ++j) total += w[j] = std::exp(w[j] - top);
    r.row_max.push_back(top);
    r.row_sum.push_back(total);
    for (int j = 0; j < S; ++j) w[j] /= total;

    Number* out = &r.out[row * V];
    const Number* d = &dout[row * V];
    for (int j = 0; j < S; ++j) {
      add(out, w[j], &v[(key + j) * V], V);
      add(&r.dv[(key + j) * V], w[j], d, V);
    }
    std::vector<Number> kept(out, out + V);
    if constexpr (std::is_same_v<Number, float>) {
      for (float& x : kept) x = rounded(x, p.call.type);
    }
    const Number shift = -dot(d, kept.data(), V);
    r.dsinks[h] += sink / total * shift;
    if (!(top > masked)) continue;  // its scores are constants
    for (int j = 0; j < S; ++j) {
      const Number dscore = w[j] * (dot(d, &v[(key + j) * V], V) + shift) * slope[j];
      add(&r.dq[row * D], dscore * p.call.scale, &k[(key + j) * D], D);
      add(&r.dk[(key + j) * D], dscore, &q[row * D], D);
    }
  }
  return r;
}

}  // namespace flash
