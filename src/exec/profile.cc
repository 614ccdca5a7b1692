#include "exec/profile.h"

#include <fmt/format.h>

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "exec/values.h"
#include "plan/by_head.h"

namespace regard {
namespace {

using Json = nlohmann::ordered_json;

[[noreturn]] void fail(const std::string& path, const std::string& why) {
  throw Error(fmt::format("profile '{}': {}", path, why));
}

// The tensor that takes a number head by head: "thresholds" of "threshold". Null where there is
// none.
const Param* list_of(const Record& r, const std::string& name) {
  for (const Param& p : r.params)
    if (p.name == name + "s" && std::holds_alternative<Tensor>(p.value)) return &p;
  return nullptr;
}

// The number by which two methods differ and which their recipe takes head by head: their heads can
// be planned together. Null where they differ in nothing, or in more.
const Param* differ_by_head(const Method& a, const Method& b) {
  const Param* found = nullptr;
  for (const Param& p : a.record->params) {
    const auto x = a.values.find(p.name), y = b.values.find(p.name);
    const bool given = x != a.values.end() || y != b.values.end();
    if (!given) continue;
    const auto* u = std::get_if<double>(x != a.values.end() ? &x->second : &p.value);
    const auto* v = std::get_if<double>(y != b.values.end() ? &y->second : &p.value);
    if (u && v && *u == *v) continue;
    if (!u || !v) {
      if (x == a.values.end() || y == b.values.end() || text_of(x->second) != text_of(y->second))
        return nullptr;
      if (std::holds_alternative<Tensor>(p.value)) return nullptr;
      continue;
    }
    if (found || !list_of(*a.record, p.name)) return nullptr;
    found = &p;
  }
  return found;
}
bool same_but_by_head(const Method& a, const Method& b) {
  return &a == &b || (a.record == b.record && differ_by_head(a, b));
}

// Neighbouring heads planned together, in whole groups or inside one, so that each run is a problem
// of its own.
struct HeadRun {
  int64_t first, count;
  Method method;
};
std::vector<HeadRun> head_runs(const Profile& profile, const std::vector<int64_t>& heads,
                               int64_t group) {
  std::vector<HeadRun> out;
  const auto method = [&](int64_t h) -> const Method& {
    return profile.methods[size_t(heads[size_t(h)])];
  };
  const int64_t n = int64_t(heads.size());
  for (int64_t h = 0; h < n;) {
    int64_t end = h + 1;
    const Param* by_head = nullptr;
    for (; end < n && same_but_by_head(method(h), method(end)); ++end) {
      if (&method(h) == &method(end)) continue;
      const Param* const p = differ_by_head(method(h), method(end));
      if (by_head && by_head != p) break;
      by_head = p;
    }
    const int64_t left = group - h % group;  // of the KV head that h reads
    if (h % group == 0 && end - h >= group)
      end = h + (end - h) / group * group;
    else
      end = std::min(end, h + left);
    HeadRun run{h, end - h, method(h)};
    if (by_head) {
      const Tensor each = make_tensor(DType::f64, {1, 1, 1, run.count});
      std::vector<double> values;
      for (; h < end; ++h) {
        const auto own = method(h).values.find(by_head->name);
        values.push_back(
            std::get<double>(own != method(h).values.end() ? own->second : by_head->value));
      }
      write_row(each.view, 0, 0, 0, values.data());
      run.method.values[list_of(*run.method.record, by_head->name)->name] = each;
    }
    out.push_back(std::move(run));
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
  for (const HeadRun& r : head_runs(p, it->second, x.problem.group()))
    if (const std::string why = refusal(r.method, slice(x, r)); !why.empty())
      return fmt::format("{}: {}", r.method.record->name, why);
  return "";
}

Plan make_plan(const Profile& p, int64_t layer, const Inputs& x, const Ctx& ctx) {
  if (const std::string why = refusal(p, layer, x); !why.empty()) fail(p.path, why);
  std::vector<Plan> parts;
  for (const HeadRun& r : head_runs(p, p.layers.at(layer), x.problem.group())) {
    const Inputs own = slice(x, r);
    parts.push_back(make_plan(r.method, own, ctx));
    for (const Branch& b : parts.back().branches)
      if (!same_score(b, own))
        fail(p.path, fmt::format("{} changes the scores; a profile's methods choose pairs only",
                                 r.method.record->name));
  }
  Plan plan = plan_by_head(x.problem, parts);
  plan.score(x.score).norm(x.norm);
  const StageTimer timer(ctx, "lower");
  plan.lower(ctx.threads);
  return plan;
}

}  // namespace regard
