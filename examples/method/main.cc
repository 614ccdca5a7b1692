// A method of one's own, outside the library's tree: registered once, it has a spec, checks and a
// plan like any other. Built with the same CMakeLists.txt as examples/cpp.
#include <cstdio>
#include <vector>

#include "regard/method.h"
#include "regard/run.h"

namespace {

using namespace regard;

// Every query reads its own tile of keys and the tiles at power-of-two distances before it.
struct Params {
  int64_t block = 64;
};

Plan doubling(const Ctx&, const Inputs& x, const Params& p) {
  const int64_t rows = (x.problem.nq + p.block - 1) / p.block;
  const int64_t cols = (x.problem.nk + p.block - 1) / p.block;
  TileBits keep(1, 1, rows, cols);
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t last = x.problem.offset + (r + 1) * p.block - 1;  // position of the tile's end
    const int64_t own = std::min(last / p.block, cols - 1);
    keep.set(0, 0, r, own);
    for (int64_t step = 1; step <= own; step *= 2) keep.set(0, 0, r, own - step);
  }
  return Plan::tiles(x.problem, int(p.block), int(p.block), keep);
}

}  // namespace

int main() try {
  Record record;
  record.name = "doubling";
  record.title = "Own tile and tiles at power-of-two distances";
  record.family = "pattern";
  record.phase = "prefill";
  record.twin = "";
  add_method(recipe<Params>(record, doubling,
                            {param("block", &Params::block, 16, 1024, "tile side in tokens")}));

  const int64_t n = 2048, d = 64;
  std::vector<float> x(n * d, 0.5f), out(n * d);
  Inputs in;
  in.q = in.k = in.v = contiguous(x.data(), DType::f32, {1, 1, n, d});
  in.problem = Problem::of_views(in.q, in.k, in.v);
  const Plan plan = make_plan(parse_method("doubling:block=128"), in, {hardware_threads()});
  attend(plan, in.q, in.k, in.v, {contiguous(out.data(), DType::f32, {1, 1, n, d}), {}, {}});
  std::printf("%sfirst output %.3f\n", describe(plan).c_str(), out[0]);
} catch (const regard::Error& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
