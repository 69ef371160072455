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

// Marks positions among a basic block's reads and writes.
template <typename SubType, typename VisitorType> struct MarkingWalker : public LivenessWalker<SubType, VisitorType> {
  using BasicBlock = typename LivenessWalker<SubType, VisitorType>::BasicBlock;

  struct Mark {
    Expression* expression;
    BasicBlock* block;
    size_t action;
  };
  std::vector<Mark> marks;

  void mark(Expression* expression) {
    if (auto* block = this->currBasicBlock) {
      block->contents.actions.emplace_back(this->getCurrentPointer());
      marks.push_back({expression, block, block->contents.actions.size()});
    }
  }

  // Which locals are live at the marks: one scan backwards through each block that has some.
  LivenessAfter::Live find_live(Module& module, Function& func) {
    this->walkFunctionInModule(&func, &module);
    std::unordered_map<BasicBlock*, std::vector<Mark*>> by_block;
    for (auto& mark : marks) {
      if (this->liveBlocks.count(mark.block)) {
        by_block[mark.block].push_back(&mark);
      }
    }
    LivenessAfter::Live result;
    for (auto& [block, marked] : by_block) {
      auto& actions = block->contents.actions;
      std::set<uint32_t> live(block->contents.end.begin(), block->contents.end.end());
      size_t position = actions.size();
      for (auto mark = marked.rbegin(); mark != marked.rend(); ++mark) {
        for (; position > (*mark)->action; position--) {
          auto& action = actions[position - 1];
          if (action.isGet()) {
            live.insert(action.index);
          } else if (action.isSet()) {
            live.erase(action.index);
          }
        }
        result[as_address((*mark)->expression)].assign(live.begin(), live.end());
      }
    }
    return result;
  }
};

struct CallMarker : public MarkingWalker<CallMarker, Visitor<CallMarker>> {
  rust::Slice<const size_t> others;

  void visitCall(Call* curr) {
    if (!std::binary_search(others.begin(), others.end(), as_number(curr->target))) {
      mark(curr);
    }
  }
  void visitCallIndirect(CallIndirect* curr) { mark(curr); }
  void visitCallRef(CallRef* curr) { mark(curr); }
};

struct ExpressionMarker : public MarkingWalker<ExpressionMarker, UnifiedExpressionVisitor<ExpressionMarker>> {
  using Super = LivenessWalker<ExpressionMarker, UnifiedExpressionVisitor<ExpressionMarker>>;
  rust::Slice<const size_t> expressions;

  void visitExpression(Expression* curr) {
    if (std::binary_search(expressions.begin(), expressions.end(), as_address(curr))) {
      mark(curr);
    }
  }
  // These two, and an `if`, are not visited as others are.
  static void doVisitLocalGet(ExpressionMarker* self, Expression** curr) {
    Super::doVisitLocalGet(self, curr);
    self->visitExpression(*curr);
  }
  static void doVisitLocalSet(ExpressionMarker* self, Expression** curr) {
    Super::doVisitLocalSet(self, curr);
    self->visitExpression(*curr);
  }
  static void doEndIf(ExpressionMarker* self, Expression** curr) {
    Super::doEndIf(self, curr);
    self->visitExpression(*curr);
  }
};

} // namespace

rust::Vec<uint32_t> LivenessAfter::after(size_t expression) const {
  rust::Vec<uint32_t> out;
  for (auto local : live.at(expression)) {
    out.push_back(local);
  }
  return out;
}

bool LivenessAfter::reachable(size_t expression) const { return live.count(expression); }

std::unique_ptr<LivenessAfter> liveness_after_calls(Module& module, Function& func, rust::Slice<const size_t> others) {
  CallMarker marker;
  marker.others = others;
  return std::make_unique<LivenessAfter>(marker.find_live(module, func));
}

std::unique_ptr<LivenessAfter> liveness_after(Module& module, Function& func, rust::Slice<const size_t> expressions) {
  ExpressionMarker marker;
  marker.expressions = expressions;
  return std::make_unique<LivenessAfter>(marker.find_live(module, func));
}

} // namespace fork_instrument
