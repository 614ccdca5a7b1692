// Methods: records, parameters, the catalogue. Layer: exec.
//
// A method is a record and a plain function that turns inputs into a Plan. Recipes inside the
// library are listed in src/recipes/catalogue.def; an application adds its own with add_method().
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "regard/ctx.h"
#include "regard/inputs.h"
#include "regard/plan.h"
#include "regard/status.h"

namespace regard {

using Value = std::variant<bool, int64_t, double, std::string, Tensor>;

struct Param {
  std::string name;
  std::string doc;                   // meaning and unit
  Value value;                       // the default
  double min = 0, max = 0;           // numbers: inclusive range
  std::vector<std::string> choices;  // strings: the accepted words; empty = any
  std::function<void(void*, const Value&)> set;
  bool optional = false;     // tensors: "weights" does not ask for it
  const char* type() const;  // "bool", "int", "float", "string", "tensor"
};

// The parameter that trades time for faithfulness, and a few values of it, from the sparsest on.
struct Sweep {
  std::string param{};  // empty: the defaults only
  std::vector<double> values{};
};

// Every member has an initializer, so that a record may name only the fields it has.
struct Record {
  std::string name{}, title{}, family{};
  std::string paper{};  // authors, title, venue, arXiv id
  int year = 0;
  std::string phase = "any";  // "prefill", "decode", "train" or "any"
  std::string summary{};      // what it does, in plain words
  std::string when{};         // when to use it, and when not
  std::string cost{};         // what planning and running cost
  std::string differs{};      // where the authors' code and the paper differ, and what we follow
  // "causal", "square" (nq == nk, offset 0), "single" (one sequence, not packed ones), "weights"
  // (its tensor parameters must be given, but for the optional ones)
  std::vector<std::string> needs{};
  bool prefix = false;  // output of a row depends on no later query or key (prefill == decode)
  std::string twin{};   // parameters at which the method equals exact attention: "threshold=2"
  Sweep sweep{};        // what `regard frontier` tries
  std::vector<Param> params{};
  std::function<std::shared_ptr<void>()> make_params{};
  std::function<Plan(const Ctx&, const Inputs&, const void* params)> plan{};
};

// One parameter of struct P. Numbers: inclusive range.
template <class P, class T>
Param param(const char* name, T P::*field, double min, double max, const char* doc) {
  const P defaults;
  Param out{name, doc, Value(defaults.*field), min, max, {}, nullptr};
  out.set = [field](void* p, const Value& v) { static_cast<P*>(p)->*field = std::get<T>(v); };
  return out;
}
template <class P>
Param param(const char* name, bool P::*field, const char* doc) {
  return param<P, bool>(name, field, 0, 1, doc);
}
template <class P>
Param param(const char* name, Tensor P::*field, const char* doc) {
  return param<P, Tensor>(name, field, 0, 0, doc);
}
template <class P>
Param param(const char* name, std::string P::*field, std::vector<std::string> choices,
            const char* doc) {
  Param out = param<P, std::string>(name, field, 0, 0, doc);
  out.choices = std::move(choices);
  return out;
}

inline Param optional(Param p) {
  p.optional = true;
  return p;
}

// Completes a record with its parameter struct and its function.
template <class P>
Record recipe(Record r, Plan (*plan)(const Ctx&, const Inputs&, const P&),
              std::vector<Param> params) {
  r.params = std::move(params);
  r.make_params = [] { return std::static_pointer_cast<void>(std::make_shared<P>()); };
  r.plan = [plan](const Ctx& c, const Inputs& x, const void* p) {
    return plan(c, x, *static_cast<const P*>(p));
  };
  return r;
}

// A record with values chosen.
struct Method {
  const Record* record = nullptr;
  std::map<std::string, Value> values;  // only those set; the rest are defaults
  std::string spec() const;             // "xattention:threshold=0.9,block=128"
};

const std::vector<const Record*>& methods();         // sorted by name
const Record& find_method(const std::string& name);  // Error offers the nearest names
void add_method(Record record);                      // Error if the name is taken

// "name" or "name:key=value,key=value". A tensor's value is "@file.npy" or
// "@file.safetensors#tensor". Error names unknown parameters, types and ranges.
Method parse_method(const std::string& spec);
Method make_method(const std::string& name, const std::map<std::string, Value>& values);

// Empty if the method may run on these inputs, else the reason ("needs causal attention").
std::string refusal(const Method& m, const Inputs& x);

// The method's plan with the model's causality, score and norm applied, lowered. Throws Error with
// the reason where it cannot run.
Plan make_plan(const Method& m, const Inputs& x, const Ctx& ctx);

}  // namespace regard
