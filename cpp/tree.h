// Reading and rewriting one function's expression tree.
#pragma once

#include <vector>

#include "bridge.h"

namespace fork_instrument {

struct Node;
struct TryTableClauses;

// All expressions of the body in post-order (children in order of execution, then their parent).
rust::Vec<Node> list_nodes(Function& func);
std::vector<Node> nodes_of(Function& func);

// Only the expressions, in the same order.
rust::Vec<size_t> list_expressions(Function& func);

// The child at a position of the order of execution.
size_t get_child(size_t parent, uint32_t index);
void set_child(size_t parent, uint32_t index, size_t child);

// A copy, for `to`, of code of `from`, with debug locations and code annotations; but expressions in `left_out` are put
// into the copy themselves, for the caller to replace.
size_t copy_code(Module& module, Function& from, Function& to, size_t expression, rust::Slice<const size_t> left_out);

// Gives `replacement`, in `to`, the debug location of `original`, in `from`.
void copy_location(Function& from, Function& to, size_t original, size_t replacement);

// A block; its type is computed from its contents unless one is given. A type that is given to a block with a label
// (which can be empty) stays as it is, even where nothing reaches the end: Binaryen would walk all that is inside in
// search of a branch. Lists are as long as they must be, which the C API's are not.
size_t make_block(Module& module, rust::Str label, rust::Slice<const size_t> children, bool has_type, size_t type);
size_t make_call(Module& module, rust::Str function, rust::Slice<const size_t> operands, size_t results);

// Whether a call expression is a tail call; false for all that is no call.
bool is_return_call(size_t expression);

// Optimisers find out that references are exact. Without custom descriptors that is not written, and there are no casts
// to such types: globals and signatures give it up, and so do all functions then. Returns whether there were any.
bool give_up_exactness(Module& module);

// Recomputes all types of the body, and makes locals that cannot be null valid again.
void refinalize(Module& module, Function& func);

// Replaces calls of the functions by their operands, and removes what then does nothing: a local set to itself, a
// constant that is dropped, an arm without code.
void remove_markers(Module& module, Function& func, rust::Slice<const rust::String> markers);

// Puts the contents of blocks without a name in the place of those blocks, where they are among other statements.
void flatten_blocks(Function& func);

// Labels of blocks and loops that start with a prefix.
rust::Vec<rust::String> list_labels(Function& func, rust::Str prefix);

// A copy of one expression and all below it.
size_t copy_expression(Module& module, size_t expression);

// The expression's text, for messages.
rust::String print_expression(Module& module, size_t expression);

} // namespace fork_instrument
