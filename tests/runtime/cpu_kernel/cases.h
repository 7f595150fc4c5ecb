// The cases that the kernel must hold: every kind of mask, type, shape and layout.
#pragma once

#include "problem.h"

namespace flash {

inline std::vector<Case> cases() {
  constexpr auto boolean = Mask::Kind::boolean, additive = Mask::Kind::additive;
  using MaskShape = Case::MaskShape;
  // {batch, query_heads, key_heads, query_length, key_length, head_dim, value_head_dim}
  const std::vector<Case> all = {
      {.name = "one", .shape = {1, 1, 1, 1, 1, 1, 1}},
      {.name = "small", .shape = {2, 8, 8, 64, 64, 32, 32}},
      {.name = "ragged", .shape = {2, 3, 3, 111, 63, 40, 24}},
      {.name = "long", .shape = {1, 2, 2, 300, 1000, 64, 64}},
      {.name = "large head", .shape = {1, 2, 1, 70, 90, 512, 500}},
      {.name = "values alone", .shape = {1, 2, 2, 65, 130, 16, 80}},
      {.name = "groups", .shape = {2, 6, 2, 50, 77, 33, 33}},
      {.name = "one key head", .shape = {1, 8, 1, 40, 200, 64, 64}},
      {.name = "interleaved", .shape = {2, 4, 2, 65, 70, 48, 32}, .interleaved = true},
      {.name = "causal", .shape = {1, 2, 2, 257, 257, 64, 64}, .causal = true},
      {.name = "causal groups", .shape = {1, 6, 2, 100, 200, 32, 32}, .causal = true},
      {.name = "causal without keys", .shape = {1, 2, 2, 200, 70, 32, 32}, .causal = true},
      {.name = "causal without keys but sinks",
       .shape = {1, 2, 2, 200, 70, 32, 32},
       .sinks = true,
       .causal = true},
      {.name = "window", .shape = {1, 4, 2, 300, 300, 32, 32}, .causal = true, .window = 70},
      {.name = "window of one", .shape = {1, 1, 1, 90, 150, 8, 8}, .causal = true, .window = 1},
      {.name = "boolean", .shape = {2, 4, 2, 70, 130, 32, 32}, .mask = boolean},
      {.name = "boolean without keys", .shape = {2, 4, 2, 70, 130, 32, 32}, .mask = boolean, .hidden_rows = 5},
      {.name = "boolean of keys",
       .shape = {2, 4, 2, 70, 130, 32, 32},
       .mask = boolean,
       .mask_shape = MaskShape::keys_only},
      {.name = "boolean strided",
       .shape = {2, 4, 2, 70, 130, 32, 32},
       .mask = boolean,
       .mask_shape = MaskShape::column_strided},
      {.name = "boolean with hidden blocks",
       .shape = {1, 4, 2, 100, 300, 32, 32},
       .mask = boolean,
       .hidden_rows = 3,
       .hidden_keys = 150},
      {.name = "boolean with hidden blocks and sinks",
       .shape = {1, 4, 2, 100, 300, 32, 32},
       .sinks = true,
       .mask = boolean,
       .hidden_rows = 70,
       .hidden_keys = 150},
      {.name = "boolean and causal", .shape = {1, 2, 2, 100, 100, 32, 32}, .causal = true, .mask = boolean},
      {.name = "additive", .shape = {2, 4, 2, 70, 130, 32, 32}, .mask = additive},
      {.name = "additive of heads",
       .shape = {2, 4, 2, 70, 130, 32, 32},
       .mask = additive,
       .mask_shape = MaskShape::heads_shared},
      {.name = "additive of keys",
       .shape = {2, 4, 2, 70, 130, 32, 32},
       .mask = additive,
       .mask_shape = MaskShape::keys_only},
      {.name = "additive bfloat16",
       .shape = {1, 4, 2, 70, 130, 32, 32},
       .mask = additive,
       .mask_type = Type::bfloat16},
      {.name = "additive float16 strided",
       .shape = {1, 4, 2, 70, 130, 32, 32},
       .mask = additive,
       .mask_type = Type::float16,
       .mask_shape = MaskShape::column_strided},
      {.name = "additive of -infinity",
       .shape = {1, 2, 2, 70, 130, 32, 32},
       .mask = additive,
       .additive_low = -HUGE_VALF},
      {.name = "additive of the lowest float",
       .shape = {1, 2, 2, 70, 130, 32, 32},
       .mask = additive,
       .hidden_rows = 3,
       .additive_low = masked},
      {.name = "softcap", .shape = {1, 4, 2, 70, 130, 32, 32}, .softcap = 2.0f, .size = 4.0f},
      {.name = "softcap and causal", .shape = {1, 4, 2, 90, 90, 32, 32}, .softcap = 50.0f, .causal = true},
      {.name = "sinks", .shape = {2, 6, 2, 70, 130, 32, 32}, .sinks = true},
      {.name = "sinks and window",
       .shape = {2, 6, 2, 130, 130, 32, 32},
       .sinks = true,
       .causal = true,
       .window = 40},
      {.name = "decode", .shape = {1, 4, 4, 1, 3000, 64, 64}},
      {.name = "decode groups", .shape = {2, 8, 2, 1, 1500, 64, 64}, .interleaved = true},
      {.name = "decode several", .shape = {1, 4, 2, 5, 1500, 48, 40}, .causal = true},
      {.name = "decode window", .shape = {1, 4, 2, 4, 2000, 32, 32}, .causal = true, .window = 600},
      {.name = "decode sinks", .shape = {1, 4, 2, 1, 2000, 32, 32}, .softcap = 3.0f, .sinks = true},
      {.name = "decode boolean", .shape = {2, 4, 2, 2, 2000, 32, 32}, .mask = boolean},
      {.name = "decode additive", .shape = {2, 4, 2, 3, 2000, 32, 32}, .mask = additive},
      {.name = "decode large head", .shape = {1, 8, 1, 1, 700, 512, 500}},
      {.name = "large scores", .shape = {1, 2, 2, 70, 130, 32, 32}, .size = 60.0f},
  };
  std::vector<Case> of_each_type;
  for (const Type type : {Type::float32, Type::float16, Type::bfloat16}) {
    for (Case c : all) {
      c.type = type;
      c.name += type == Type::float32 ? " in float32" : type == Type::float16 ? " in float16" : " in bfloat16";
      of_each_type.push_back(c);
    }
  }
  return of_each_type;
}

}  // namespace flash
