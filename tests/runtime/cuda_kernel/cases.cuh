// What the checks of the kernels share; goes after the kernels' header.

namespace {

// A number as the kernel has it: of 32 bits rounded to TF32, of 16 bits to those.
template <typename T>
T number(float x) {
  if constexpr (sizeof(T) == 4) {
    return __uint_as_float(flash::tf32(x));
  } else {
    return T{flash::narrowed<T>(x)};
  }
}

struct Sizes {
  int heads, key_heads, queries, keys, window;
  bool sinks, backwards;  // rows of the inputs from the last element to the first
};

}  // namespace
