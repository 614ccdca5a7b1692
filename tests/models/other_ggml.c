// Stands in for a ggml of another release: loaded first, its answers are the ones everybody gets.
const char* ggml_version(void) { return "9.9.9"; }
const char* ggml_commit(void) { return "0123abc"; }
