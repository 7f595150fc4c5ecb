// From MLX's arrays to the plain data of attention.h, and onto the stream.
#include <algorithm>
#include <stdexcept>
#include <thread>

#include "attention.h"
#include "mlx/allocator.h"
#include "mlx/backend/cpu/encoder.h"
#include "primitive.h"

namespace flash {

namespace {

// Never destroyed: MLX's own threads may outlive static objects.
Pool& pool() {
  static Pool& threads = *new Pool(static_cast<int>(std::max(1u, std::thread::hardware_concurrency())));
  return threads;
}

Type type_of(const mx::array& x) {
  switch (x.dtype()) {
    case mx::float32:
      return Type::float32;
    case mx::float16:
      return Type::float16;
    case mx::bfloat16:
      return Type::bfloat16;
    default:
      throw std::invalid_argument("[FlashAttention] neither float32, float16 nor bfloat16");
  }
}

void allocate(mx::array& x) { x.set_data(mx::allocator::malloc(x.nbytes())); }

// 0 along an axis of size 1, whose stride says nothing.
int64_t stride(const mx::array& x, int axis) { return x.shape(axis) == 1 ? 0 : x.strides(axis); }

// The elements of `x` one after the other.
template <typename Item>
void pack(const mx::array& x, Item* to) {
  const Item* items = x.data<Item>();
  std::vector<int> at(x.ndim(), 0);
  int64_t offset = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    *to++ = items[offset];
    for (int axis = static_cast<int>(x.ndim()) - 1; axis >= 0; --axis) {
      offset += x.strides(axis);
      if (++at[axis] < x.shape(axis)) break;
      offset -= x.strides(axis) * x.shape(axis);
      at[axis] = 0;
    }
  }
}

mx::array packed(const mx::array& x, mx::cpu::CommandEncoder& encoder) {
  mx::array copy(x.shape(), x.dtype(), nullptr, {});
  allocate(copy);
  encoder.add_temporary(copy);
  encoder.dispatch([from = mx::array::unsafe_weak_copy(x), to = copy.data<void>()] {
    from.itemsize() == 4 ? pack(from, static_cast<uint32_t*>(to)) : pack(from, static_cast<uint16_t*>(to));
  });
  return copy;
}

// Without gaps: as it is, or a copy made on the stream.
const void* data_of(const mx::array& x, mx::cpu::CommandEncoder& encoder) {
  return (x.flags().row_contiguous ? x : packed(x, encoder)).data<void>();
}

// As rows whose elements lie side by side: as it is, or a copy made on the stream.
Rows rows_of(const mx::array& x, mx::cpu::CommandEncoder& encoder) {
  const mx::array rows = x.shape(3) == 1 || x.strides(3) == 1 ? x : packed(x, encoder);
  return {rows.data<void>(), stride(rows, 0), stride(rows, 1), stride(rows, 2)};
}

// A call with what it points to, but for the arrays, which the stream keeps.
struct Task {
  Call call;
  std::vector<int32_t> bounds;

  const Call& ready() {
    if (!bounds.empty()) {
      call.first = bounds.data();
      call.last = bounds.data() + call.shape.query_length;
    }
    return call;
  }
};

Task task_of(const std::vector<mx::array>& inputs, const Options& options, mx::cpu::CommandEncoder& encoder) {
  const mx::array &q = inputs[0], &k = inputs[1], &v = inputs[2];
  Call call{
      .shape = {q.shape(0), q.shape(1), k.shape(1), q.shape(2), k.shape(2), q.shape(3), v.shape(3)},
      .type = type_of(q),
      .scale = options.scale,
      .softcap = options.softcap,
      .q = rows_of(q, encoder),
      .k = rows_of(k, encoder),
      .v = rows_of(v, encoder),
  };
  if (options.mask) {
    const mx::array& mask = inputs[3];
    const bool boolean = mask.dtype() == mx::bool_;
    call.mask = {boolean ? Mask::Kind::boolean : Mask::Kind::additive, boolean ? Type::float32 : type_of(mask),
                 mask.data<void>(), stride(mask, 0), stride(mask, 1), stride(mask, 2), stride(mask, 3)};
  }
  if (options.sinks) call.sinks = static_cast<const float*>(data_of(inputs[options.mask ? 4 : 3], encoder));
  Task task{call, {}};
  if (options.structure) task.bounds = bounds(*options.structure, q.shape(2), k.shape(2));
  return task;
}

}  // namespace

void Attention::eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) {
  for (mx::array& x : outputs) allocate(x);
  auto& encoder = mx::cpu::get_command_encoder(stream());
  Sums sums{outputs[1].data<float>(), outputs[2].data<float>()};
  encoder.dispatch([task = task_of(inputs, options_, encoder), out = outputs[0].data<void>(), sums]() mutable {
    forward(task.ready(), out, sums, pool());
  });
}

void AttentionGradient::eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) {
  for (mx::array& x : outputs) allocate(x);
  auto& encoder = mx::cpu::get_command_encoder(stream());
  const size_t after = own_inputs();
  const void* out = data_of(inputs[after], encoder);
  auto sums_at = [&](size_t at) {  // read only, but Sums serves both ways
    return const_cast<float*>(static_cast<const float*>(data_of(inputs[at], encoder)));
  };
  Sums sums{sums_at(after + 1), sums_at(after + 2)};
  Rows cotangent = rows_of(inputs[after + 3], encoder);
  Gradients gradients{outputs[0].data<void>(), outputs[1].data<void>(), outputs[2].data<void>()};
  if (options_.sinks) gradients.sinks = outputs[3].data<float>();
  encoder.dispatch([task = task_of(inputs, options_, encoder), out, cotangent, sums, gradients]() mutable {
    backward(task.ready(), out, cotangent, sums, gradients, pool());
  });
}

}  // namespace flash
