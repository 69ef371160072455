// Binaryen's analyses, asked about single expressions: effects, equality, liveness.
#pragma once

#include "bridge.h"

namespace fork_instrument {

struct Effects;

// The effects of an expression and all below it. Traps count as effects whatever the pipeline assumes about them.
Effects effects(Module& module, size_t expression);

// The effects of the expression itself, its children left out.
Effects shallow_effects(Module& module, size_t expression);

// A hash under which expressions that are equal for the purposes of common subexpression elimination collide.
uint64_t hash_expression(size_t expression);

// Whether two expressions have the same structure and the same leaves.
bool equal_expressions(size_t left, size_t right);

// Whether two functions have the same type, the same locals, and bodies that are the same but for the names of labels.
bool equal_functions(Function& left, Function& right);

// Where each local of a function is live, after some of its expressions.
class LivenessAfter {
public:
  // Live locals after each of the expressions that can be reached, ascending.
  using Live = std::unordered_map<size_t, std::vector<uint32_t>>;
  explicit LivenessAfter(Live live) : live(std::move(live)) {}

  // Locals that may be read after the expression is executed, by its normal path or by a handler that it throws to, in
  // ascending order. Must be asked with one of those expressions that is not in unreachable code.
  rust::Vec<uint32_t> after(size_t expression) const;
  // Whether control can reach the expression.
  bool reachable(size_t expression) const;

private:
  Live live;
};

// After all calls, but for direct calls of `others`, functions by number in ascending order.
std::unique_ptr<LivenessAfter> liveness_after_calls(Module& module, Function& func, rust::Slice<const size_t> others);

// After these expressions, addresses in ascending order. A block's end is after its last child.
std::unique_ptr<LivenessAfter> liveness_after(Module& module, Function& func, rust::Slice<const size_t> expressions);

} // namespace fork_instrument
