#include "primitive.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <stdexcept>
#include <string>

#include "mlx/ops.h"
#include "mlx/transforms.h"
#include "mlx/utils.h"
#include "operations.h"

namespace flash {

namespace {

using Arrays = std::vector<mx::array>;
using Function = std::function<Arrays(const Arrays&)>;

// Whether an array can be read by the kernel, and its output written.
bool is_known(mx::Dtype dtype) { return dtype == mx::float32 || dtype == mx::float16 || dtype == mx::bfloat16; }

void require(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(std::string("[FlashAttention] ") + what);
}

// Throws unless the inputs of an attention fit each other. A function that is compiled for any shape comes here with
// shapes that nobody else has looked at.
void check_shapes(const Arrays& inputs, const Options& options) {
  const mx::array &q = inputs[0], &k = inputs[1], &v = inputs[2];
  require(q.ndim() == 4 && k.ndim() == 4 && v.ndim() == 4, "q, k and v must have 4 axes");
  require(k.shape(0) == q.shape(0) && k.shape(3) == q.shape(3), "q and k must have one batch and one head dim");
  require(k.shape(1) > 0 && q.shape(1) % k.shape(1) == 0, "the heads of q must be a multiple of those of k");
  for (int axis = 0; axis < 3; ++axis) {
    require(v.shape(axis) == k.shape(axis), "k and v must have one batch, as many heads and one length");
  }
  if (options.mask) {
    const mx::Shape scores = {q.shape(0), q.shape(1), q.shape(2), k.shape(2)};
    for (int axis = 0; axis < 4; ++axis) {
      const int size = inputs[3].shape(axis);
      require(size == 1 || size == scores[axis], "the mask must broadcast to [batch, query heads, queries, keys]");
    }
  }
  if (options.sinks) {
    const mx::array& sinks = inputs[options.mask ? 4 : 3];
    require(sinks.ndim() == 1 && sinks.shape(0) == q.shape(1), "there must be one sink for each head of q");
  }
}

// `function` as one of the inputs at `argnums` alone.
Function of_some(Function function, const Arrays& inputs, const std::vector<int>& argnums) {
  return [function = std::move(function), inputs, argnums](const Arrays& some) {
    Arrays all = inputs;
    for (size_t i = 0; i < argnums.size(); ++i) all[argnums[i]] = some[i];
    return function(all);
  };
}

Arrays chosen(const Arrays& inputs, const std::vector<int>& argnums) {
  Arrays some;
  for (int argnum : argnums) some.push_back(inputs[argnum]);
  return some;
}

template <typename Primitive>
Arrays outputs_of(const Arrays& inputs, const std::vector<mx::Dtype>& dtypes, const Options& options, mx::Stream stream) {
  auto primitive = std::make_shared<Primitive>(stream, options);
  return mx::array::make_arrays(primitive->output_shapes(inputs), dtypes, primitive, inputs);
}

Arrays attend(const Arrays& inputs, const Options& options, mx::Stream stream) {
  return outputs_of<Attention>(inputs, {inputs[0].dtype(), mx::float32, mx::float32}, options, stream);
}

Arrays differentiate(const Arrays& inputs, const Options& options, mx::Stream stream) {
  std::vector<mx::Dtype> dtypes(3, inputs[0].dtype());
  if (options.sinks) dtypes.push_back(mx::float32);
  return outputs_of<AttentionGradient>(inputs, dtypes, options, stream);
}

}  // namespace

std::vector<int32_t> bounds(const Structure& structure, int query_length, int key_length) {
  std::vector<int32_t> numbers(2 * static_cast<size_t>(query_length));
  for (int row = 0; row < query_length; ++row) {
    const int position = row + key_length - query_length;
    int start = 0;
    if (!structure.starts.empty()) {
      auto after = std::upper_bound(structure.starts.begin(), structure.starts.end(), position);
      if (after != structure.starts.begin()) start = *(after - 1);
    }
    const int64_t in_window = static_cast<int64_t>(position) - structure.window + 1;
    numbers[row] = static_cast<int32_t>(std::max<int64_t>(start, in_window));
    numbers[query_length + row] = std::min(std::max(position, structure.prefix - 1), key_length - 1);
  }
  return numbers;
}

void AttentionPrimitive::eval_gpu(const Arrays&, Arrays&) {
  throw std::runtime_error("[FlashAttention] this kernel runs on the CPU alone");
}

Arrays AttentionPrimitive::jvp(const Arrays& primals, const Arrays& tangents, const std::vector<int>& argnums) {
  auto function = of_some([this](const Arrays& inputs) { return in_operations(inputs); }, primals, argnums);
  return mx::jvp(function, chosen(primals, argnums), tangents).second;
}

Arrays AttentionPrimitive::vjp(const Arrays& primals, const Arrays& cotangents, const std::vector<int>& argnums,
                               const Arrays&) {
  auto function = of_some([this](const Arrays& inputs) { return in_operations(inputs); }, primals, argnums);
  return mx::vjp(function, chosen(primals, argnums), cotangents).second;
}

std::pair<Arrays, std::vector<int>> AttentionPrimitive::vmap(const Arrays& inputs, const std::vector<int>& axes) {
  Arrays outputs;
  if (folds(axes)) {
    size_t any = std::find_if(axes.begin(), axes.end(), [](int axis) { return axis >= 0; }) - axes.begin();
    const int copies = inputs[any].shape(axes[any]);
    const int batch = inputs[0].shape(axes[0] == 0 ? 1 : 0);
    Arrays folded;
    for (size_t i = 0; i < inputs.size(); ++i) {
      mx::array x = axes[i] < 0 ? mx::expand_dims(inputs[i], 0, stream()) : mx::moveaxis(inputs[i], axes[i], 0, stream());
      const bool is_mask = options_.mask && i == 3, is_sinks = options_.sinks && i == sinks_at();
      if (is_sinks || (is_mask && axes[i] < 0 && inputs[i].shape(0) == 1)) {
        folded.push_back(inputs[i]);
        continue;
      }
      mx::Shape full = x.shape();
      full[0] = copies;
      full[1] = batch;
      folded.push_back(mx::flatten(mx::broadcast_to(x, full, stream()), 0, 1, stream()));
    }
    for (const mx::array& out : again(folded)) outputs.push_back(mx::unflatten(out, 0, {copies, batch}, stream()));
  } else {
    std::vector<int> to_front(output_count(), 0);
    outputs = mx::vmap([this](const Arrays& inputs) { return in_operations(inputs); }, axes, to_front)(inputs);
  }
  return {outputs, std::vector<int>(outputs.size(), 0)};
}

Arrays Attention::vjp(const Arrays& primals, const Arrays& cotangents, const std::vector<int>& argnums,
                      const Arrays& outputs) {
  Arrays inputs = primals;
  inputs.insert(inputs.end(), outputs.begin(), outputs.end());
  inputs.push_back(cotangents[0]);
  Arrays computed = differentiate(inputs, options_, stream());
  Arrays gradients;
  for (int argnum : argnums) {
    if (options_.mask && argnum == 3) {
      // Rarely asked for, and as large as the scores: in operations.
      const bool additive = primals[3].dtype() != mx::bool_;
      gradients.push_back(additive ? AttentionPrimitive::vjp(primals, cotangents, {3}, outputs)[0]
                                   : mx::zeros_like(primals[3], stream()));
    } else {
      gradients.push_back(computed[argnum < 3 ? argnum : 3]);
    }
  }
  return gradients;
}

Arrays Attention::in_operations(const Arrays& inputs) { return attend_in_operations(inputs, options_, stream()); }

Arrays Attention::again(const Arrays& inputs) { return attend(inputs, options_, stream()); }

// Sinks are the same for the whole batch.
bool Attention::folds(const std::vector<int>& axes) const { return !options_.sinks || axes[sinks_at()] < 0; }

std::vector<mx::Shape> Attention::output_shapes(const Arrays& inputs) {
  check_shapes(inputs, options_);
  const mx::array &q = inputs[0], &v = inputs[2];
  mx::Shape rows = {q.shape(0), q.shape(1), q.shape(2)};
  return {{q.shape(0), q.shape(1), q.shape(2), v.shape(3)}, rows, rows};
}

bool Attention::is_equivalent(const mx::Primitive& other) const {
  return options_ == static_cast<const Attention&>(other).options_;
}

Arrays AttentionGradient::in_operations(const Arrays& inputs) {
  std::vector<int> argnums = {0, 1, 2};
  if (options_.sinks) argnums.push_back(static_cast<int>(sinks_at()));
  Arrays primals(inputs.begin(), inputs.begin() + own_inputs());
  Function forward = [this](const Arrays& inputs) {
    return Arrays{attend_in_operations(inputs, options_, stream())[0]};
  };
  return mx::vjp(of_some(forward, primals, argnums), chosen(primals, argnums), {inputs.back()}).second;
}

Arrays AttentionGradient::again(const Arrays& inputs) { return differentiate(inputs, options_, stream()); }

// The gradient of the sinks is a sum over the batch.
bool AttentionGradient::folds(const std::vector<int>&) const { return !options_.sinks; }

std::vector<mx::Shape> AttentionGradient::output_shapes(const Arrays& inputs) {
  check_shapes(inputs, options_);
  std::vector<mx::Shape> shapes = {inputs[0].shape(), inputs[1].shape(), inputs[2].shape()};
  if (options_.sinks) shapes.push_back(inputs[sinks_at()].shape());
  return shapes;
}

bool AttentionGradient::is_equivalent(const mx::Primitive& other) const {
  return options_ == static_cast<const AttentionGradient&>(other).options_;
}

mx::array attention(mx::array q, mx::array k, mx::array v, float scale, std::optional<float> softcap,
                    std::optional<mx::array> mask, std::optional<mx::array> sinks, std::optional<Structure> structure) {
  const mx::Stream stream = mx::to_stream({});
  const mx::Dtype dtype = mx::promote_types(mx::promote_types(q.dtype(), k.dtype()), v.dtype());
  require(is_known(q.dtype()) && is_known(dtype), "q, k and v must be of type float32, float16 or bfloat16");
  Arrays inputs = {mx::astype(q, dtype, stream), mx::astype(k, dtype, stream), mx::astype(v, dtype, stream)};
  if (mask) {
    std::vector<int> missing(4 - mask->ndim());
    std::iota(missing.begin(), missing.end(), 0);
    mx::array with_four_axes = mx::expand_dims(*mask, missing, stream);  // not reshape, which compiles for one shape
    inputs.push_back(mask->dtype() == mx::bool_ ? with_four_axes : mx::astype(with_four_axes, dtype, stream));
  }
  if (sinks) inputs.push_back(mx::astype(*sinks, mx::float32, stream));
  Options options{scale, softcap.value_or(0), mask.has_value(), sinks.has_value(), std::move(structure)};
  return attend(inputs, options, stream)[0];
}

}  // namespace flash
