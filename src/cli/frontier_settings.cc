#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <set>

#include "cli/frontier.h"
#include "regard/method.h"
#include "regard/status.h"

namespace regard::cli {
namespace {

// Parts between commas, but "key=value" belongs to the specification before it.
std::vector<std::string> split_specs(const std::string& list) {
  std::vector<std::string> out;
  for (size_t begin = 0; begin <= list.size();) {
    const size_t end = std::min(list.find(',', begin), list.size());
    const std::string part = list.substr(begin, end - begin);
    const bool more = part.find('=') < part.find(':');  // "=" and no ":" before it
    if (more && !out.empty())
      out.back() += (out.back().find(':') == std::string::npos ? ":" : ",") + part;
    else
      out.push_back(part);
    begin = end + 1;
  }
  return out;
}

bool needs(const Record& r, const char* what) {
  return std::find(r.needs.begin(), r.needs.end(), what) != r.needs.end();
}

bool chooses_pairs(const Record& r) {
  static const std::set<std::string> families = {"pattern", "dynamic", "clustered", "hybrid"};
  return families.count(r.family) > 0;
}

Setting setting_of(const std::string& spec) {
  const Method m = parse_method(spec);
  const Record& r = *m.record;
  Setting s{spec, r.name, r.family, r.title, "", ""};
  if (needs(r, "weights")) {
    std::string missing;
    for (const Param& p : r.params)
      if (std::holds_alternative<Tensor>(p.value) && !m.values.count(p.name))
        missing += (missing.empty() ? "" : ", ") + p.name;
    s.not_on_model = "needs weights trained for it; planted inputs only";
    if (!missing.empty()) s.not_at_all = "needs weights: " + missing;
  }
  if (r.phase == "decode") s.not_on_model = s.not_at_all = "made for decoding, not for prefill";
  if (r.phase == "train") s.not_on_model = "made for training; planted inputs only";
  return s;
}

void add_swept(const std::string& spec, std::vector<Setting>* out) {
  const Method m = parse_method(spec);
  const Sweep& sweep = m.record->sweep;
  const Setting plain = setting_of(spec);
  if (sweep.values.empty() || m.values.count(sweep.param) || !plain.not_at_all.empty()) {
    out->push_back(plain);
    return;
  }
  const char separator = m.values.empty() ? ':' : ',';
  for (const double value : sweep.values)
    out->push_back(setting_of(fmt::format("{}{}{}={}", spec, separator, sweep.param, value)));
}

}  // namespace

std::vector<Setting> frontier_settings(const std::string& methods_list,
                                       const std::vector<std::string>& profiles) {
  std::vector<Setting> out;
  for (const std::string& part : split_specs(methods_list)) {
    if (part != "all") {
      add_swept(part, &out);
      continue;
    }
    for (const Record* r : methods())
      if (chooses_pairs(*r)) add_swept(r->name, &out);
  }
  for (const std::string& file : profiles)
    out.push_back({"@" + file, "profile", "profile", "Each head its own method", "", ""});
  std::set<std::string> seen;
  std::erase_if(out, [&](const Setting& s) { return !seen.insert(s.spec).second; });
  return out;
}

std::vector<int64_t> frontier_lengths(const std::string& lengths) {
  std::set<int64_t> out;
  for (size_t begin = 0; begin <= lengths.size();) {
    const size_t end = std::min(lengths.find(',', begin), lengths.size());
    const std::string part = lengths.substr(begin, end - begin);
    int64_t n = 0;
    const auto [stop, error] = std::from_chars(part.data(), part.data() + part.size(), n);
    const std::string unit(stop, part.data() + part.size());
    const bool thousands = unit == "k" || unit == "K";
    if (error != std::errc() || n < 1 || n > 1 << 24 || !(unit.empty() || thousands))
      throw Error(fmt::format("frontier: --lengths '{}'; accepted: tokens such as 2k,4k,8k or 2048",
                              lengths));
    out.insert(thousands ? 1024 * n : n);
    begin = end + 1;
  }
  return {out.begin(), out.end()};
}

}  // namespace regard::cli
