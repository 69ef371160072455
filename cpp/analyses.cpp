#include "analyses.h"

#include "cfg/liveness-traversal.h"
#include "fork-instrument/src/ir/ffi.rs.h"
#include "ir/effects.h"
#include "ir/function-utils.h"
#include "ir/properties.h"
#include "ir/utils.h"

namespace fork_instrument {

using namespace wasm;

namespace {

struct CallFinder : public PostWalker<CallFinder, UnifiedExpressionVisitor<CallFinder>> {
  bool found = false;
  void visitExpression(Expression* curr) {
    if (curr->is<Call>() || curr->is<CallIndirect>() || curr->is<CallRef>()) {
      found = true;
    }
  }
};

// Generativity looks calls' annotations up in a function; calls are never recomputed, so an empty one will do.
Function* no_annotations() {
  static Function function;
  return &function;
}

PassOptions strict_options() { return PassOptions::getWithoutOptimization(); }

Effects summarize(const EffectAnalyzer& analyzer, bool generative, bool calls) {
  Effects out;
  out.calls = calls || analyzer.calls;
  out.generative = generative;
  out.traps = analyzer.trap;
  out.side_effects = analyzer.hasNonTrapSideEffects() || analyzer.danglingPop;
  out.leaves = calls || analyzer.calls || analyzer.throws() || analyzer.transfersControlFlow() || analyzer.danglingPop;
  out.reads_mutable_state = analyzer.readsMutableGlobalState() || analyzer.hasSynchronization();
  for (auto local : analyzer.localsRead) {
    out.reads.push_back(local);
  }
  for (auto local : analyzer.localsWritten) {
    out.writes.push_back(local);
  }
  return out;
}

} // namespace

Effects effects(Module& module, size_t address) {
  auto* expression = as_expression(address);
  EffectAnalyzer analyzer(strict_options(), module, expression);
  CallFinder finder;
  finder.walk(expression);
  return summarize(analyzer, Properties::isGenerative(expression, no_annotations(), module), finder.found);
}

Effects shallow_effects(Module& module, size_t address) {
  auto* expression = as_expression(address);
  EffectAnalyzer analyzer(strict_options(), module);
  analyzer.visit(expression);
  return summarize(analyzer, Properties::isShallowlyGenerative(expression, no_annotations(), module), false);
}

uint64_t hash_expression(size_t expression) { return ExpressionAnalyzer::hash(as_expression(expression)); }

bool equal_expressions(size_t left, size_t right) {
  return ExpressionAnalyzer::equal(as_expression(left), as_expression(right));
}

bool equal_functions(Function& left, Function& right) { return FunctionUtils::equal(&left, &right); }

namespace {

// Marks the positions of calls among a basic block's reads and writes.
struct Walker : public LivenessWalker<Walker, Visitor<Walker>> {
  void mark(Expression* call) {
    if (currBasicBlock) {
      currBasicBlock->contents.actions.emplace_back(getCurrentPointer());
      calls.emplace_back(call, currBasicBlock, currBasicBlock->contents.actions.size());
    }
  }
  void visitCall(Call* curr) {
    if (!std::binary_search(others.begin(), others.end(), as_number(curr->target))) {
      mark(curr);
    }
  }
  void visitCallIndirect(CallIndirect* curr) { mark(curr); }
  void visitCallRef(CallRef* curr) { mark(curr); }

  struct Mark {
    Expression* call;
    BasicBlock* block;
    size_t action;
  };
  std::vector<Mark> calls;
  rust::Slice<const size_t> others;
};

} // namespace

LivenessAtCalls::LivenessAtCalls(Module& module, Function& func, rust::Slice<const size_t> others) {
  Walker walker;
  walker.others = others;
  walker.walkFunctionInModule(&func, &module);
  // One scan backwards through each block that has calls.
  std::unordered_map<Walker::BasicBlock*, std::vector<Walker::Mark*>> marks;
  for (auto& mark : walker.calls) {
    if (walker.liveBlocks.count(mark.block)) {
      marks[mark.block].push_back(&mark);
    }
  }
  for (auto& [block, calls] : marks) {
    auto& actions = block->contents.actions;
    std::set<uint32_t> live(block->contents.end.begin(), block->contents.end.end());
    size_t position = actions.size();
    for (auto mark = calls.rbegin(); mark != calls.rend(); ++mark) {
      for (; position > (*mark)->action; position--) {
        auto& action = actions[position - 1];
        if (action.isGet()) {
          live.insert(action.index);
        } else if (action.isSet()) {
          live.erase(action.index);
        }
      }
      live_after[as_address((*mark)->call)].assign(live.begin(), live.end());
    }
  }
}

rust::Vec<uint32_t> LivenessAtCalls::after(size_t call) const {
  rust::Vec<uint32_t> out;
  for (auto local : live_after.at(call)) {
    out.push_back(local);
  }
  return out;
}

bool LivenessAtCalls::reachable(size_t call) const { return live_after.count(call); }

std::unique_ptr<LivenessAtCalls> liveness_at_calls(Module& module, Function& func, rust::Slice<const size_t> others) {
  return std::make_unique<LivenessAtCalls>(module, func, others);
}

} // namespace fork_instrument
