// The module regard._regard: thin, typed by regard/*.py. Layer: integrations.
#include <nanobind/nanobind.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cmath>
#include <limits>
#include <optional>

#include "arrays.h"
#include "exec/planted.h"
#include "exec/record_json.h"
#include "regard/run.h"
#include "regard/status.h"

namespace regard::python {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

Inputs inputs_of(const Array& q, const Array& k, const Array& v, bool causal,
                 std::optional<float> scale, const std::string& numeric) {
  if (scale && !std::isfinite(*scale))
    throw Error("scale must be finite, got " + std::to_string(*scale));
  Inputs x;
  x.q = q.view, x.k = k.view, x.v = v.view;
  x.problem = Problem::of_views(x.q, x.k, x.v, scale.value_or(kNan));
  x.causal = causal;
  x.numeric = numeric;
  return x;
}

Ctx context(int threads, Trace* trace, uint64_t stream) {
  if (threads < 0 || threads > 4096)
    throw Error("threads must be 0 (all) or 1 to 4096, got " + std::to_string(threads));
  return {threads ? threads : hardware_threads(), trace, reinterpret_cast<void*>(stream)};
}

// A plan and what making it took.
struct Planned {
  Plan plan;
  std::string spec;
  Trace trace;
};

Planned plan_of(const Array& q, const Array& k, const Array& v, const std::string& method,
                const nb::dict& params, bool causal, std::optional<float> scale,
                const std::string& numeric, int threads, uint64_t stream) {
  Method m = method.find(':') == method.npos ? make_method(method, values_of(params))
                                             : parse_method(method);
  if (method.find(':') != method.npos && params.size() > 0)
    throw Error("method '" + method + "': give parameters in the text or by name, not both");
  const Inputs x = inputs_of(q, k, v, causal, scale, numeric);
  Planned out;
  out.spec = m.spec();
  const nb::gil_scoped_release free;
  out.plan = make_plan(m, x, context(threads, &out.trace, stream));
  return out;
}

Out out_of(const Array& out, const Array* lse, const Array* mass) {
  Out o;
  o.out = out.view;
  if (lse) o.lse = lse->view;
  if (mass) o.column_mass = mass->view;
  return o;
}

nb::dict trace_dict(const Trace& t) {
  nb::dict d;
  d["implementation"] = t.chosen;
  d["seconds"] = nb::cast(t.seconds);
  d["fallbacks"] = nb::cast(t.fallbacks);
  return d;
}

nb::dict run_plan(const Planned& p, const Array& q, const Array& k, const Array& v,
                  const Array& out, const Array* lse, const Array* mass, int threads,
                  const std::string& impl, bool strict, uint64_t stream) {
  Trace trace;
  {
    const nb::gil_scoped_release free;
    attend(p.plan, q.view, k.view, v.view, out_of(out, lse, mass),
           {threads, impl, strict, &trace, reinterpret_cast<void*>(stream)});
  }
  return trace_dict(trace);
}

std::vector<nb::tuple> explain_plan(const Planned& p, const Array& q, const Array& k,
                                    const Array& v, const Array& out, const Array* lse,
                                    const Array* mass, int threads, const std::string& impl) {
  std::vector<nb::tuple> list;
  for (const Choice& c : explain(p.plan, q.view, k.view, v.view, out_of(out, lse, mass),
                                 {threads, impl, false, nullptr, nullptr}))
    list.push_back(nb::make_tuple(c.name, c.chosen, c.refusal));
  return list;
}

using Bytes = nb::ndarray<uint8_t, nb::c_contig, nb::device::cpu>;

// out: [B, heads, nq, nk], zeros. A pooled or given key stands for the tokens of its block.
void mask_into(const Planned& p, const Bytes& out) {
  uint8_t* const row = out.data();
  const nb::gil_scoped_release free;
  const Problem& s = p.plan.problem;
  for (size_t n = 0; n < p.plan.branches.size(); ++n) {
    const BitMask m = expand(p.plan, int(n));
    const Source& source = p.plan.branches[n].source;
    const int64_t block = source.kind == SourceKind::raw ? 1 : source.block;
    const int64_t stride = source.kind == SourceKind::given ? source.stride : block;
    for (int64_t b = 0; b < s.batch; ++b)
      for (int64_t h = 0; h < s.heads; ++h)
        for (int64_t i = 0; i < s.nq; ++i) {
          uint8_t* keys = &row[((b * s.heads + h) * s.nq + i) * s.nk];
          for (int64_t j = 0; j < m.nk; ++j)
            for (int64_t t = j * stride;
                 m.get(b, h, i, j) && t < std::min(j * stride + block, s.nk); ++t)
              keys[t] = 1;
        }
  }
}

const IndexList& tile_list(const Planned& p) {
  for (const Branch& b : p.plan.branches)
    if (b.cover.kind == CoverKind::tiles) return *b.cover.list;
  throw Error("tiles: this plan has no tiles; its mask() and describe() tell what it covers");
}

std::vector<int64_t> tile_shape(const Planned& p) {
  const IndexList& l = tile_list(p);
  return {l.rows, l.cols, l.bq, l.bk};
}

// out: [rows, cols], zeros.
void tiles_into(const Planned& p, int64_t b, int64_t head, const Bytes& out) {
  const IndexList& l = tile_list(p);
  const Problem& s = p.plan.problem;
  if (b < 0 || b >= s.batch || head < 0 || head >= s.heads)
    throw Error("tiles: no batch item " + std::to_string(b) + ", head " + std::to_string(head) +
                " in " + s.str());
  for (int64_t r = 0; r < l.rows; ++r) {
    const int64_t id = l.row_id(b, head, r, s.heads);
    for (int64_t e = l.start[size_t(id)]; e < l.start[size_t(id) + 1]; ++e)
      out.data()[r * l.cols + int64_t(l.index[size_t(e)] & ~IndexList::kBoundary)] = 1;
  }
}

nb::dict cost_dict(const Planned& p) {
  const Cost c = cost(p.plan);
  nb::dict d;
  d["pairs"] = c.pairs;
  d["exact_pairs"] = c.causal_pairs;
  d["tile_pairs"] = c.tile_pairs;
  d["tiles"] = c.tiles;
  d["flops"] = c.flops;
  d["bytes"] = c.bytes;
  d["density"] = c.density();
  d["head_pairs"] = c.head_pairs;
  return d;
}

nb::dict problem_dict(const Planned& p) {
  const Problem& s = p.plan.problem;
  nb::dict d;
  d["batch"] = s.batch, d["heads"] = s.heads, d["kv_heads"] = s.kv_heads;
  d["nq"] = s.nq, d["nk"] = s.nk, d["dk"] = s.dk, d["dv"] = s.dv;
  d["scale"] = s.scale, d["offset"] = s.offset;
  return d;
}

std::string picture(const Planned& p, int64_t head, int size) {
  if (head < 0 || head >= p.plan.problem.heads || size < 1)
    throw Error("svg: head " + std::to_string(head) + ", size " + std::to_string(size) + " of " +
                p.plan.problem.str());
  return svg(p.plan, head, size);
}

struct Made {
  Planted planted;
  Problem problem;
};

Made make_planted(const std::string& name, int64_t batch, int64_t heads, int64_t kv_heads,
                  int64_t nq, int64_t nk, int64_t dk, int64_t dv, uint64_t seed) {
  Problem p;
  p.batch = batch, p.heads = heads, p.kv_heads = kv_heads;
  p.nq = nq, p.nk = nk, p.dk = dk, p.dv = dv, p.offset = nk - nq, p.scale = 1;
  p.check();
  const nb::gil_scoped_release free;
  return {planted(name, p, seed), p};
}

// The tensor's memory; numpy keeps the owner alive through the capsule.
nb::ndarray<nb::numpy, float> numpy_of(const Tensor& t) {
  auto* keep = new std::shared_ptr<const void>(t.owner);
  const nb::capsule owner(
      keep, [](void* p) noexcept { delete static_cast<std::shared_ptr<const void>*>(p); });
  size_t shape[4];
  for (size_t i = 0; i < 4; ++i) shape[i] = size_t(t.view.size[i]);
  return {t.view.data, 4, shape, owner};
}

// out: [B, heads, nq, nk]
void planted_mask_into(const Made& m, const Bytes& out) {
  uint8_t* next = out.data();
  const Problem& s = m.problem;
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t h = 0; h < s.heads; ++h)
      for (int64_t i = 0; i < s.nq; ++i)
        for (int64_t j = 0; j < s.nk; ++j) *next++ = uint8_t(m.planted.keeps(b, h, i, j));
}

// bfloat16 for those who have it: an object with __dlpack__ over 16-bit integers.
nb::ndarray<nb::array_api> as_bfloat16(nb::object owner, uint64_t address,
                                       const std::vector<size_t>& shape) {
  const nb::dlpack::dtype type{uint8_t(nb::dlpack::dtype_code::Bfloat), 16, 1};
  return {reinterpret_cast<void*>(address),
          shape.size(),
          shape.data(),
          owner,
          nullptr,
          type,
          nb::device::cpu::value};
}

void define_plan(nb::module_& m) {
  nb::class_<Planned>(m, "Planned")
      .def(nb::new_(&plan_of))
      .def_static("from_json",
                  [](const std::string& text) {
                    return Planned{plan_from_json(text), "", {}};
                  })
      .def("json", [](const Planned& p) { return to_json(p.plan); })
      .def("describe", [](const Planned& p) { return describe(p.plan); })
      .def("hash", [](const Planned& p) { return hash(p.plan); })
      .def("cost", &cost_dict)
      .def("problem", &problem_dict)
      .def("svg", &picture)
      .def("mask_into", &mask_into)
      .def("tile_shape", &tile_shape)
      .def("tiles_into", &tiles_into)
      .def_ro("spec", &Planned::spec)
      .def_prop_ro("trace", [](const Planned& p) { return trace_dict(p.trace); })
      .def("attend", &run_plan, nb::arg("q"), nb::arg("k"), nb::arg("v"), nb::arg("out"),
           nb::arg("lse").none(), nb::arg("mass").none(), nb::arg("threads"), nb::arg("impl"),
           nb::arg("strict"), nb::arg("stream"))
      .def("explain", &explain_plan, nb::arg("q"), nb::arg("k"), nb::arg("v"), nb::arg("out"),
           nb::arg("lse").none(), nb::arg("mass").none(), nb::arg("threads"), nb::arg("impl"));
}

}  // namespace

NB_MODULE(_regard, m) {
  nb::exception<Error>(m, "Error", PyExc_ValueError);

  nb::class_<Array>(m, "Array")
      .def_prop_ro("shape", &Array::shape)
      .def_prop_ro("dtype", [](const Array& a) { return std::string(info(a.view.dtype).name); })
      .def_prop_ro("cuda", [](const Array& a) { return a.view.device == Device::cuda; })
      .def("__repr__", [](const Array& a) { return a.view.shape(); });
  m.def("array_from_address", &array_from_address);
  m.def("array_from_dlpack", &array_from_dlpack);
  m.def("as_bfloat16", &as_bfloat16);

  define_plan(m);

  m.def("methods", [] {
    std::vector<std::string> names;
    for (const Record* r : methods()) names.push_back(r->name);
    return names;
  });
  m.def("record", [](const std::string& name) { return record_json(find_method(name)); });

  nb::class_<Made>(m, "Made")
      .def(nb::new_(&make_planted))
      .def_prop_ro(
          "q", [](const Made& x) { return numpy_of(x.planted.q); }, nb::rv_policy::move)
      .def_prop_ro(
          "k", [](const Made& x) { return numpy_of(x.planted.k); }, nb::rv_policy::move)
      .def_prop_ro(
          "v", [](const Made& x) { return numpy_of(x.planted.v); }, nb::rv_policy::move)
      .def("mask_into", &planted_mask_into);
  m.def("planted_kinds", [] {
    std::map<std::string, std::string> out;
    for (const PlantedKind& k : planted_kinds()) out[k.name] = k.structure;
    return out;
  });

  m.def("cpu_target", &cpu_target);
  m.def("hardware_threads", &hardware_threads);
  m.attr("version") = version();
}

}  // namespace regard::python
