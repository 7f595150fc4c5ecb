// Attention in MLX's own operations.
#pragma once

#include <vector>

#include "primitive.h"

namespace flash {

// The outputs of Attention from its inputs, by the definition and with all scores at once, in float32 but for the
// output's type.
std::vector<mx::array> attend_in_operations(const std::vector<mx::array>& inputs, const Options& options,
                                            mx::Stream stream);

}  // namespace flash
