// Comparing stretches of code, and moving them into functions.
#pragma once

#include "bridge.h"

namespace fork_instrument {

// Whether two expressions are equal but for the locals that they use, which correspond to each other, one to one. `pairs`
// holds those of expressions in front, and gets these: a local on the left, one on the right, and so on.
bool equal_but_for_locals(size_t left, size_t right, rust::Vec<uint32_t>& pairs);

// Lets an expression use the locals `to` instead of the locals `from`, which are all that it uses.
void renumber_locals(size_t expression, rust::Slice<const uint32_t> from, rust::Slice<const uint32_t> to);

// Puts an expression in the place of so many children of a block, from `first` on.
void replace_children(size_t block, size_t first, size_t count, size_t replacement);

} // namespace fork_instrument
