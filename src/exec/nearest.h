// Names like a mistyped one. Layer: exec.
#pragma once
#include <string>
#include <vector>

namespace regard {

// The `count` names nearest to `word`: fewest insertions, deletions, substitutions and swaps of
// neighbours; a name that begins with the word, or the other way round, comes first.
std::vector<std::string> nearest(const std::string& word, std::vector<std::string> names,
                                 size_t count);

}  // namespace regard
