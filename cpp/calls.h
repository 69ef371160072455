// Which functions a module calls, and refers to.
#pragma once

#include "bridge.h"

namespace fork_instrument {

struct CallSite;
struct Reference;

// Every function reference outside of function bodies: element segments, global and table initializers. What a table
// takes from a global is that global's.
rust::Vec<Reference> list_references(Module& module);

// Every call, function reference and table write in function bodies, in order of functions; collected on Binaryen's
// threads.
rust::Vec<CallSite> list_calls(Module& module);

// What one call expression calls. Panics on other expressions.
CallSite describe_call(size_t call);

// Whether a function of heap type `callee` can be called through the heap type `expected`.
bool is_sub_type(size_t callee, size_t expected);

} // namespace fork_instrument
