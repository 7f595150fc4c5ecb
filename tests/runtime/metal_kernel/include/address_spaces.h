// Metal Shading Language as C++ for OpenCL, by declarations alone: clang then checks that pointers
// keep to their address spaces, which `metal_stdlib` beside this file leaves out.

#pragma OPENCL EXTENSION cl_khr_fp16 : enable

#define device __global
#define threadgroup __local
#define constant __constant
#define thread __private
#define METAL_FUNC inline
#define INFINITY (1.0f / 0.0f)
#define M_LOG2E_F 1.44269504f
#define M_LN2_F 0.69314718f

typedef unsigned int uint;
typedef unsigned short ushort;
typedef unsigned long ulong;
typedef unsigned char uchar;
typedef unsigned char uint8_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long int64_t;
typedef ulong size_t;
typedef half float16_t;
struct bfloat16_t {
  ushort bits;
  bfloat16_t() = default;
  bfloat16_t(float);
  operator float() const;
  operator float() const __global;
  operator float() const __local;
  operator float() const __constant;
};

namespace metal {

typedef float float2 __attribute__((ext_vector_type(2)));
typedef short short2 __attribute__((ext_vector_type(2)));
typedef int int2 __attribute__((ext_vector_type(2)));
typedef ulong ulong2 __attribute__((ext_vector_type(2)));
typedef uint uint3 __attribute__((ext_vector_type(3)));
typedef ulong ulong3 __attribute__((ext_vector_type(3)));

template <class T, T VALUE>
struct integral_constant {
  static constant constexpr T value = VALUE;
};
template <bool VALUE>
using bool_constant = integral_constant<bool, VALUE>;
template <bool CHOICE, class A, class B>
struct conditional {
  typedef A type;
};
template <class A, class B>
struct conditional<false, A, B> {
  typedef B type;
};
template <bool CHOICE, class A, class B>
using conditional_t = typename conditional<CHOICE, A, B>::type;
template <bool CHOICE, class T = void>
struct enable_if {
  typedef T type;
};
template <class T>
struct enable_if<false, T> {};
template <bool CHOICE, class T = void>
using enable_if_t = typename enable_if<CHOICE, T>::type;
template <class A, class B>
constant constexpr bool is_same_v = __is_same(A, B);
template <class T>
struct is_integral : bool_constant<__is_integral(T)> {};
template <class T>
constant constexpr bool is_integral_v = __is_integral(T);
template <class T>
using remove_cv_t = __remove_cv(T);
template <class T>
using remove_addrspace_t = __remove_cv(T);

template <class T, int N>
struct vec {
  T x, y;
  vec() = default;
  vec(T);
  thread T& operator[](int) thread;
  T operator[](int) const thread;
};

template <class T, int ROWS, int COLUMNS>
struct simdgroup_matrix {
  float2 elements;
  thread float2& thread_elements() thread { return elements; }
};
template <class D, class A, class B, class C>
void simdgroup_multiply_accumulate(
    thread simdgroup_matrix<D, 8, 8>&,
    thread simdgroup_matrix<A, 8, 8>&,
    thread simdgroup_matrix<B, 8, 8>&,
    thread simdgroup_matrix<C, 8, 8>&);

enum class mem_flags { mem_none, mem_threadgroup, mem_device };
void threadgroup_barrier(mem_flags);
void simdgroup_barrier(mem_flags);
template <class A>
A max(A, A);
template <class A>
A min(A, A);
float log2(float);
namespace fast {
float exp2(float);
}
namespace precise {
float tanh(float);
}
template <class T>
T simd_shuffle_xor(T, ushort);

}  // namespace metal

using namespace metal;

// Of MLX's own header, which a kernel is given.
template <class T>
struct Limits {
  static constant constexpr T min = -3.0e38f, finite_min = -3.0e38f;
};
