// Binaryen's analyses, asked about single expressions: effects, equality, liveness.
#pragma once

#include "bridge.h"

namespace fork_instrument {

struct Effects;
struct LivenessPoint;

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

// Where each local of a function is live, at the granularity of calls.
class LivenessAtCalls {
public:
  // Direct calls of `others`, functions by number in ascending order, are left out.
  LivenessAtCalls(Module& module, Function& func, rust::Slice<const size_t> others);
  ~LivenessAtCalls();

  // Locals that may be read after the call returns, by its normal path or by a handler that it throws to, in
  // ascending order. Must be asked with a call of the function that is not left out, nor in unreachable code.
  rust::Vec<uint32_t> after(size_t call) const;
  // Whether control can reach the call, which is not left out.
  bool reachable(size_t call) const;
  // For each point, a call and a local in ascending order: whether the local would be live at the head of a loop,
  // though it is not, if it were read after the call. Not of calls that are left out, or that control cannot reach.
  rust::Vec<bool> stale_after(rust::Slice<const LivenessPoint> points) const;

private:
  struct Flow;
  std::unique_ptr<Flow> flow;
};

std::unique_ptr<LivenessAtCalls> liveness_at_calls(Module& module, Function& func, rust::Slice<const size_t> others);

} // namespace fork_instrument
