// Metal Shading Language as C++ for OpenCL, by declarations alone: clang then checks that pointers
// keep to their address spaces, which `metal_stdlib` beside this file leaves out.

#pragma OPENCL EXTENSION cl_khr_fp16 : enable

#define device __global
#define threadgroup __local
#define constant __constant
#define thread __private
#define METAL_FUNC inline
#define INFINITY (1.0f / 0.0f)

typedef unsigned int uint;
typedef unsigned short ushort;
typedef unsigned long ulong;
typedef unsigned char uchar;
typedef unsigned int uint32_t;
typedef long int64_t;
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
typedef uint uint3 __attribute__((ext_vector_type(3)));

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
