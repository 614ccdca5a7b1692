#include "exec/profile.h"

#include <fmt/format.h>

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "plan/by_head.h"

namespace regard {
namespace {

using Json = nlohmann::ordered_json;

[[noreturn]] void fail(const std::string& path, const std::string& why) {
  throw Error(fmt::format("profile '{}': {}", path, why));
}

// Neighbouring heads with one method, in whole groups or inside one, so that each run is a problem
// of its own.
struct HeadRun {
  int64_t first, count, method;
};
std::vector<HeadRun> head_runs(const std::vector<int64_t>& heads, int64_t group) {
  std::vector<HeadRun> out;
  const int64_t n = int64_t(heads.size());
  for (int64_t h = 0; h < n;) {
    int64_t end = h;
    while (end < n && heads[size_t(end)] == heads[size_t(h)]) ++end;
    const int64_t left = group - h % group;  // of the KV head that h reads
    if (h % group == 0 && end - h >= group)
      end = h + (end - h) / group * group;
    else
      end = std::min(end, h + left);
    out.push_back({h, end - h, heads[size_t(h)]});
    h = end;
  }
  return out;
}

View slice_heads(View v, int64_t first, int64_t count) {
  v.data = v.at(0, first, 0);
  v.size[1] = count;
  return v;
}

template <class T>
std::vector<T> part(const std::vector<T>& v, int64_t first, int64_t count) {
  return v.empty() ? v : std::vector<T>(v.begin() + first, v.begin() + first + count);
}

Inputs slice(const Inputs& x, const HeadRun& r) {
  const int64_t group = x.problem.group(), kv0 = r.first / group;
  const int64_t kv = std::max<int64_t>(1, r.count / group);
  Inputs out = x;
  out.q = slice_heads(x.q, r.first, r.count);
  out.k = slice_heads(x.k, kv0, kv);
  out.v = slice_heads(x.v, kv0, kv);
  out.problem.heads = r.count;
  out.problem.kv_heads = kv;
  out.score.alibi = part(x.score.alibi, r.first, r.count);
  out.score.bias_scale = part(x.score.bias_scale, r.first, r.count);
  if (x.score.bias && x.score.bias.view.size[1] > 1)
    out.score.bias.view = slice_heads(x.score.bias.view, r.first, r.count);
  if (x.score.key_bias && x.score.key_bias.view.size[1] > 1)
    out.score.key_bias.view = slice_heads(x.score.key_bias.view, kv0, kv);
  out.norm.sink = part(x.norm.sink, r.first, r.count);
  return out;
}

bool same_score(const Branch& b, const Inputs& x) {
  const Score &a = b.score, &m = x.score;
  return a.softcap == m.softcap && a.alibi == m.alibi && a.bias.view.data == m.bias.view.data &&
         a.bias_scale == m.bias_scale && a.key_bias.view.data == m.key_bias.view.data &&
         b.norm.kind == x.norm.kind && b.norm.sink == x.norm.sink;
}

}  // namespace

Profile load_profile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) fail(path, "cannot be read");
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  const Json j = Json::parse(text, nullptr, false);
  if (!j.is_object() || j.value("regard_profile", Json()) != 1)
    fail(path, "is no profile (\"regard_profile\": 1 is missing)");
  Profile p;
  p.path = path;
  if (!j.contains("methods") || !j["methods"].is_array() || !j.contains("layers") ||
      !j["layers"].is_object())
    fail(path, "\"methods\" (a list) and \"layers\" (an object) are needed");
  for (const Json& spec : j["methods"]) {
    if (!spec.is_string()) fail(path, "\"methods\" holds specifications such as \"dense\"");
    try {
      p.methods.push_back(parse_method(spec.get<std::string>()));
    } catch (const Error& e) {
      fail(path, e.what());
    }
  }
  for (const auto& [key, heads] : j["layers"].items()) {
    char* end = nullptr;
    const int64_t layer = std::strtoll(key.c_str(), &end, 10);
    if (key.empty() || *end || layer < 0) fail(path, fmt::format("layer '{}' is no number", key));
    if (!heads.is_array() || heads.empty())
      fail(path, fmt::format("layer {}: a list of indices is needed, one a head", key));
    for (const Json& h : heads) {
      if (!h.is_number_integer() || h < 0 || h >= int64_t(p.methods.size()))
        fail(path, fmt::format("layer {}: {} is no index of its {} methods", key, h.dump(),
                               p.methods.size()));
      p.layers[layer].push_back(h.get<int64_t>());
    }
  }
  return p;
}

std::string profile_json(const Profile& p, const std::string& remarks_json) {
  Json j = {{"regard_profile", 1}, {"methods", Json::array()}, {"layers", Json::object()}};
  for (const Method& m : p.methods) j["methods"].push_back(m.spec());
  for (const auto& [layer, heads] : p.layers) j["layers"][std::to_string(layer)] = heads;
  const Json remarks = Json::parse(remarks_json);
  for (const auto& [key, value] : remarks.items()) j[key] = value;
  return j.dump(1) + "\n";
}

std::string refusal(const Profile& p, int64_t layer, const Inputs& x) {
  const auto it = p.layers.find(layer);
  if (it == p.layers.end()) return "layer not in the profile";
  if (int64_t(it->second.size()) != x.problem.heads)
    return fmt::format("profile has {} heads for this layer, the model {}", it->second.size(),
                       x.problem.heads);
  for (const HeadRun& r : head_runs(it->second, x.problem.group())) {
    const Method& m = p.methods[size_t(r.method)];
    if (const std::string why = refusal(m, slice(x, r)); !why.empty())
      return fmt::format("{}: {}", m.record->name, why);
  }
  return "";
}

Plan make_plan(const Profile& p, int64_t layer, const Inputs& x, const Ctx& ctx) {
  if (const std::string why = refusal(p, layer, x); !why.empty()) fail(p.path, why);
  std::vector<Plan> parts;
  for (const HeadRun& r : head_runs(p.layers.at(layer), x.problem.group())) {
    const Method& m = p.methods[size_t(r.method)];
    const Inputs own = slice(x, r);
    parts.push_back(make_plan(m, own, ctx));
    for (const Branch& b : parts.back().branches)
      if (!same_score(b, own))
        fail(p.path, fmt::format("{} changes the scores; a profile's methods choose pairs only",
                                 m.record->name));
  }
  Plan plan = plan_by_head(x.problem, parts);
  plan.score(x.score).norm(x.norm);
  const StageTimer timer(ctx, "lower");
  plan.lower(ctx.threads);
  return plan;
}

}  // namespace regard
