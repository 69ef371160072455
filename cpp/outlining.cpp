#include "outlining.h"

#include <algorithm>

#include "cfg/liveness-traversal.h"
#include "fork-instrument/src/ir/ffi.rs.h"
#include "ir/utils.h"
#include "wasm-builder.h"
#include "wasm-traversal.h"

namespace fork_instrument {

using namespace wasm;

namespace {

// Marks the ends of expressions among a basic block's reads and writes.
struct EndMarker : public LivenessWalker<EndMarker, UnifiedExpressionVisitor<EndMarker>> {
  using Super = LivenessWalker<EndMarker, UnifiedExpressionVisitor<EndMarker>>;

  struct Mark {
    // Of the points with this expression, the first.
    const LivenessPoint* point;
    size_t action;
  };
  rust::Slice<const LivenessPoint> points;
  std::unordered_map<BasicBlock*, std::vector<Mark>> marks;
  bool has_replaced = false;

  void visitExpression(Expression* curr) {
    auto address = as_address(curr);
    auto* end = points.data() + points.size();
    auto* point = std::lower_bound(points.data(), end, address, [](const LivenessPoint& point, size_t address) {
      return point.expression < address;
    });
    if (currBasicBlock && point != end && point->expression == address) {
      marks[currBasicBlock].push_back({point, currBasicBlock->contents.actions.size()});
    }
  }
  // These two, and an `if`, are not visited as others are, and a block in front of where branches out of it meet.
  static void doVisitLocalGet(EndMarker* self, Expression** curr) {
    self->has_replaced |= !self->currBasicBlock;
    Super::doVisitLocalGet(self, curr);
    self->visitExpression(*curr);
  }
  static void doVisitLocalSet(EndMarker* self, Expression** curr) {
    self->has_replaced |= !self->currBasicBlock;
    Super::doVisitLocalSet(self, curr);
    self->visitExpression(*curr);
  }
  static void doEndBlock(EndMarker* self, Expression** curr) {
    Super::doEndBlock(self, curr);
    self->visitExpression(*curr);
  }
  static void doEndIf(EndMarker* self, Expression** curr) {
    Super::doEndIf(self, curr);
    self->visitExpression(*curr);
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

rust::Vec<uint8_t> live_after(Module& module, Function& func, rust::Slice<const LivenessPoint> points) {
  EndMarker marker;
  marker.points = points;
  marker.walkFunctionInModule(&func, &module);
  rust::Vec<uint8_t> answers;
  if (marker.has_replaced) {
    return answers;
  }
  answers.reserve(points.size());
  for (size_t i = 0; i < points.size(); i++) {
    answers.push_back(2);
  }
  auto* points_end = points.data() + points.size();
  std::vector<bool> live(func.getNumLocals());
  for (auto& [block, marks] : marker.marks) {
    if (!marker.liveBlocks.count(block)) {
      continue;
    }
    std::fill(live.begin(), live.end(), false);
    for (auto local : block->contents.end) {
      live[local] = true;
    }
    auto& actions = block->contents.actions;
    size_t position = actions.size();
    for (auto mark = marks.rbegin(); mark != marks.rend(); ++mark) {
      for (; position > mark->action; position--) {
        auto& action = actions[position - 1];
        if (action.isGet() || action.isSet()) {
          live[action.index] = action.isGet();
        }
      }
      auto expression = mark->point->expression;
      for (auto* point = mark->point; point != points_end && point->expression == expression; point++) {
        answers[point - points.data()] = live[point->local];
      }
    }
  }
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
