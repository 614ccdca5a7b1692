// A method's record as JSON: what `regard describe --json`, Python and the docs read. Layer: exec.
#pragma once
#include <string>

#include "regard/method.h"

namespace regard {

// {name, title, family, paper, year, phase, summary, when, cost, differs, needs, prefix, twin,
//  params: [{name, type, default, min, max, choices, doc}]}. min and max belong to numbers, choices
// to strings; a tensor's default is null.
std::string record_json(const Record& r, int indent = -1);

}  // namespace regard
