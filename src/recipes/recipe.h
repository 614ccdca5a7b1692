// What every recipe file includes. Layer: recipes.
#pragma once
#include "regard/method.h"
#include "regard/plan.h"
#include "stages/estimate.h"
#include "stages/select.h"

// Defines the function that src/recipes/catalogue.cc calls for a line of catalogue.def.
#define REGARD_DEFINE_RECIPE(name) const ::regard::Record& regard_recipe_##name()
