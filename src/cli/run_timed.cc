#include "cli/run_timed.h"

#include <fmt/format.h>

#include "regard/status.h"

namespace regard::cli {

Timed timed_pass(const Model& model, ggml::Control& control, TimedPass p) {
  control.configure(p.mode, p.spec, p.pass.threads);
  Timed out;
  Watch& watch = out.watch;
  bool warm = false;
  struct Unwatch {  // also when a pass is interrupted: the observer's captures die with this call
    ggml::Control& control;
    ~Unwatch() { control.observe({}); }
  } const unwatch{control};
  control.observe([&](const ggml::Node& n) {
    watch.add(n);
    if (warm && p.draw) watch.off_the_clock([&] { p.draw(n); });
  });
  watch.begin(false);
  const bool claims = p.mode != ggml::Mode::off;
  const auto start = [&] {
    if (p.pass.warm_up && claims != (watch.calls() > 0))
      throw Error(
          fmt::format("model '{}': {}", model.description(),
                      claims ? "its attention does not reach the plug-in (no flash attention on "
                               "the CPU for it); a model whose attention llama.cpp can run so is "
                               "needed"
                             : "the plug-in ran although it is off"));
    watch.begin(p.count_pairs && claims);
    warm = true;
  };
  p.pass.warm = start;
  const PassResult r = run_pass(model, p.pass);
  out.seconds = r.seconds - watch.own_seconds();
  out.peak_mib = r.peak_mib;
  return out;
}

}  // namespace regard::cli
