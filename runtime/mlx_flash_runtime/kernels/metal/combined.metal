// The results of all parts of the keys, put together: one thread for each number of the output.

namespace flash {

using namespace metal;

constant constexpr float LOG2E = 1.44269504f;

// One number of the output: `out` is that of the first part, the others follow `stride` apart. Of
// each part `sums` has the largest score of this query, in units of log(2), and the sum of the
// weights. A sink takes its share of the weights; minus infinity is none.
template <typename Sums>
inline float combined(const device float* out, int stride, Sums sums, int parts, float sink) {
  float largest = sink * LOG2E;
  for (int part = 0; part < parts; ++part) largest = max(largest, sums[2 * part]);
  float total = fast::exp2(sink * LOG2E - largest), weighted = 0;
  for (int part = 0; part < parts; ++part) {
    const float weight = fast::exp2(sums[2 * part] - largest);
    total += weight * sums[2 * part + 1];
    weighted += weight * out[part * stride];
  }
  return weighted / total;
}

}  // namespace flash
