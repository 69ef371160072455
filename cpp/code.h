// Reading a function instruction by instruction, for whoever executes it on values that are not all known.
#pragma once

#include "bridge.h"

namespace fork_instrument {

struct Code;
struct TableSegment;

// All expressions of the body in post-order, with what they name.
Code read_code(Function& func);

// The number that stands for a name in `Code`.
size_t intern_name(rust::Str name);
rust::String name_text(size_t name);

// Computes an expression on constants in place of its children. False if it traps, if it is a NaN, whose bits engines
// choose, or if it is not one of numbers alone.
bool fold_constants(size_t expression, rust::Slice<const uint64_t> operands, uint64_t& result);

// Active element segments, function references only; anything else in them is an empty name.
rust::Vec<TableSegment> list_table_segments(const Module& module);

// The bytes of a data segment; none if there is no such segment.

} // namespace fork_instrument
