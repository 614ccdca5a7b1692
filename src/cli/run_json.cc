#include "cli/run_json.h"

#include <cmath>

namespace regard::cli {
namespace {

using Json = nlohmann::ordered_json;

Json number(double x) { return std::isfinite(x) ? Json(x) : Json(nullptr); }

Json row_json(const Row& r, const Row& llama) {
  Json j;
  j["name"] = r.name;
  j["prefill_s"] = number(r.prefill());
  j["attention_s"] = number(r.attention());
  j["density"] = number(r.pairs.density());
  j["loss"] = number(r.loss);
  j["loss_rise"] = r.compared ? number(r.loss_rise) : Json(nullptr);
  j["kl"] = r.compared ? number(r.kl) : Json(nullptr);
  j["top1"] = r.compared ? number(r.top1) : Json(nullptr);
  j["peak_mib"] = number(r.peak_mib);
  j["exact_calls"] = r.exact_calls.empty() ? Json::object() : Json(r.exact_calls);
  j["calls"] = r.calls;
  j["plan_s"] = number(r.plan());
  j["tile_density"] = number(r.pairs.tile_density());
  j["prefill_speedup"] = number(llama.prefill() / r.prefill());
  j["attention_speedup"] = number(llama.attention() / r.attention());
  j["prefill_s_all"] = r.prefill_s;
  j["attention_s_all"] = r.attention_s;
  return j;
}

}  // namespace

Json results_json(const RunInfo& info, const std::vector<Row>& rows) {
  Json j;
  j["model"] = info.model;
  j["text"] = info.text;
  j["tokens"] = info.tokens;
  j["threads"] = info.threads;
  j["machine"] = info.machine;
  j["rows"] = Json::array();
  for (const Row& r : rows)
    if (r.done()) j["rows"].push_back(row_json(r, rows.front()));
  j["model_description"] = info.model_desc;
  j["date"] = info.date;
  j["regard"] = info.version;
  j["text_tokens"] = info.text_tokens;
  j["ctx"] = info.ctx;
  j["train_ctx"] = info.train_ctx;
  j["beyond_train_ctx"] = info.over_ctx;
  j["ubatch"] = info.ubatch;
  j["kv"] = info.kv;
  j["numeric"] = info.numeric;
  j["layers"] = info.layers;
  j["heads"] = info.heads;
  j["kv_heads"] = info.kv_heads;
  j["scored"] = info.scored;
  j["kl_scored"] = info.kl_scored;
  j["repeat"] = info.repeat;
  j["attention_share"] = number(rows.front().attention() / rows.front().prefill());
  j["best_possible_speedup"] = number(best_possible(rows.front()));
  j["how_measured"] = how_measured(info);
  return j;
}

std::string dump(const Json& j, int indent) {
  return j.dump(indent, ' ', false, Json::error_handler_t::replace);
}

}  // namespace regard::cli
