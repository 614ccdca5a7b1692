// regard list: the catalogue.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/verbs.h"
#include "exec/record_json.h"
#include "regard/method.h"

namespace regard::cli {
namespace {

struct Arguments {
  bool json = false;
};

void list(const Arguments& a) {
  if (a.json) {
    auto all = nlohmann::ordered_json::array();
    for (const Record* r : methods()) all.push_back(nlohmann::ordered_json::parse(record_json(*r)));
    fmt::print("{}\n", all.dump(2));
    return;
  }
  size_t name = 4, family = 6;
  for (const Record* r : methods()) {
    name = std::max(name, r->name.size());
    family = std::max(family, r->family.size());
  }
  for (const Record* r : methods())
    fmt::print("{:<{}}  {:<{}}  {:<7}  {}\n", r->name, name, r->family, family, r->phase, r->title);
}

}  // namespace

void add_list(CLI::App& app) {
  CLI::App* verb = app.add_subcommand("list", "List the methods: name, family, phase, title");
  auto a = std::make_shared<Arguments>();
  verb->add_flag("--json", a->json, "every record in full, as JSON");
  verb->footer("Example:\n  regard list");
  verb->callback([a] { list(*a); });
}

}  // namespace regard::cli
