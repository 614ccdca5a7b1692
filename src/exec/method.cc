// The catalogue, parameters from text and values, and the way from a method to a plan.
#include "regard/method.h"

#include <fmt/format.h>

#include <algorithm>
#include <mutex>

#include "exec/nearest.h"
#include "exec/values.h"
#include "plan/validate.h"

namespace regard {

std::vector<const Record*> built_in_records();  // recipes/catalogue.cc

namespace {

struct Catalogue {
  std::vector<const Record*> sorted = built_in_records();
  std::mutex mutex;  // of add_method
  Catalogue() { sort(); }
  void sort() {
    std::sort(sorted.begin(), sorted.end(),
              [](const Record* a, const Record* b) { return a->name < b->name; });
  }
};

Catalogue& catalogue() {
  static Catalogue c;
  return c;
}

const Param& find_param(const Record& r, const std::string& name) {
  std::vector<std::string> names;
  for (const Param& p : r.params) {
    if (p.name == name) return p;
    names.push_back(p.name);
  }
  if (names.empty())
    throw Error(fmt::format("method {}: no parameter '{}'; it has none", r.name, name));
  throw Error(fmt::format("method {}: no parameter '{}'; accepted: {}", r.name, name,
                          fmt::join(names, ", ")));
}

void set_value(Method* m, const std::string& name, Value value) {
  if (!m->values.emplace(name, std::move(value)).second)
    throw Error(fmt::format("method {}: parameter '{}' is given twice", m->record->name, name));
}

bool needs(const Record& r, const char* what) {
  return std::find(r.needs.begin(), r.needs.end(), what) != r.needs.end();
}

// What the recipe left at its default is the model's.
void apply_model(const Inputs& x, Branch* b) {
  if (x.causal) b->rule.causal = true;
  Score& s = b->score;
  if (s.softcap == 0) s.softcap = x.score.softcap;
  if (s.alibi.empty()) s.alibi = x.score.alibi;
  if (!s.bias) {
    s.bias = x.score.bias;
    s.bias_scale = x.score.bias_scale;
  }
  if (!s.key_bias) s.key_bias = x.score.key_bias;
  if (b->norm.kind == NormKind::softmax) b->norm = x.norm;
  if (!x.numeric.empty()) b->numeric = x.numeric;
}

}  // namespace

const std::vector<const Record*>& methods() { return catalogue().sorted; }

const Record& find_method(const std::string& name) {
  std::vector<std::string> names;
  for (const Record* r : methods()) {
    if (r->name == name) return *r;
    names.push_back(r->name);
  }
  throw Error(fmt::format("method '{}': unknown; nearest: {}", name,
                          fmt::join(nearest(name, names, 3), ", ")));
}

void add_method(Record record) {
  const auto word = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
  };
  if (record.name.empty() || !std::all_of(record.name.begin(), record.name.end(), word))
    throw Error(fmt::format("add method '{}': a name is made of a-z, 0-9 and _", record.name));
  if (!record.plan || !record.make_params)
    throw Error(fmt::format("add method '{}': no function; build it with recipe()", record.name));
  Catalogue& c = catalogue();
  const std::lock_guard<std::mutex> lock(c.mutex);
  for (const Record* r : c.sorted)
    if (r->name == record.name)
      throw Error(fmt::format("add method '{}': the name is taken by '{}'", r->name, r->title));
  c.sorted.push_back(new Record(std::move(record)));  // records live as long as the program
  c.sort();
}

Method parse_method(const std::string& spec) {
  const size_t colon = spec.find(':');
  Method m;
  m.record = &find_method(trimmed(spec.substr(0, colon)));
  if (colon == std::string::npos) return m;
  for (size_t begin = colon + 1; begin <= spec.size();) {
    const size_t end = std::min(spec.find(',', begin), spec.size());
    const std::string item = spec.substr(begin, end - begin);
    const size_t equals = item.find('=');
    if (equals == std::string::npos)
      throw Error(fmt::format("method {}: '{}' in '{}'; accepted: {}:key=value,key=value",
                              m.record->name, item, spec, m.record->name));
    const Param& p = find_param(*m.record, trimmed(item.substr(0, equals)));
    set_value(&m, p.name, value_from_text(m.record->name, p, trimmed(item.substr(equals + 1))));
    begin = end + 1;
  }
  return m;
}

Method make_method(const std::string& name, const std::map<std::string, Value>& values) {
  Method m;
  m.record = &find_method(name);
  for (const auto& [key, value] : values) {
    const Param& p = find_param(*m.record, key);
    set_value(&m, key, checked_value(name, p, value));
  }
  return m;
}

std::string Method::spec() const {
  std::string out = record->name;
  char separator = ':';
  for (const Param& p : record->params) {
    const auto it = values.find(p.name);
    if (it == values.end()) continue;
    out += separator + p.name + "=" + text_of(it->second);
    separator = ',';
  }
  return out;
}

std::string refusal(const Method& m, const Inputs& x) {
  const Record& r = *m.record;
  if (needs(r, "causal") && !x.causal) return "needs causal attention";
  if (needs(r, "square") && (x.problem.nq != x.problem.nk || x.problem.offset != 0))
    return fmt::format("needs all queries at once (nq = nk, offset 0), got {} offset {}",
                       x.problem.str(), x.problem.offset);
  if (needs(r, "single") && !x.problem.cu_q.empty()) return "needs one sequence, not packed ones";
  if (needs(r, "weights"))
    for (const Param& p : r.params)
      if (std::holds_alternative<Tensor>(p.value) && !p.optional && !m.values.count(p.name))
        return fmt::format("needs the tensor '{}' ({})", p.name, p.doc);
  return "";
}

Plan make_plan(const Method& m, const Inputs& x, const Ctx& ctx) {
  x.problem.check();
  if (const std::string why = refusal(m, x); !why.empty())
    throw Error(fmt::format("method {}: {}", m.record->name, why));
  const std::shared_ptr<void> params = m.record->make_params();
  for (const Param& p : m.record->params)
    if (const auto it = m.values.find(p.name); it != m.values.end())
      p.set(params.get(), it->second);
  Plan plan = m.record->plan(ctx, x, params.get());
  for (Branch& b : plan.branches) apply_model(x, &b);
  check_form(plan);
  const StageTimer timer(ctx, "lower");
  plan.lowered = false;
  plan.lower(ctx.threads);
  return plan;
}

}  // namespace regard
