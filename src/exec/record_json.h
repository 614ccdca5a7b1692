// A method's record as JSON: what `regard describe --json`, Python and the docs read. Layer: exec.
#pragma once
#include <string>

#include "regard/method.h"

namespace regard {

// {name, title, family, paper, year, phase, summary, when, cost, differs, needs, prefix, twin,
//  params: [{name, type, default, min, max, choices, doc}]}. min and max belong to numbers, choices
// to strings; a number without bound or default has null there, as has a tensor's default.
std::string record_json(const Record& r, int indent = -1);

}  // namespace regard
