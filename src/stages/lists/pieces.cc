// Sequences cut into pieces. See lists.h.
#include <algorithm>

#include "stages/lists.h"

namespace regard::lists {

std::vector<int64_t> cuts(int64_t first, int64_t size, int64_t last) {
  std::vector<int64_t> out;
  for (int64_t at = first; at < last; at += size) out.push_back(at);
  out.push_back(last);
  return out;
}

Range piece(const std::vector<int64_t>& starts, int64_t n, int64_t position) {
  const auto next = std::upper_bound(starts.begin(), starts.end(), position);
  return {next == starts.begin() ? 0 : *(next - 1), next == starts.end() ? n : *next};
}

}  // namespace regard::lists
