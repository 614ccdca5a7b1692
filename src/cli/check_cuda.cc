#include "cli/check_cuda.h"

#include <fmt/format.h>

#include "cli/gpu.h"
#include "cuda/cuda.h"
#include "ref/judge.h"
#include "regard/run.h"

namespace regard::cli {
DeviceProblem::DeviceProblem(const TextProblem& x)
    : type(half_type(x.q.view, x.k.view)),
      q(halved(x.q, type)),
      k(halved(x.k, type)),
      v(halved(x.v, type)) {
  t.q = up(q), t.k = up(k), t.v = up(v);
  t.out.out = up(x.out), t.out.lse = up(x.lse);
}

View DeviceProblem::up(const Tensor& host) {
  if (info(host.view.dtype).block > 1) {  // refused by its type; where it lies must still be said
    View v = host.view;
    v.device = Device::cuda;
    return v;
  }
  own_.push_back(cuda::to_device(host.view));
  return own_.back().view;
}

int check_cuda(const std::vector<std::string>& lines, int threads, size_t* runs) {
  need_gpu("cuda");
  fmt::print("{}\n", cuda::device_name());
  int failed = 0;
  for (const std::string& line : lines) {
    const TextProblem x = parse_problem(line);
    for (const char* impl : {"cuda_sm90", "cuda_sm80"}) {
      const DeviceProblem d(x);
      RunOptions options;
      options.impl = impl;
      std::string refusal;
      for (const Choice& c : explain(x.plan, d.t, options))
        if (c.name == impl) refusal = c.refusal;
      if (!refusal.empty()) {
        fmt::print("skip  {}  {}: {}\n", impl, refusal, line);
        continue;
      }
      attend(x.plan, d.t, options);
      const Tensor out = cuda::to_host(d.t.out.out), lse = cuda::to_host(d.t.out.lse);
      Out got;
      got.out = out.view, got.lse = lse.view;
      const ref::Verdict v = ref::judge(x.plan, d.q.view, d.k.view, d.v.view, got,
                                        threads ? threads : hardware_threads(), d.type);
      fmt::print("{}  {} {:<4}  out {:.1e} of {:.1e}  lse {:.1e} of {:.1e}  {}\n",
                 v.passed() ? "pass" : "FAIL", impl, info(d.type).name, v.error, v.bound,
                 v.lse_error, v.lse_bound, line);
      if (!v.passed()) fmt::print("      {}\n", v.failure);
      std::fflush(stdout);
      failed += !v.passed();
      ++*runs;
    }
  }
  return failed;
}

}  // namespace regard::cli
