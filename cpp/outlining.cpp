#include "outlining.h"

#include <algorithm>

#include "fork-instrument/src/ir/ffi.rs.h"
#include "ir/utils.h"
#include "wasm-builder.h"
#include "wasm-traversal.h"

namespace fork_instrument {

using namespace wasm;

namespace {

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
