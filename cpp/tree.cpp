#include "tree.h"

#include <algorithm>

#include "fork-instrument/src/ir/ffi.rs.h"
#include "ir/iteration.h"
#include "ir/module-utils.h"
#include "ir/type-updating.h"
#include "ir/utils.h"
#include "wasm-traversal.h"

namespace fork_instrument {

using namespace wasm;

namespace {

uint32_t call_kind(Expression* curr) {
  if (curr->is<Call>()) {
    return 1;
  }
  if (curr->is<CallIndirect>()) {
    return 2;
  }
  return curr->is<CallRef>() ? 3 : 0;
}

} // namespace

std::vector<Node> nodes_of(Function& func) {
  struct Lister : public PostWalker<Lister, UnifiedExpressionVisitor<Lister>> {
    std::vector<Node> rows;
    // Of the expressions that are open, where the rows of their children start.
    std::vector<uint32_t> starts;

    static void scan(Lister* self, Expression** curr) {
      self->starts.push_back(self->rows.size());
      PostWalker<Lister, UnifiedExpressionVisitor<Lister>>::scan(self, curr);
    }
    void visitExpression(Expression* curr) {
      uint32_t number = rows.size();
      Node row;
      row.expression = as_address(curr);
      row.id = uint32_t(curr->_id);
      row.type_id = curr->type.getID();
      row.parent = UINT32_MAX;
      row.child = 0;
      row.first = starts.back();
      row.call = call_kind(curr);
      row.local = UINT32_MAX;
      if (auto* get = curr->dynCast<LocalGet>()) {
        row.local = get->index;
      } else if (auto* set = curr->dynCast<LocalSet>()) {
        row.local = set->index;
      }
      starts.pop_back();
      uint32_t children = 0;
      for (auto end = number; end > row.first; end = rows[end - 1].first) {
        children++;
      }
      for (auto end = number; end > row.first; end = rows[end - 1].first) {
        rows[end - 1].parent = number;
        rows[end - 1].child = --children;
      }
      rows.push_back(row);
    }
  };
  Lister lister;
  lister.walk(func.body);
  return std::move(lister.rows);
}

rust::Vec<Node> list_nodes(Function& func) {
  auto nodes = nodes_of(func);
  rust::Vec<Node> rows;
  rows.reserve(nodes.size());
  std::copy(nodes.begin(), nodes.end(), std::back_inserter(rows));
  return rows;
}

rust::Vec<size_t> list_expressions(Function& func) {
  struct Lister : public PostWalker<Lister, UnifiedExpressionVisitor<Lister>> {
    rust::Vec<size_t> expressions;

    void visitExpression(Expression* curr) { expressions.push_back(as_address(curr)); }
  };
  Lister lister;
  lister.walk(func.body);
  return std::move(lister.expressions);
}

size_t get_child(size_t parent, uint32_t index) {
  if (auto* block = as_expression(parent)->dynCast<Block>()) {
    return as_address(block->list[index]);
  }
  return as_address(ChildIterator(as_expression(parent)).getChild(index));
}

void set_child(size_t parent, uint32_t index, size_t child) {
  auto* expression = as_expression(parent);
  if (auto* block = expression->dynCast<Block>()) {
    block->list[index] = as_expression(child);
    return;
  }
  ChildIterator(expression).getChild(index) = as_expression(child);
}

size_t copy_code(Module& module, Function& from, Function& to, size_t expression, rust::Slice<const size_t> left_out) {
  auto is_left_out = [&](Expression* curr) {
    return curr && std::find(left_out.begin(), left_out.end(), as_address(curr)) != left_out.end();
  };
  auto* copy = ExpressionManipulator::flexibleCopy(
      as_expression(expression), module, [&](Expression* curr) { return is_left_out(curr) ? curr : nullptr; });
  if (from.debugLocations.empty() && from.codeAnnotations.empty()) {
    return as_address(copy);
  }
  std::vector<std::pair<Expression*, Expression*>> pairs = {{as_expression(expression), copy}};
  while (!pairs.empty()) {
    auto [original, copied] = pairs.back();
    pairs.pop_back();
    if (original == copied) {
      continue;
    }
    if (auto found = from.debugLocations.find(original); found != from.debugLocations.end()) {
      to.debugLocations[copied] = found->second;
    }
    if (auto found = from.codeAnnotations.find(original); found != from.codeAnnotations.end()) {
      to.codeAnnotations[copied] = found->second;
    }
    ChildIterator originals(original), copies(copied);
    for (Index i = 0; i < originals.getNumChildren(); i++) {
      pairs.emplace_back(originals.getChild(i), copies.getChild(i));
    }
  }
  return as_address(copy);
}

void copy_location(Function& from, Function& to, size_t original, size_t replacement) {
  auto found = from.debugLocations.find(as_expression(original));
  if (found != from.debugLocations.end()) {
    to.debugLocations.emplace(as_expression(replacement), found->second);
  }
}

namespace {

void set_list(ExpressionList& list, rust::Slice<const size_t> expressions) {
  list.resize(expressions.size());
  for (size_t i = 0; i < expressions.size(); i++) {
    list[i] = as_expression(expressions[i]);
  }
}

} // namespace

size_t make_block(Module& module, rust::Str label, rust::Slice<const size_t> children, bool has_type, size_t type) {
  auto* block = module.allocator.alloc<Block>();
  set_list(block->list, children);
  if (has_type) {
    block->finalize(Type(type));
  }
  if (!label.empty()) {
    block->name = as_name(label);
  }
  if (!has_type) {
    block->finalize();
  } else if (!label.empty()) {
    block->type = Type(type);
  }
  return as_address(block);
}

size_t make_call(Module& module, rust::Str function, rust::Slice<const size_t> operands, size_t results) {
  auto* call = module.allocator.alloc<Call>();
  call->target = as_name(function);
  set_list(call->operands, operands);
  call->type = Type(results);
  call->finalize();
  return as_address(call);
}

bool is_return_call(size_t address) {
  auto* expression = as_expression(address);
  if (auto* call = expression->dynCast<Call>()) {
    return call->isReturn;
  }
  if (auto* call = expression->dynCast<CallIndirect>()) {
    return call->isReturn;
  }
  if (auto* call = expression->dynCast<CallRef>()) {
    return call->isReturn;
  }
  return false;
}

namespace {

bool is_exact(Type type) {
  return std::any_of(type.begin(), type.end(), [](Type t) { return t.isRef() && t.isExact(); });
}

Type inexact(Type type) {
  std::vector<Type> components;
  for (auto component : type) {
    components.push_back(component.isRef() ? component.with(Inexact) : component);
  }
  return components.size() == 1 ? components[0] : Type(Tuple(components));
}

// Optimisers find out that references are exact. Without custom descriptors that is not written, there are no casts
// that could bring it back, and imported functions are never exact: so locals and casts give it up.
void give_up_exactness(Module& module, Function& func) {
  if (!module.features.hasGC() || module.features.hasCustomDescriptors()) {
    return;
  }
  struct Walker : public PostWalker<Walker> {
    Function& func;
    explicit Walker(Function& func) : func(func) {}
    void visitLocalGet(LocalGet* curr) { curr->type = func.getLocalType(curr->index); }
    void visitLocalSet(LocalSet* curr) {
      if (curr->isTee() && curr->type != Type::unreachable) {
        curr->type = func.getLocalType(curr->index);
      }
    }
    void visitRefCast(RefCast* curr) { give_up(curr->type); }
    void visitRefTest(RefTest* curr) { give_up(curr->castType); }
    void visitBrOn(BrOn* curr) { give_up(curr->castType); }
    void give_up(Type& type) {
      if (is_exact(type)) {
        type = inexact(type);
      }
    }
  };
  for (auto& type : func.vars) {
    if (is_exact(type)) {
      type = inexact(type);
    }
  }
  Walker(func).walk(func.body);
}

bool has_exact_parts(HeapType type) {
  if (type.isSignature()) {
    return is_exact(type.getSignature().params) || is_exact(type.getSignature().results);
  }
  if (type.isStruct()) {
    auto& fields = type.getStruct().fields;
    return std::any_of(fields.begin(), fields.end(), [](const Field& field) { return is_exact(field.type); });
  }
  return type.isArray() && is_exact(type.getArray().element.type);
}

// Types with exact parts, by those without. All stay in their groups, so that other modules' types are still the same:
// exactness would not have been written anyway.
GlobalTypeRewriter::TypeMap inexact_types(Module& module) {
  auto [types, indices] = ModuleUtils::getOptimizedIndexedHeapTypes(module);
  GlobalTypeRewriter::TypeMap changed;
  if (std::none_of(types.begin(), types.end(), has_exact_parts)) {
    return changed;
  }
  TypeBuilder builder(types.size());
  auto map = [&, &indices = indices](HeapType type) {
    auto found = indices.find(type);
    return found == indices.end() ? type : builder.getTempHeapType(found->second);
  };
  auto part = [&](Type type) {
    return type.isRef() ? builder.getTempRefType(map(type.getHeapType()), type.getNullability(), Inexact) : type;
  };
  auto parts = [&](Type type) {
    if (!type.isTuple()) {
      return part(type);
    }
    std::vector<Type> components;
    for (auto component : type) {
      components.push_back(part(component));
    }
    return builder.getTempTupleType(components);
  };
  for (Index i = 0; i < types.size(); i++) {
    auto type = types[i];
    if (auto size = type.getRecGroup().size(); size > 1 && type.getRecGroupIndex() == 0) {
      builder.createRecGroup(i, size);
    }
    builder.copyHeapType(i, type, map);
    if (type.isSignature()) {
      builder.setHeapType(i, Signature(parts(type.getSignature().params), parts(type.getSignature().results)));
    } else if (type.isStruct()) {
      auto copy = type.getStruct();
      for (auto& field : copy.fields) {
        field.type = part(field.type);
      }
      builder.setHeapType(i, std::move(copy));
    } else if (type.isArray()) {
      auto copy = type.getArray();
      copy.element.type = part(copy.element.type);
      builder.setHeapType(i, copy);
    }
  }
  auto built = builder.build();
  if (built.getError()) {
    Fatal() << "types without exactness cannot be built";
  }
  for (Index i = 0; i < types.size(); i++) {
    if (types[i] != (*built)[i]) {
      changed[types[i]] = (*built)[i];
    }
  }
  return changed;
}

} // namespace

bool give_up_exactness(Module& module) {
  if (!module.features.hasGC() || module.features.hasCustomDescriptors()) {
    return false;
  }
  auto types = inexact_types(module);
  auto changes = !types.empty();
  for (auto& global : module.globals) {
    if (!global->imported() && is_exact(global->type)) {
      global->type = inexact(global->type);
      changes = true;
    }
  }
  for (auto& table : module.tables) {
    if (!table->imported() && is_exact(table->type)) {
      table->type = inexact(table->type);
      changes = true;
    }
  }
  for (auto& segment : module.elementSegments) {
    if (is_exact(segment->type)) {
      segment->type = inexact(segment->type);
      changes = true;
    }
  }
  if (changes) {
    GlobalTypeRewriter rewriter(module, WorldMode::Closed);
    rewriter.mapTypes(types);
    rewriter.mapTypeNamesAndIndices(types);
    struct Walker : public PostWalker<Walker> {
      void visitTableGet(TableGet* curr) {
        if (curr->type != Type::unreachable) {
          curr->type = getModule()->getTable(curr->table)->type;
        }
      }
      void visitTryTable(TryTable* curr) {
        for (auto& type : curr->sentTypes) {
          type = inexact(type);
        }
      }
      void visitGlobalGet(GlobalGet* curr) { curr->type = getModule()->getGlobal(curr->name)->type; }
      void visitCall(Call* curr) { note(curr, getModule()->getFunction(curr->target)->type.getHeapType()); }
      void visitCallIndirect(CallIndirect* curr) { note(curr, curr->heapType); }
      void visitCallRef(CallRef* curr) {
        if (auto type = curr->target->type; type.isRef() && type.getHeapType().isSignature()) {
          note(curr, type.getHeapType());
        }
      }
      void note(Expression* call, HeapType type) {
        if (call->type.isConcrete()) {
          call->type = type.getSignature().results;
        }
      }
    };
    for (auto& func : module.functions) {
      if (!func->imported()) {
        Walker().walkFunctionInModule(func.get(), &module);
        refinalize(module, *func);
      }
    }
    // Initialisers, and what is in segments.
    Walker().walkModuleCode(&module);
  }
  return changes;
}

void refinalize(Module& module, Function& func) {
  give_up_exactness(module, func);
  ReFinalize().walkFunctionInModule(&func, &module);
  TypeUpdating::handleNonDefaultableLocals(&func, module);
}

namespace {

// Splices each list once, after its children's lists: linear in the size of the result and the depth of such blocks.
struct BlockFlattener : public PostWalker<BlockFlattener> {
  std::vector<Expression*> flat;

  static bool is_spliced(Block* block, size_t index) {
    auto* child = block->list[index]->dynCast<Block>();
    // A value that is not the last is dropped by whoever made it, so the child has none unless it is the last.
    return child && !child->name.is() && (index + 1 == block->list.size() || !child->type.isConcrete());
  }

  void visitBlock(Block* curr) {
    size_t first = 0;
    while (first < curr->list.size() && !is_spliced(curr, first)) {
      first++;
    }
    if (first == curr->list.size()) {
      return;
    }
    flat.assign(curr->list.begin(), curr->list.begin() + first);
    for (size_t i = first; i < curr->list.size(); i++) {
      if (is_spliced(curr, i)) {
        auto& inner = curr->list[i]->cast<Block>()->list;
        flat.insert(flat.end(), inner.begin(), inner.end());
      } else {
        flat.push_back(curr->list[i]);
      }
    }
    curr->list.set(flat);
  }
};

} // namespace

namespace {

struct MarkerRemover : public PostWalker<MarkerRemover> {
  std::unordered_set<Name> markers;
  // What was inside a marker, and does nothing where it stands now.
  std::unordered_set<Expression*> idle;

  bool is_idle(Expression* curr) { return idle.count(curr) > 0; }

  void visitCall(Call* curr) {
    if (!markers.count(curr->target)) {
      return;
    }
    auto* inside = curr->operands.empty() ? Builder(*getModule()).makeNop() : curr->operands[0];
    if (inside->is<Nop>() || inside->is<LocalGet>() || inside->is<Const>()) {
      idle.insert(inside);
    }
    replaceCurrent(inside);
  }

  // What uses the value of an arm that is idle goes into the other arm.
  template <typename User> void move_into_arm(User* user) {
    if (is_idle(user->value)) {
      auto* nop = Builder(*getModule()).makeNop();
      idle.insert(nop);
      replaceCurrent(nop);
      return;
    }
    auto* choice = user->value->template dynCast<If>();
    if (choice && choice->ifFalse && is_idle(choice->ifFalse)) {
      user->value = choice->ifTrue;
      user->finalize();
      choice->ifTrue = user;
      choice->ifFalse = nullptr;
      choice->type = Type::none;
      choice->finalize();
      replaceCurrent(choice);
    }
  }

  void visitLocalSet(LocalSet* curr) {
    if (!curr->isTee()) {
      move_into_arm(curr);
    }
  }
  void visitDrop(Drop* curr) { move_into_arm(curr); }

  void visitIf(If* curr) {
    if (curr->ifFalse && curr->ifFalse->is<Nop>() && is_idle(curr->ifFalse)) {
      curr->ifFalse = nullptr;
      curr->finalize();
    }
  }

  void visitBlock(Block* curr) {
    auto end = std::remove_if(curr->list.begin(), curr->list.end(),
                              [&](Expression* child) { return child->is<Nop>() && is_idle(child); });
    curr->list.resize(end - curr->list.begin());
  }
};

} // namespace

void remove_markers(Module& module, Function& func, rust::Slice<const rust::String> names) {
  MarkerRemover remover;
  remover.markers = as_names(names);
  remover.walkFunctionInModule(&func, &module);
}

void flatten_blocks(Function& func) { BlockFlattener().walk(func.body); }

rust::Vec<rust::String> list_labels(Function& func, rust::Str text) {
  struct LabelCollector : public PostWalker<LabelCollector> {
    std::string prefix;
    rust::Vec<rust::String> labels;
    void add(Name name) {
      if (name.is() && name.startsWith(std::string_view(prefix))) {
        labels.push_back(to_rust(name));
      }
    }
    void visitBlock(Block* curr) { add(curr->name); }
    void visitLoop(Loop* curr) { add(curr->name); }
    void visitTry(Try* curr) { add(curr->name); }
  };
  LabelCollector collector;
  collector.prefix = as_string(text);
  collector.walk(func.body);
  return std::move(collector.labels);
}

size_t copy_expression(Module& module, size_t expression) {
  return as_address(ExpressionManipulator::copy(as_expression(expression), module));
}

rust::String print_expression(Module& module, size_t expression) {
  std::stringstream text;
  text << ShallowExpression{as_expression(expression), &module};
  auto string = text.str();
  return rust::String::lossy(string.data(), string.size());
}

} // namespace fork_instrument
