// Comparing stretches of code, and moving them into functions.
#pragma once

#include "bridge.h"

namespace fork_instrument {

struct LivenessPoint;

// The number of expressions in a function.
size_t count_expressions(Function& func);

// For each point, in ascending order: 0 if the local is dead behind the expression, 1 if it is live, 2 if control
// cannot reach the end of the expression. Of a call, behind its return. No expression is a `try`. Nothing if the
// analysis has replaced code, which cannot be reached.
rust::Vec<uint8_t> live_after(Module& module, Function& func, rust::Slice<const LivenessPoint> points);

// Whether two expressions are equal but for their leaves, which are `local.get`s and constants, and for the locals that
// they set.
bool equal_in_form(size_t left, size_t right);

// Lets an expression use the locals `to` instead of the locals `from`. For each `local.get`, `local.set` and constant,
// in order of execution, there is a local in `leaves` that is read instead, or UINT32_MAX. `next` is where in that list
// the expression's begin, and then where they end. Gives what the expression is then.
size_t generalize(Module& module, size_t expression, rust::Slice<const uint32_t> from, rust::Slice<const uint32_t> to,
                  rust::Slice<const uint32_t> leaves, size_t& next);

// Puts an expression in the place of so many children of a block, from `first` on.
void replace_children(size_t block, size_t first, size_t count, size_t replacement);

} // namespace fork_instrument
