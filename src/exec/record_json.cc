#include "exec/record_json.h"

#include <nlohmann/json.hpp>

namespace regard {
namespace {

using Json = nlohmann::ordered_json;

Json value_json(const Value& v) {
  struct {
    Json operator()(bool x) const { return x; }
    Json operator()(int64_t x) const { return x; }
    Json operator()(double x) const { return x; }
    Json operator()(const std::string& x) const { return x; }
    Json operator()(const Tensor&) const { return nullptr; }
  } visit;
  return std::visit(visit, v);
}

// An end of a range in the parameter's own type.
Json bound_json(const Param& p, double x) {
  if (std::holds_alternative<int64_t>(p.value)) return int64_t(x);
  return x;
}

Json param_json(const Param& p) {
  Json j = {{"name", p.name}, {"type", p.type()}, {"default", value_json(p.value)}};
  if (std::holds_alternative<int64_t>(p.value) || std::holds_alternative<double>(p.value)) {
    j["min"] = bound_json(p, p.min);
    j["max"] = bound_json(p, p.max);
  }
  if (!p.choices.empty()) j["choices"] = p.choices;
  j["doc"] = p.doc;
  return j;
}

}  // namespace

std::string record_json(const Record& r, int indent) {
  Json params = Json::array();
  for (const Param& p : r.params) params.push_back(param_json(p));
  const Json j = {
      {"name", r.name},       {"title", r.title},
      {"family", r.family},   {"paper", r.paper},
      {"year", r.year},       {"phase", r.phase},
      {"summary", r.summary}, {"when", r.when},
      {"cost", r.cost},       {"differs", r.differs},
      {"needs", r.needs},     {"prefix", r.prefix},
      {"twin", r.twin},       {"sweep", {{"param", r.sweep.param}, {"values", r.sweep.values}}},
      {"params", params}};
  return j.dump(indent);
}

}  // namespace regard
