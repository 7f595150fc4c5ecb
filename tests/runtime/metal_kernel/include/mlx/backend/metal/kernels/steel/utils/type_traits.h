// In the place of MLX's header of this name, which tells address spaces apart.

#pragma once

#include <metal_stdlib>

namespace metal {

template <class T>
struct is_empty : bool_constant<__is_empty(T)> {};
template <class T>
constexpr bool is_empty_v = is_empty<T>::value;
template <class... T>
using void_t = void;
template <class T>
struct is_static : bool_constant<is_empty<remove_cv_t<T>>::value> {};
template <class T>
struct pointer_element {
  using type = std::remove_cv_t<std::remove_pointer_t<T>>;
};
template <class T>
using pointer_element_t = typename pointer_element<remove_cv_t<T>>::type;

}  // namespace metal
