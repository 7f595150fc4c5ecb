// How fast the kernel is: `bench THREADS [SECONDS [WORD]]` prints a table, the best of many runs each, of the cases with
// the word in their name. One thread is timed by the processor, so that other programs do not count.
#include <time.h>

#include <cstdio>
#include <cstdlib>

#include "problem.h"

using namespace flash;

namespace {

clockid_t clock_used = CLOCK_MONOTONIC;
const char* word = "";

double now() {
  timespec time;
  clock_gettime(clock_used, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

double best(double seconds, const auto& run) {
  double least = HUGE_VAL, spent = 0;
  for (int i = 0; i < 5 || spent < seconds; ++i) {
    const double start = now();
    run();
    const double took = now() - start;
    least = std::min(least, took);
    spent += took;
  }
  return least;
}

void measure(const Case& c, Pool& pool, double seconds, bool gradients) {
  if (c.name.find(word) == std::string::npos) return;
  const Problem p(c);
  const Shape& s = c.shape;
  std::vector<char> out(p.outputs() * bytes_of(c.type));
  const int64_t rows = static_cast<int64_t>(s.batch) * s.query_heads * s.query_length;
  const int64_t keys = static_cast<int64_t>(s.batch) * s.key_heads * s.key_length;
  std::vector<float> row_max(rows), row_sum(rows);
  const Sums sums{row_max.data(), row_sum.data()};
  const double seen = c.causal ? 0.5 : 1;
  const double products = 2.0 * rows * s.key_length * seen;
  double time = best(seconds, [&] { forward(p.call, out.data(), sums, pool); });
  double flops = products * (s.head_dim + s.value_head_dim);
  const double bytes = static_cast<double>(keys) * (s.head_dim + s.value_head_dim) * bytes_of(c.type);
  std::printf("%-44s forward  %9.1f us %7.1f GFLOP/s %6.1f GB/s\n", c.name.c_str(), time * 1e6, flops / time * 1e-9,
              bytes / time * 1e-9);
  if (!gradients) return;
  std::vector<char> dq(rows * s.head_dim * bytes_of(c.type)), dk(keys * s.head_dim * bytes_of(c.type)),
      dv(keys * s.value_head_dim * bytes_of(c.type));
  time = best(seconds, [&] {
    backward(p.call, out.data(), p.cotangent.rows, sums, {dq.data(), dk.data(), dv.data()}, pool);
  });
  flops = products * (3 * s.head_dim + 2 * s.value_head_dim);
  std::printf("%-44s backward %9.1f us %7.1f GFLOP/s\n", c.name.c_str(), time * 1e6, flops / time * 1e-9);
}

}  // namespace

int main(int argc, char** argv) {
  Pool pool(argc > 1 ? std::atoi(argv[1]) : 1);
  const double seconds = argc > 2 ? std::atof(argv[2]) : 0.3;
  if (pool.threads() == 1) clock_used = CLOCK_PROCESS_CPUTIME_ID;
  if (argc > 3) word = argv[3];
  for (const Type type : {Type::float32, Type::bfloat16}) {
    const std::string name = type == Type::float32 ? "float32" : "bfloat16";
    const auto named = [&](const char* kind, const Shape& s) {
      char text[80];
      std::snprintf(text, sizeof text, "%s %s B%d H%d/%d L%d S%d D%d", name.c_str(), kind, s.batch, s.query_heads,
                    s.key_heads, s.query_length, s.key_length, s.head_dim);
      return std::string(text);
    };
    for (const int batch : {1, 2}) {
      for (const int length : {64, 128}) {
        for (const int dim : {32, 64}) {
          const Shape shape{batch, 8, 8, length, length, dim, dim};
          measure({.name = named("small", shape), .shape = shape, .type = type}, pool, seconds, false);
        }
      }
    }
    for (const int length : {1024, 4096}) {
      for (const int dim : {64, 128}) {
        for (const bool causal : {false, true}) {
          const Shape shape{1, length == 1024 ? 8 : 2, length == 1024 ? 8 : 2, length, length, dim, dim};
          measure({.name = named(causal ? "causal" : "dense", shape), .shape = shape, .type = type, .causal = causal},
                  pool, seconds, length == 1024);
        }
      }
    }
    const Shape middle{1, 8, 8, 1024, 1024, 64, 64};
    for (const auto kind : {Mask::Kind::boolean, Mask::Kind::additive}) {
      for (const auto shared : {Case::MaskShape::heads_shared, Case::MaskShape::keys_only}) {
        std::string text = kind == Mask::Kind::boolean ? "boolean mask" : "additive mask";
        text += shared == Case::MaskShape::keys_only ? " of keys" : "";
        measure({.name = named(text.c_str(), middle), .shape = middle, .type = type, .mask = kind, .mask_type = type,
                 .mask_shape = shared},
                pool, seconds, false);
      }
    }
    measure({.name = named("softcap", middle), .shape = middle, .type = type, .softcap = 30}, pool, seconds, true);
    for (const int dim : {80, 96, 192, 256, 512}) {
      const Shape shape{1, 8, 8, 1024, 1024, dim, dim};
      measure({.name = named("dim", shape), .shape = shape, .type = type}, pool, seconds, true);
    }
    for (const Shape& shape : {Shape{1, 8, 8, 1, 8192, 64, 64}, Shape{1, 8, 8, 1, 8192, 128, 128},
                               Shape{1, 32, 8, 1, 8192, 128, 128}, Shape{1, 32, 8, 4, 8192, 128, 128}}) {
      measure({.name = named("decode", shape), .shape = shape, .type = type}, pool, seconds, false);
    }
  }
}
