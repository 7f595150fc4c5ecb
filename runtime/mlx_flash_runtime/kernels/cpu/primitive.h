// Attention as an operation of MLX: lazy, and known to its transformations.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "mlx/array.h"
#include "mlx/primitives.h"

namespace flash {

namespace mx = mlx::core;

// Which keys a query sees by its position among them, where the last query stands at the last key: from the first key,
// the start of its document (`starts`, growing, of packed documents) and its window, whichever is last; up to itself or
// the end of the prefix.
struct Structure {
  int window;  // keys, the query's own included; more than there are keys: no window
  int prefix = 0;
  std::vector<int> starts;

  bool operator==(const Structure&) const = default;
};

// For each query the first key it sees, then for each the last: 2 * query_length numbers.
std::vector<int32_t> bounds(const Structure& structure, int query_length, int key_length);

struct Options {
  float scale;
  float softcap;  // 0: scores are not capped
  bool mask, sinks;
  std::optional<Structure> structure;

  bool operator==(const Options&) const = default;
};

// What the two primitives share. Their inputs begin with q, k, v, then the mask and the sinks if any; those are of one
// type, but for a boolean mask (4 axes, each of size 1 or of the scores) and for sinks in float32.
class AttentionPrimitive : public mx::Primitive {
 public:
  AttentionPrimitive(mx::Stream stream, Options options) : Primitive(stream), options_(std::move(options)) {}

  void eval_gpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override;
  std::vector<mx::array> jvp(const std::vector<mx::array>& primals, const std::vector<mx::array>& tangents,
                             const std::vector<int>& argnums) override;
  std::vector<mx::array> vjp(const std::vector<mx::array>& primals, const std::vector<mx::array>& cotangents,
                             const std::vector<int>& argnums, const std::vector<mx::array>& outputs) override;
  std::pair<std::vector<mx::array>, std::vector<int>> vmap(const std::vector<mx::array>& inputs,
                                                           const std::vector<int>& axes) override;

 protected:
  // The same said in MLX's own operations: what derivatives and vmaps that have no code of their own are taken of.
  virtual std::vector<mx::array> in_operations(const std::vector<mx::array>& inputs) = 0;
  // The same primitive on other inputs.
  virtual std::vector<mx::array> again(const std::vector<mx::array>& inputs) = 0;
  virtual size_t output_count() const = 0;
  // Whether a mapped axis may become a part of the batch.
  virtual bool folds(const std::vector<int>& axes) const = 0;

  size_t sinks_at() const { return options_.mask ? 4 : 3; }
  size_t own_inputs() const { return sinks_at() + options_.sinks; }

  const Options options_;
};

// Outputs: the attention, then per query its largest score and sum(exp(score - largest)), float32
// [batch, query_heads, query_length]. The last two are for the gradient alone and have none themselves.
class Attention : public AttentionPrimitive {
 public:
  using AttentionPrimitive::AttentionPrimitive;

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override;
  std::vector<mx::array> vjp(const std::vector<mx::array>& primals, const std::vector<mx::array>& cotangents,
                             const std::vector<int>& argnums, const std::vector<mx::array>& outputs) override;
  std::vector<mx::Shape> output_shapes(const std::vector<mx::array>& inputs) override;
  bool is_equivalent(const mx::Primitive& other) const override;
  const char* name() const override { return "FlashAttention"; }

 protected:
  std::vector<mx::array> in_operations(const std::vector<mx::array>& inputs) override;
  std::vector<mx::array> again(const std::vector<mx::array>& inputs) override;
  size_t output_count() const override { return 3; }
  bool folds(const std::vector<int>& axes) const override;
};

// Inputs: those of Attention, its outputs, and the cotangent of the first. Outputs: the gradients of q, k, v, and of
// the sinks if any.
class AttentionGradient : public AttentionPrimitive {
 public:
  using AttentionPrimitive::AttentionPrimitive;

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override;
  std::vector<mx::Shape> output_shapes(const std::vector<mx::array>& inputs) override;
  bool is_equivalent(const mx::Primitive& other) const override;
  const char* name() const override { return "FlashAttentionGradient"; }

 protected:
  std::vector<mx::array> in_operations(const std::vector<mx::array>& inputs) override;
  std::vector<mx::array> again(const std::vector<mx::array>& inputs) override;
  size_t output_count() const override { return 3 + options_.sinks; }
  bool folds(const std::vector<int>& axes) const override;
};

// softmax(scale * q k^T + mask, with sinks) v on the default stream. Types of q, k and v are promoted; `mask` broadcasts
// to [batch, query_heads, query_length, key_length]. Throws std::invalid_argument for types and shapes of no
// attention.
mx::array attention(mx::array q, mx::array k, mx::array v, float scale, std::optional<float> softcap,
                    std::optional<mx::array> mask, std::optional<mx::array> sinks, std::optional<Structure> structure);

}  // namespace flash
