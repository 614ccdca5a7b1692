// Names like a mistyped one. Layer: exec.
#pragma once
#include <string>
#include <vector>

namespace regard {

// Up to `count` names nearest to `word`: fewest insertions, deletions, substitutions and swaps of
// neighbours, none more than two worse than the best; a name that begins with the word, or the
// other way round, counts as 0.
std::vector<std::string> nearest(const std::string& word, std::vector<std::string> names,
                                 size_t count);

}  // namespace regard
