#include "outlining.h"

#include <algorithm>

#include "fork-instrument/src/ir/ffi.rs.h"
#include "ir/utils.h"
#include "wasm-traversal.h"

namespace fork_instrument {

using namespace wasm;

namespace {

struct LocalPairs {
  rust::Vec<uint32_t>& pairs;
  // Something was found that is not equal.
  bool conflict = false;

  void pair(uint32_t left, uint32_t right) {
    for (size_t i = 0; i < pairs.size(); i += 2) {
      if (pairs[i] == left || pairs[i + 1] == right) {
        conflict |= pairs[i] != left || pairs[i + 1] != right;
        return;
      }
    }
    pairs.push_back(left);
    pairs.push_back(right);
  }

  bool equal(Expression* left, Expression* right) {
    return ExpressionAnalyzer::flexibleEqual(left, right,
                                             [&](Expression* left, Expression* right) { return both(left, right); });
  }

  // Whether both use a local, and are equal but for that.
  bool both(Expression* left, Expression* right) {
    if (left->_id != right->_id || left->type != right->type) {
      return false;
    }
    if (auto* get = left->dynCast<LocalGet>()) {
      pair(get->index, right->cast<LocalGet>()->index);
      return true;
    }
    if (auto* set = left->dynCast<LocalSet>()) {
      auto* other = right->cast<LocalSet>();
      pair(set->index, other->index);
      conflict |= !equal(set->value, other->value);
      return true;
    }
    return false;
  }
};

} // namespace

bool equal_but_for_locals(size_t left, size_t right, rust::Vec<uint32_t>& pairs) {
  LocalPairs locals{pairs};
  return locals.equal(as_expression(left), as_expression(right)) && !locals.conflict;
}

void renumber_locals(size_t expression, rust::Slice<const uint32_t> from, rust::Slice<const uint32_t> to) {
  struct Renumberer : public PostWalker<Renumberer> {
    std::unordered_map<Index, Index> numbers;
    void visitLocalGet(LocalGet* curr) { curr->index = numbers.at(curr->index); }
    void visitLocalSet(LocalSet* curr) { curr->index = numbers.at(curr->index); }
  };
  Renumberer renumberer;
  for (size_t i = 0; i < from.size(); i++) {
    renumberer.numbers[from[i]] = to[i];
  }
  auto* curr = as_expression(expression);
  renumberer.walk(curr);
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
