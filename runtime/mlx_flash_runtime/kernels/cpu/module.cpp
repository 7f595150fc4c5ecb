// The Python module.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "primitive.h"

namespace nb = nanobind;

namespace {

using Visible = std::tuple<int, int, std::vector<int>>;  // the members of flash::Structure

mlx::core::array attention(const mlx::core::array& q, const mlx::core::array& k, const mlx::core::array& v, float scale,
                           std::optional<float> softcap, std::optional<mlx::core::array> mask,
                           std::optional<mlx::core::array> sinks, std::optional<Visible> visible) {
  std::optional<flash::Structure> structure;
  if (visible) structure = std::apply([](auto... x) { return flash::Structure{x...}; }, *visible);
  return flash::attention(q, k, v, scale, softcap, std::move(mask), std::move(sinks), std::move(structure));
}

}  // namespace

NB_MODULE(mlx_flash_cpu, m) {
  m.def("attention", &attention, nb::arg("q"), nb::arg("k"), nb::arg("v"), nb::arg("scale"), nb::arg("softcap").none(),
        nb::arg("mask").none(), nb::arg("sinks").none(), nb::arg("visible").none());
}
