#include "operations.h"

#include <limits>

#include "mlx/ops.h"

namespace flash {

namespace {

// What a masked score becomes, as in MLX: a query that sees no key gets the mean of all values.
const float kHidden = std::numeric_limits<float>::lowest();

mx::array seen_keys(const Structure& structure, int query_length, int key_length, mx::Stream stream) {
  std::vector<int32_t> numbers = bounds(structure, query_length, key_length);
  mx::array first(numbers.begin(), {query_length, 1}, mx::int32);
  mx::array last(numbers.begin() + query_length, {query_length, 1}, mx::int32);
  mx::array key = mx::arange(key_length, stream);
  return mx::logical_and(mx::greater_equal(key, first, stream), mx::less_equal(key, last, stream), stream);
}

}  // namespace

std::vector<mx::array> attend_in_operations(const std::vector<mx::array>& inputs, const Options& options,
                                            mx::Stream stream) {
  const mx::array &q = inputs[0], &k = inputs[1], &v = inputs[2];
  const int key_heads = k.shape(1), groups = q.shape(1) / key_heads;
  const int query_length = q.shape(2), key_length = k.shape(2);
  auto in_groups = [&](const mx::array& x, int axis) { return mx::unflatten(x, axis, {key_heads, groups}, stream); };
  auto wide = [&](const mx::array& x) { return mx::astype(x, mx::float32, stream); };

  // q, scores: [B, H_kv, G, L, ...]; k, v: [B, H_kv, 1, S, ...]
  mx::array queries = in_groups(mx::multiply(wide(q), mx::array(options.scale), stream), 1);
  mx::array keys = mx::swapaxes(mx::expand_dims(wide(k), 2, stream), -1, -2, stream);
  mx::array scores = mx::matmul(queries, keys, stream);
  if (options.softcap != 0) {
    mx::array cap(options.softcap);
    scores = mx::multiply(cap, mx::tanh(mx::divide(scores, cap, stream), stream), stream);
  }
  mx::array hidden(kHidden);
  if (options.structure) {
    scores = mx::where(seen_keys(*options.structure, query_length, key_length, stream), scores, hidden, stream);
  }
  if (options.mask) {
    mx::array mask = inputs[3].shape(1) == 1 ? mx::expand_dims(inputs[3], 2, stream) : in_groups(inputs[3], 1);
    scores = mask.dtype() == mx::bool_ ? mx::where(mask, scores, hidden, stream) : mx::add(scores, wide(mask), stream);
  }
  mx::array row_max = mx::max(scores, -1, true, stream);
  std::optional<mx::array> sinks;
  if (options.sinks) {
    sinks = mx::reshape(inputs[options.mask ? 4 : 3], {1, key_heads, groups, 1, 1}, stream);
    row_max = mx::maximum(row_max, *sinks, stream);
  }
  // It cancels from the output, so its derivative may be left out.
  row_max = mx::stop_gradient(row_max, stream);
  mx::array weights = mx::exp(mx::subtract(scores, row_max, stream), stream);
  mx::array row_sum = mx::sum(weights, -1, true, stream);
  if (sinks) {
    row_sum = mx::add(row_sum, mx::exp(mx::subtract(*sinks, row_max, stream), stream), stream);
  }
  mx::array out = mx::matmul(mx::divide(weights, row_sum, stream), mx::expand_dims(wide(v), 2, stream), stream);
  auto per_query = [&](const mx::array& x) { return mx::flatten(mx::squeeze(x, -1, stream), 1, 2, stream); };
  return {mx::astype(mx::flatten(out, 1, 2, stream), q.dtype(), stream), per_query(row_max), per_query(row_sum)};
}

}  // namespace flash
