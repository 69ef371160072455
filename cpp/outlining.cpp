#include "outlining.h"

#include <algorithm>

#include "cfg/cfg-traversal.h"
#include "fork-instrument/src/ir/ffi.rs.h"
#include "ir/utils.h"
#include "local_bits.h"
#include "wasm-builder.h"
#include "wasm-traversal.h"

namespace fork_instrument {

using namespace wasm;

namespace {

// What happens in a basic block, in order.
struct Event {
  enum Kind { Get, Set, End } kind;
  // A local, or of the points with the expression that ends, the first.
  size_t what;
};

// What is known of a basic block.
struct Contents {
  std::vector<Event> events;
  // What is live at the start: of no locals until that is known.
  LocalBits at_start;
};

// Which locals are live, by Binaryen's basic blocks. Its own analysis keeps a sorted list of locals for each, which
// takes minutes for interpreters that were not optimised: there are thousands of locals and of blocks, and most are
// live in most.
struct Liveness : public CFGWalker<Liveness, UnifiedExpressionVisitor<Liveness>, Contents> {
  using Super = CFGWalker<Liveness, UnifiedExpressionVisitor<Liveness>, Contents>;
  rust::Slice<const LivenessPoint> points;
  // What is live where the analysis is.
  LocalBits live;

  Liveness(Module& module, Function& func, rust::Slice<const LivenessPoint> points)
      : points(points), live(func.getNumLocals()) {
    walkFunctionInModule(&func, &module);
  }

  void note(Event::Kind kind, size_t what) {
    if (currBasicBlock) {
      currBasicBlock->contents.events.push_back({kind, what});
    }
  }
  void note_end(Expression* curr) {
    auto* end = points.data() + points.size();
    auto before = [](const LivenessPoint& point, size_t address) { return point.expression < address; };
    auto* point = std::lower_bound(points.data(), end, as_address(curr), before);
    if (point != end && point->expression == as_address(curr)) {
      note(Event::End, point - points.data());
    }
  }
  void visitExpression(Expression* curr) {
    if (auto* get = curr->dynCast<LocalGet>()) {
      note(Event::Get, get->index);
    } else if (auto* set = curr->dynCast<LocalSet>()) {
      note(Event::Set, set->index);
    }
    note_end(curr);
  }
  // An `if` is not visited, and a block in front of where branches out of it meet.
  static void doEndBlock(Liveness* self, Expression** curr) {
    Super::doEndBlock(self, curr);
    self->note_end(*curr);
  }
  static void doEndIf(Liveness* self, Expression** curr) {
    Super::doEndIf(self, curr);
    self->note_end(*curr);
  }

  // Goes through a block, from its end.
  void go_back(BasicBlock& block, rust::Vec<uint8_t>* answers) {
    live.clear();
    for (auto* next : block.out) {
      live.add(next->contents.at_start);
    }
    auto& events = block.contents.events;
    for (auto event = events.rbegin(); event != events.rend(); ++event) {
      if (event->kind == Event::Get) {
        live.add(event->what);
      } else if (event->kind == Event::Set) {
        live.remove(event->what);
      } else if (answers) {
        auto expression = points[event->what].expression;
        for (auto i = event->what; i < points.size() && points[i].expression == expression; i++) {
          (*answers)[i] = live.has(points[i].local);
        }
      }
    }
  }

  void answer(rust::Vec<uint8_t>& answers) {
    auto reachable = findLiveBlocks();
    for (bool changes = true; changes;) {
      changes = false;
      for (auto block = basicBlocks.rbegin(); block != basicBlocks.rend(); ++block) {
        if (!reachable.count(block->get())) {
          continue;
        }
        go_back(**block, nullptr);
        auto& at_start = (*block)->contents.at_start;
        if (!(live == at_start)) {
          at_start = live;
          changes = true;
        }
      }
    }
    for (auto& block : basicBlocks) {
      if (reachable.count(block.get())) {
        go_back(*block, &answers);
      }
    }
  }
};

bool is_leaf(Expression* curr) { return curr->is<LocalGet>() || curr->is<Const>(); }

// Whether both are leaves of a type, or set locals of a type to values that are equal in form.
bool is_same_use(Expression* left, Expression* right) {
  if (left->type != right->type) {
    return false;
  }
  if (is_leaf(left)) {
    return is_leaf(right);
  }
  auto* set = left->dynCast<LocalSet>();
  auto* other = right->dynCast<LocalSet>();
  return set && other && ExpressionAnalyzer::flexibleEqual(set->value, other->value, is_same_use);
}

} // namespace

size_t count_expressions(Function& func) { return Measurer::measure(func.body); }

rust::Vec<uint8_t> live_after(Module& module, Function& func, rust::Slice<const LivenessPoint> points) {
  rust::Vec<uint8_t> answers;
  answers.reserve(points.size());
  for (size_t i = 0; i < points.size(); i++) {
    answers.push_back(2);
  }
  Liveness(module, func, points).answer(answers);
  return answers;
}

bool equal_in_form(size_t left, size_t right) {
  return ExpressionAnalyzer::flexibleEqual(as_expression(left), as_expression(right), is_same_use);
}

size_t generalize(Module& module, size_t expression, rust::Slice<const uint32_t> from, rust::Slice<const uint32_t> to,
                  rust::Slice<const uint32_t> leaves, size_t& next) {
  struct Generalizer : public PostWalker<Generalizer> {
    std::unordered_map<Index, Index> numbers;
    rust::Slice<const uint32_t> leaves;
    size_t next;

    // Whether a parameter takes the place of a leaf.
    bool is_replaced(Expression* curr) {
      auto local = leaves[next++];
      if (local != UINT32_MAX) {
        replaceCurrent(Builder(*getModule()).makeLocalGet(local, curr->type));
      }
      return local != UINT32_MAX;
    }
    void visitLocalGet(LocalGet* curr) {
      if (!is_replaced(curr)) {
        curr->index = numbers.at(curr->index);
      }
    }
    void visitConst(Const* curr) { is_replaced(curr); }
    void visitLocalSet(LocalSet* curr) {
      next++;
      curr->index = numbers.at(curr->index);
    }
  };
  Generalizer generalizer;
  for (size_t i = 0; i < from.size(); i++) {
    generalizer.numbers[from[i]] = to[i];
  }
  generalizer.leaves = leaves;
  generalizer.next = next;
  generalizer.setModule(&module);
  auto* curr = as_expression(expression);
  generalizer.walk(curr);
  next = generalizer.next;
  return as_address(curr);
}

void replace_children(size_t block, size_t first, size_t count, size_t replacement) {
  auto& list = as_expression(block)->cast<Block>()->list;
  auto start = std::find(list.begin(), list.end(), as_expression(first));
  assert(start != list.end() && size_t(list.end() - start) >= count && count > 0);
  *start = as_expression(replacement);
  std::copy(start + count, list.end(), start + 1);
  list.resize(list.size() - (count - 1));
}

} // namespace fork_instrument
