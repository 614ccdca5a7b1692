// The catalogue: one record for each line of catalogue.def. Layer: recipes.
#include "recipes/recipe.h"

namespace regard {

#define REGARD_RECIPE(family, name) const Record& regard_recipe_##name();
#include "recipes/catalogue.def"
#undef REGARD_RECIPE

// Declared and called by exec/method.cc.
std::vector<const Record*> built_in_records() {
  return {
#define REGARD_RECIPE(family, name) &regard_recipe_##name(),
#include "recipes/catalogue.def"
#undef REGARD_RECIPE
  };
}

}  // namespace regard
