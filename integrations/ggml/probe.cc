#include "probe.h"

#include <cstring>

namespace regard::ggml {
namespace {

// A context asks on the thread that makes it; others may be at work on theirs meanwhile.
thread_local bool probing = false;
thread_local int64_t probe_queries = 0;

}  // namespace

void begin_probe() {
  probing = true;
  probe_queries = 0;
}

bool in_probe(const ggml_tensor* node) {
  if (!probing) return false;
  const ggml_tensor *q = node->src[0], *k = node->src[1], *cache = k;
  while (cache->view_src) cache = cache->view_src;
  if (std::strncmp(cache->name, "cache_k", 7)) return false;
  const int64_t queries = q->ne[1] * q->ne[3];
  if (!probe_queries) probe_queries = queries;
  probing = queries == probe_queries && k->ne[1] == cache->ne[1];
  return probing;
}

}  // namespace regard::ggml
