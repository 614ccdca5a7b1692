// Errors. Layer: core.
//
// Every refusal is one line that names the operation, what came, and what is accepted.
#pragma once
#include <stdexcept>
#include <string>

namespace regard {

class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& what) : std::runtime_error(what) {}
};

}  // namespace regard
