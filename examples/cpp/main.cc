// A program of one's own on Regard: exact attention and two sparse methods over one's own memory.
//
//   cmake -B build -S examples -DCMAKE_PREFIX_PATH=/where/regard/is/installed
//   cmake --build build && build/example_cpp
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "regard/method.h"
#include "regard/run.h"

namespace {

std::vector<float> random_floats(int64_t n, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(n));
  for (float& f : x) f = normal(generator);
  return x;
}

}  // namespace

int main() try {
  // 512 new queries over a cache of 2048 tokens; 8 query heads share 2 KV heads of 64 channels.
  const int64_t heads = 8, kv_heads = 2, nq = 512, nk = 2048, d = 64;
  std::vector<float> q = random_floats(heads * nq * d, 1), k = random_floats(kv_heads * nk * d, 2),
                     v = random_floats(kv_heads * nk * d, 3), out(heads * nq * d), exact;

  using regard::DType;
  regard::Inputs x;
  x.q = regard::contiguous(q.data(), DType::f32, {1, heads, nq, d});
  x.k = regard::contiguous(k.data(), DType::f32, {1, kv_heads, nk, d});
  x.v = regard::contiguous(v.data(), DType::f32, {1, kv_heads, nk, d});
  x.problem = regard::Problem::of_views(x.q, x.k, x.v);
  const regard::Out to{regard::contiguous(out.data(), DType::f32, {1, heads, nq, d}), {}, {}};

  for (const char* spec : {"dense", "a_shape:n_init=64,n_local=256", "xattention:threshold=0.9"}) {
    const regard::Plan plan =
        make_plan(regard::parse_method(spec), x, {regard::hardware_threads()});
    attend(plan, x.q, x.k, x.v, to);
    if (exact.empty()) exact = out;
    double error = 0, norm = 0;
    for (size_t i = 0; i < out.size(); ++i) {
      error += std::pow(out[i] - exact[i], 2);
      norm += std::pow(exact[i], 2);
    }
    std::printf("%-32s density %.3f  relative error %.3g\n", spec, cost(plan).density(),
                std::sqrt(error / norm));
  }
} catch (const regard::Error& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
