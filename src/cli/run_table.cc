#include "cli/run_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

namespace regard::cli {
namespace {

constexpr size_t kNameWidth = 32;  // with a mark 33; the other columns take 87

std::string shorten(const std::string& name) {
  return name.size() <= kNameWidth ? name : name.substr(0, kNameWidth - 2) + "..";
}

// Greedy lines of at most 100 columns.
std::string wrap(const std::string& text) {
  std::string out, line;
  for (size_t at = 0; at < text.size();) {
    const size_t space = std::min(text.find(' ', at), text.size());
    const std::string word = text.substr(at, space - at);
    if (!line.empty() && line.size() + 1 + word.size() > 100) {
      out += line + "\n";
      line.clear();
    }
    line += (line.empty() ? "" : " ") + word;
    at = space + 1;
  }
  return out + line + "\n";
}

std::string row_line(const Row& r, const Row& llama, size_t width, bool marked) {
  std::string s = fmt::format("{:<{}}", shorten(r.name) + (marked ? "*" : ""), width);
  s += fmt::format("{:>10.2f} {:>5.2f}x", r.prefill(), llama.prefill() / r.prefill());
  s += fmt::format("{:>10.2f} {:>5.2f}x", r.attention(), llama.attention() / r.attention());
  s += fmt::format("{:>9.3f}{:>9.4f}", r.pairs.density(), r.loss);
  s += r.compared ? fmt::format("{:>+9.4f}{:>9.5f}{:>7.3f}", r.loss_rise, r.kl, r.top1)
                  : fmt::format("{:>9}{:>9}{:>7}", "-", "-", "-");
  return s + fmt::format("{:>10.0f}\n", r.peak_mib);
}

}  // namespace

std::string table(const RunInfo& info, const std::vector<Row>& rows) {
  std::vector<const Row*> done;
  size_t width = 8;
  for (const Row& r : rows) {
    if (!r.done()) continue;
    done.push_back(&r);
    width = std::max(width, shorten(r.name).size() + info.over_ctx);
  }
  if (done.empty()) return "no row was finished\n";
  std::string out = wrap(
      fmt::format("{}: {} tokens of {}, {} threads, micro-batches of {}, {} cache", info.model_desc,
                  info.tokens, std::filesystem::path(info.text).filename().string(), info.threads,
                  info.ubatch, info.kv));
  out += info.machine + "\n\n";
  out += fmt::format("{:<{}}{:>10}{:>7}{:>10}{:>7}{:>9}{:>9}{:>9}{:>9}{:>7}{:>10}\n", "", width,
                     "prefill s", "", "attent. s", "", "density", "loss", "rise", "KL", "top-1",
                     "peak MiB");
  const Row& llama = *done.front();
  for (const Row* r : done) out += row_line(*r, llama, width, info.over_ctx);
  out += "\n";
  if (info.over_ctx)
    out += fmt::format(
        "* a context of {} tokens, beyond the {} this model was trained for (--force)\n", info.ctx,
        info.train_ctx);
  for (const Row* r : done)
    for (const auto& [reason, calls] : r->exact_calls)
      out += wrap(fmt::format("{}: exact in {} of {} calls: {}", r->name, calls, r->calls, reason));
  out += wrap(
      fmt::format("Attention is {:.0f} % of llama.cpp's own prefill: attention that cost nothing "
                  "would make the whole {:.2f} times as fast.",
                  100 * llama.attention() / llama.prefill(), best_possible(llama)));
  return out + wrap(how_measured(info));
}

}  // namespace regard::cli
