// Parameter values: from text, checked, and back. Layer: exec.
#pragma once
#include <string>

#include "regard/method.h"

namespace regard {

std::string trimmed(const std::string& text);

// `method` names the speaker in errors. Whole numbers may be written 1e9, floats inf and -inf,
// booleans true, false, on, off, 1, 0; a tensor is "@file.npy" or "@file.safetensors#name".
Value value_from_text(const std::string& method, const Param& p, const std::string& text);

// The value as the parameter's own type, in its range. A whole number serves as a float, a float
// without fraction as a whole number, and text starting with @ as a tensor.
Value checked_value(const std::string& method, const Param& p, const Value& value);

std::string text_of(const Value& value);

}  // namespace regard
