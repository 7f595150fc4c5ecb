// In the place of MLX's header of the same use, whose thousands of lines take a second to compile:
// the names that MLX's generated kernels and ours have from it, laid out alike.

typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
typedef unsigned long long uintptr_t;

struct __half {
  uint16_t bits;
};
struct __nv_bfloat16 {
  uint16_t bits;
};

namespace cooperative_groups {}

namespace mlx::core::cu {

// The most axes of an array, as in mlx/backend/cuda/device/config.h.
constexpr int MAX_NDIM = 10;

template <typename T>
struct Axes {
  T of[MAX_NDIM];
  __device__ T operator[](int axis) const { return of[axis]; }
};
using Shape = Axes<int>;
using Strides = Axes<int64_t>;

}  // namespace mlx::core::cu

// Only here: tells whether MLX took what we compiled.
#define FLASH_PRELUDE 1
