// Plans as JSON, and their hash.
#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

#include "regard/plan.h"
#include "regard/status.h"

namespace regard {
namespace {

using Json = nlohmann::json;

constexpr const char* kFormat = "regard-plan-1";
constexpr const char* kSources[] = {"raw", "pooled", "given"};
constexpr const char* kCovers[] = {"all", "band", "tiles", "columns"};
constexpr const char* kWeights[] = {"exponential", "softmax", "elu", "relu", "random"};
constexpr const char* kNorms[] = {"softmax", "softmax_sink", "sigmoid"};
constexpr const char* kCombines[] = {"only", "same", "gated"};

template <size_t N>
int index_of(const char* const (&names)[N], const std::string& name) {
  for (size_t i = 0; i < N; ++i)
    if (name == names[i]) return int(i);
  throw Error(fmt::format("plan JSON: unknown word '{}'", name));
}

// JSON has no infinities: they travel as words.
Json number(double x) {
  if (std::isfinite(x)) return x;
  return std::isnan(x) ? "nan" : x > 0 ? "inf" : "-inf";
}
double number(const Json& j) {
  if (j.is_number()) return j.get<double>();
  const std::string s = j.get<std::string>();
  if (s == "inf") return std::numeric_limits<double>::infinity();
  if (s == "-inf") return -std::numeric_limits<double>::infinity();
  if (s == "nan") return std::numeric_limits<double>::quiet_NaN();
  throw Error(fmt::format("plan JSON: '{}' is no number", s));
}

Json numbers(const std::vector<float>& x) {
  Json j = Json::array();
  for (float f : x) j.push_back(number(f));
  return j;
}
std::vector<float> numbers(const Json& j) {
  std::vector<float> x;
  for (const Json& e : j) x.push_back(float(number(e)));
  return x;
}

Json window(const Window& w) { return Json::array({w.left, w.right, w.sink}); }
Window window(const Json& j) { return {j.at(0), j.at(1), j.at(2)}; }

Json tensor(const Tensor& t) {
  if (!t) return nullptr;
  const View& v = t.view;
  Json values = Json::array();
  std::vector<float> row(size_t(v.size[3]));
  for (int64_t a = 0; a < v.size[0]; ++a)
    for (int64_t b = 0; b < v.size[1]; ++b)
      for (int64_t c = 0; c < v.size[2]; ++c) {
        read_row(v, a, b, c, row.data());
        for (float f : row) values.push_back(number(f));
      }
  return {{"dtype", info(v.dtype).name}, {"size", v.size}, {"values", std::move(values)}};
}
Tensor tensor(const Json& j) {
  if (j.is_null()) return {};
  const DType dtype = parse_dtype(j.at("dtype"));
  if (info(dtype).block != 1) throw Error("plan JSON: tensors cannot be quantised");
  const auto size = j.at("size").get<std::array<int64_t, 4>>();
  const std::vector<float> values = numbers(j.at("values"));
  int64_t n = 1;
  for (int64_t s : size) n = s < 0 || (s && n > int64_t(values.size())) ? -1 : n * s;
  if (n != int64_t(values.size())) throw Error("plan JSON: tensor size and values differ");
  Tensor t = make_tensor(dtype, size);
  const float* next = values.data();
  for (int64_t a = 0; a < size[0]; ++a)
    for (int64_t b = 0; b < size[1]; ++b)
      for (int64_t c = 0; c < size[2]; ++c, next += size[3]) write_row(t.view, a, b, c, next);
  return t;
}

Json permutation(const Permutation& p) {
  return {{"batch", p.batch}, {"heads", p.heads}, {"n", p.n}, {"token", p.token}};
}
std::shared_ptr<const Permutation> permutation(const Json& j) {
  auto p = std::make_shared<Permutation>();
  p->batch = j.at("batch"), p->heads = j.at("heads"), p->n = j.at("n");
  p->token = j.at("token").get<std::vector<uint32_t>>();
  return p;
}

Json branch(const Branch& b) {
  Json j;
  j["source"] = {{"kind", kSources[int(b.source.kind)]}, {"block", b.source.block}};
  Json& c = j["cover"] = {{"kind", kCovers[int(b.cover.kind)]}};
  if (b.cover.kind == CoverKind::band) c["band"] = window(b.cover.band);
  if (const IndexList* l = b.cover.list.get())
    c["list"] = {{"batch", l->batch}, {"heads", l->heads}, {"rows", l->rows},
                 {"cols", l->cols},   {"bq", l->bq},       {"bk", l->bk},
                 {"start", l->start}, {"index", l->index}};
  if (b.cover.list && !b.cover.list->list_of.empty()) c["list"]["list_of"] = b.cover.list->list_of;
  if (b.order.queries) j["order"]["queries"] = permutation(*b.order.queries);
  if (b.order.keys) j["order"]["keys"] = permutation(*b.order.keys);
  Json& r = j["rule"] = {{"causal", b.rule.causal}, {"window", window(b.rule.window)}};
  if (const BitMask* m = b.rule.mask.get())
    r["mask"] = {{"batch", m->batch},
                 {"heads", m->heads},
                 {"nq", m->nq},
                 {"nk", m->nk},
                 {"words", m->words}};
  j["score"] = {{"softcap", number(b.score.softcap)},
                {"alibi", numbers(b.score.alibi)},
                {"bias", tensor(b.score.bias)},
                {"bias_scale", numbers(b.score.bias_scale)},
                {"key_bias", tensor(b.score.key_bias)}};
  j["norm"] = {{"kind", kNorms[int(b.norm.kind)]},
               {"sink", numbers(b.norm.sink)},
               {"shift", number(b.norm.shift)}};
  if (b.source.value_map) j["source"]["value_map"] = tensor(b.source.value_map);
  if (b.source.kind == SourceKind::given) {
    j["source"]["stride"] = b.source.stride;
    j["source"]["keys"] = tensor(b.source.keys);
    j["source"]["values"] = tensor(b.source.values);
  }
  if (b.weight.kind != WeightKind::exponential)
    j["weight"] = {{"kind", kWeights[int(b.weight.kind)]},
                   {"directions", tensor(b.weight.directions)}};
  if (b.value_skip > 0) j["value_skip"] = b.value_skip;
  j["numeric"] = b.numeric;
  return j;
}

Branch branch(const Json& j) {
  Branch b;
  b.source.kind = SourceKind(index_of(kSources, j.at("source").at("kind")));
  b.source.block = j.at("source").at("block");
  if (j["source"].contains("value_map")) b.source.value_map = tensor(j["source"]["value_map"]);
  if (b.source.kind == SourceKind::given) {
    b.source.stride = j["source"].at("stride");
    b.source.keys = tensor(j["source"].at("keys"));
    b.source.values = tensor(j["source"].at("values"));
  }
  if (j.contains("weight")) {
    b.weight.kind = WeightKind(index_of(kWeights, j["weight"].at("kind")));
    b.weight.directions = tensor(j["weight"].at("directions"));
  }
  if (j.contains("value_skip")) b.value_skip = float(number(j["value_skip"]));
  const Json& c = j.at("cover");
  b.cover.kind = CoverKind(index_of(kCovers, c.at("kind")));
  if (c.contains("band")) b.cover.band = window(c["band"]);
  if (c.contains("list")) {
    const Json& l = c["list"];
    auto list = std::make_shared<IndexList>();
    list->batch = l.at("batch"), list->heads = l.at("heads");
    list->rows = l.at("rows"), list->cols = l.at("cols");
    list->bq = l.at("bq"), list->bk = l.at("bk");
    list->start = l.at("start").get<std::vector<int64_t>>();
    list->index = l.at("index").get<std::vector<uint32_t>>();
    if (l.contains("list_of")) list->list_of = l["list_of"].get<std::vector<uint32_t>>();
    b.cover.list = list;
  }
  if (j.contains("order")) {
    const Json& o = j["order"];
    if (o.contains("queries")) b.order.queries = permutation(o["queries"]);
    if (o.contains("keys")) b.order.keys = permutation(o["keys"]);
  }
  const Json& r = j.at("rule");
  b.rule.causal = r.at("causal");
  b.rule.window = window(r.at("window"));
  if (r.contains("mask")) {
    const Json& m = r["mask"];
    auto mask = std::make_shared<BitMask>();
    mask->batch = m.at("batch"), mask->heads = m.at("heads");
    mask->nq = m.at("nq"), mask->nk = m.at("nk");
    mask->words = m.at("words").get<std::vector<uint64_t>>();
    b.rule.mask = mask;
  }
  const Json& s = j.at("score");
  b.score.softcap = float(number(s.at("softcap")));
  b.score.alibi = numbers(s.at("alibi"));
  b.score.bias = tensor(s.at("bias"));
  b.score.bias_scale = numbers(s.at("bias_scale"));
  b.score.key_bias = tensor(s.at("key_bias"));
  b.norm.kind = NormKind(index_of(kNorms, j.at("norm").at("kind")));
  b.norm.sink = numbers(j.at("norm").at("sink"));
  b.norm.shift = float(number(j.at("norm").at("shift")));
  b.numeric = j.at("numeric");
  return b;
}

}  // namespace

std::string to_json(const Plan& plan) {
  const Problem& p = plan.problem;
  Json j;
  j["format"] = kFormat;
  j["problem"] = {{"batch", p.batch}, {"heads", p.heads}, {"kv_heads", p.kv_heads},
                  {"nq", p.nq},       {"nk", p.nk},       {"dk", p.dk},
                  {"dv", p.dv},       {"scale", p.scale}, {"offset", p.offset},
                  {"cu_q", p.cu_q},   {"cu_k", p.cu_k}};
  j["combine"] = kCombines[int(plan.combine)];
  j["gate"] = tensor(plan.gate);
  for (const Branch& b : plan.branches) j["branches"].push_back(branch(b));
  return j.dump();
}

Plan plan_from_json(const std::string& text) try {
  const Json j = Json::parse(text);
  if (j.at("format") != kFormat)
    throw Error(fmt::format("plan JSON: format {}; accepted: {}", j.at("format").dump(), kFormat));
  Plan plan;
  Problem& p = plan.problem;
  const Json& in = j.at("problem");
  p.batch = in.at("batch"), p.heads = in.at("heads"), p.kv_heads = in.at("kv_heads");
  p.nq = in.at("nq"), p.nk = in.at("nk"), p.dk = in.at("dk"), p.dv = in.at("dv");
  p.scale = in.at("scale"), p.offset = in.at("offset");
  p.cu_q = in.at("cu_q").get<std::vector<int64_t>>();
  p.cu_k = in.at("cu_k").get<std::vector<int64_t>>();
  plan.combine = Combine(index_of(kCombines, j.at("combine")));
  plan.gate = tensor(j.at("gate"));
  for (const Json& b : j.at("branches")) plan.branches.push_back(branch(b));
  plan.validate();
  plan.lowered = false;  // boundary marks are recomputed rather than believed
  return plan;
} catch (const Json::exception& e) {
  throw Error(fmt::format("plan JSON: {}", e.what()));
}

uint64_t hash(const Plan& plan) {
  Plan canonical = plan;
  canonical.lower();
  uint64_t h = 0xcbf29ce484222325;  // FNV-1a, 64 bits
  for (unsigned char c : to_json(canonical)) h = (h ^ c) * 0x100000001b3;
  return h;
}

}  // namespace regard
