#include "analyses.h"

#include <algorithm>
#include <deque>
#include <set>

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

struct LivenessAtCalls::Flow {
  using Block = Walker::BasicBlock;

  Walker walker;
  // Live locals after each call that can be reached, ascending.
  std::unordered_map<size_t, std::vector<uint32_t>> live_after;
  // For each block that can be reached, once anyone has asked, and each local: whether it is stale at the start.
  std::unordered_map<Block*, std::vector<bool>> stale_at_start;

  void find_live();
  void find_stale();
  static void pass(const Block* block, size_t from, size_t to, std::vector<bool>& stale);
};

// One scan backwards through each block that has calls.
void LivenessAtCalls::Flow::find_live() {
  std::unordered_map<Block*, std::vector<Walker::Mark*>> marks;
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

// Goes through a block's actions from one to another: what they set is not stale any more.
void LivenessAtCalls::Flow::pass(const Block* block, size_t from, size_t to, std::vector<bool>& stale) {
  for (size_t i = from; i < to; i++) {
    auto action = block->contents.actions[i];
    if (action.isSet()) {
      stale[action.index] = false;
    }
  }
}

// A local that is dead at the head of a loop is stale from there on, until it is set.
void LivenessAtCalls::Flow::find_stale() {
  for (auto* block : walker.liveBlocks) {
    stale_at_start[block].resize(walker.numLocals);
  }
  std::deque<Block*> changed;
  for (auto* head : walker.loopTops) {
    if (walker.liveBlocks.count(head)) {
      auto& stale = stale_at_start[head];
      stale.assign(walker.numLocals, true);
      for (auto local : head->contents.start) {
        stale[local] = false;
      }
      changed.push_back(head);
    }
  }
  while (!changed.empty()) {
    auto* block = changed.front();
    changed.pop_front();
    auto at_end = stale_at_start.at(block);
    pass(block, 0, block->contents.actions.size(), at_end);
    for (auto* next : block->out) {
      auto& stale = stale_at_start.at(next);
      auto before = stale;
      for (Index local = 0; local < walker.numLocals; local++) {
        stale[local] = stale[local] || at_end[local];
      }
      if (stale != before) {
        changed.push_back(next);
      }
    }
  }
}

LivenessAtCalls::LivenessAtCalls(Module& module, Function& func, rust::Slice<const size_t> others)
    : flow(std::make_unique<Flow>()) {
  flow->walker.others = others;
  flow->walker.walkFunctionInModule(&func, &module);
  flow->find_live();
}

LivenessAtCalls::~LivenessAtCalls() = default;

rust::Vec<uint32_t> LivenessAtCalls::after(size_t call) const {
  rust::Vec<uint32_t> out;
  for (auto local : flow->live_after.at(call)) {
    out.push_back(local);
  }
  return out;
}

rust::Vec<bool> LivenessAtCalls::stale_after(rust::Slice<const LivenessPoint> points) const {
  if (flow->stale_at_start.empty()) {
    flow->find_stale();
  }
  rust::Vec<bool> answers;
  answers.reserve(points.size());
  for (size_t i = 0; i < points.size(); i++) {
    answers.push_back(false);
  }
  // Calls of one block follow each other.
  Flow::Block* block = nullptr;
  std::vector<bool> stale;
  size_t position = 0;
  for (auto& mark : flow->walker.calls) {
    if (!flow->walker.liveBlocks.count(mark.block)) {
      continue;
    }
    if (mark.block != block) {
      block = mark.block;
      stale = flow->stale_at_start.at(block);
      position = 0;
    }
    flow->pass(block, position, mark.action, stale);
    position = mark.action;
    auto call = as_address(mark.call);
    auto is_before = [](const LivenessPoint& point, size_t call) { return point.expression < call; };
    auto point = std::lower_bound(points.begin(), points.end(), call, is_before);
    for (; point != points.end() && point->expression == call; ++point) {
      answers[point - points.begin()] = stale[point->local];
    }
  }
  return answers;
}

bool LivenessAtCalls::reachable(size_t call) const { return flow->live_after.count(call); }

std::unique_ptr<LivenessAtCalls> liveness_at_calls(Module& module, Function& func, rust::Slice<const size_t> others) {
  return std::make_unique<LivenessAtCalls>(module, func, others);
}

} // namespace fork_instrument
