// The reference: any plan on any view, naive, fp64 inside, its own masks. Layer: ref.
#pragma once
#include "regard/out.h"
#include "regard/plan.h"

namespace regard::ref {

void attend(const Plan& plan, const View& q, const View& k, const View& v, const Out& out,
            int threads);

}  // namespace regard::ref
