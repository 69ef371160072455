#include "code.h"
#include "tree.h"

#include "fork-instrument/src/ir/ffi.rs.h"
#include "ir/properties.h"
#include "ir/utils.h"
#include "wasm-interpreter.h"

namespace fork_instrument {

using namespace wasm;

namespace {

uint64_t bits(const Literal& literal) {
  switch (literal.type.getBasic()) {
  case Type::i32:
    return uint32_t(literal.geti32());
  case Type::i64:
    return uint64_t(literal.geti64());
  case Type::f32:
    return uint32_t(literal.reinterpreti32());
  default:
    return uint64_t(literal.reinterpreti64());
  }
}

bool has_bits(Type type) { return type.isNumber() && type != Type::v128; }

Literal literal(Type type, uint64_t bits) {
  switch (type.getBasic()) {
  case Type::i32:
    return Literal(uint32_t(bits));
  case Type::i64:
    return Literal(bits);
  case Type::f32:
    return Literal(uint32_t(bits)).castToF32();
  default:
    return Literal(bits).castToF64();
  }
}

// Fills in what an expression names.
struct Reader : public OverriddenVisitor<Reader> {
  Code& code;
  CodeRow& row;

  Reader(Code& code, CodeRow& row) : code(code), row(row) {}

  void add_targets(const ArenaVector<Name>& names) {
    for (auto name : names) {
      code.targets.push_back(as_number(name));
    }
  }

#define DELEGATE(CLASS)                                                                                                \
  void visit##CLASS(CLASS* curr) { read(curr); }
#include "wasm-delegations.def"

  void read(Expression*) {}
  void read(Block* curr) { row.name = as_number(curr->name); }
  void read(Loop* curr) { row.name = as_number(curr->name); }
  void read(Break* curr) {
    row.name = as_number(curr->name);
    row.has_value = curr->value;
    row.has_condition = curr->condition;
  }
  void read(BrOn* curr) {
    row.name = as_number(curr->name);
    auto type = curr->castType;
    row.operation = wasm::hash(int(curr->op));
    rehash(row.operation, type.isRef() ? type.getHeapType().getID() : 0);
    rehash(row.operation, type.isRef() && type.isNullable());
  }
  void read(Switch* curr) {
    row.has_value = curr->value;
    row.target = code.targets.size();
    add_targets(curr->targets);
    code.targets.push_back(as_number(curr->default_));
    row.targets = code.targets.size() - row.target;
  }
  void read(Try* curr) { row.catches_all = curr->hasCatchAll() || curr->isDelegate(); }
  void read(TryTable* curr) {
    row.catches_all = curr->hasCatchAll();
    row.target = code.targets.size();
    add_targets(curr->catchDests);
    row.targets = code.targets.size() - row.target;
  }
  void read(Call* curr) {
    row.name = as_number(curr->target);
    row.is_return = curr->isReturn;
  }
  void read(CallIndirect* curr) {
    row.name = as_number(curr->table);
    row.is_return = curr->isReturn;
  }
  void read(CallRef* curr) { row.is_return = curr->isReturn; }
  void read(GlobalGet* curr) { row.name = as_number(curr->name); }
  void read(GlobalSet* curr) { row.name = as_number(curr->name); }
  void read(Load* curr) {
    row.name = as_number(curr->memory);
    row.value = curr->offset.addr;
    row.bytes = curr->bytes;
    row.is_signed = curr->signed_;
  }
  void read(Store* curr) {
    row.name = as_number(curr->memory);
    row.value = curr->offset.addr;
    row.bytes = curr->bytes;
  }
  void read(LocalGet* curr) { row.value = curr->index; }
  void read(LocalSet* curr) { row.value = curr->index; }
  void read(TupleExtract* curr) { row.value = curr->index; }
  void read(Const* curr) {
    row.has_value = has_bits(curr->type);
    row.value = row.has_value ? bits(curr->value) : 0;
  }
};

// Expressions with labels are not hashed: on their own they have no meaning.
bool names_labels(Expression* curr) {
  return Properties::isControlFlowStructure(curr) || curr->is<Break>() || curr->is<Switch>() || curr->is<BrOn>() ||
         curr->is<Rethrow>() || curr->is<Resume>() || curr->is<ResumeThrow>();
}

// Of what is in the expression itself. Types are left out: they can be refined without a change of what is done.
size_t hash_without_type(Expression* curr) {
  size_t digest = wasm::hash(curr->_id);
#define DELEGATE_ID curr->_id
#define DELEGATE_START(id) [[maybe_unused]] auto* cast = curr->cast<id>();
#define DELEGATE_GET_FIELD(id, field) cast->field
#define DELEGATE_FIELD_TYPE(id, field) rehash(digest, cast->field.getID());
#define DELEGATE_FIELD_HEAPTYPE(id, field) rehash(digest, cast->field.getID());
#define DELEGATE_FIELD_CHILD(id, field)
#define DELEGATE_FIELD_INT(id, field) rehash(digest, cast->field);
#define DELEGATE_FIELD_LITERAL(id, field) rehash(digest, cast->field);
#define DELEGATE_FIELD_NAME(id, field) rehash(digest, cast->field);
#define DELEGATE_FIELD_SCOPE_NAME_DEF(id, field)
#define DELEGATE_FIELD_SCOPE_NAME_USE(id, field)
#define DELEGATE_FIELD_ADDRESS(id, field) rehash(digest, cast->field.addr);
#include "wasm-delegations-fields.def"
  return digest;
}

struct Folder : public ConstantExpressionRunner<Folder> {
  Folder() : ConstantExpressionRunner<Folder>(nullptr, FlagValues::DEFAULT, NO_LIMIT, NO_LIMIT) {}
};

} // namespace

Code read_code(Function& func) {
  Code code;
  auto nodes = nodes_of(func);
  code.rows.reserve(nodes.size());
  for (auto& node : nodes) {
    auto* curr = as_expression(node.expression);
    CodeRow row = {};
    row.expression = node.expression;
    row.id = node.id;
    row.type_id = node.type_id;
    row.parent = node.parent;
    row.child = node.child;
    row.first = node.first;
    row.operation = names_labels(curr) ? 0 : hash_without_type(curr);
    Reader(code, row).visit(curr);
    code.rows.push_back(row);
  }
  return code;
}

size_t intern_name(rust::Str name) { return as_number(as_name(name)); }

rust::String name_text(size_t name) { return rust::String::lossy(reinterpret_cast<const char*>(name)); }

bool fold_constants(size_t address, rust::Slice<const uint64_t> operands, uint64_t& result) {
  auto* curr = as_expression(address);
  thread_local Folder folder;
  auto run = [&](Expression* expression) {
    try {
      auto flow = folder.visit(expression);
      if (flow.breaking() || flow.values.size() != 1 || !has_bits(flow.values[0].type) || flow.values[0].isNaN()) {
        return false;
      }
      result = bits(flow.values[0]);
      return true;
    } catch (NonconstantException&) {
      return false;
    }
  };
  auto make = [&](Const& constant, Expression* original, size_t i) {
    if (!has_bits(original->type)) {
      return false;
    }
    constant.set(literal(original->type, operands[i]));
    return true;
  };
  Const first, second;
  if (auto* unary = curr->dynCast<Unary>()) {
    Unary copy = *unary;
    copy.value = &first;
    return operands.size() == 1 && make(first, unary->value, 0) && run(&copy);
  }
  if (auto* binary = curr->dynCast<Binary>()) {
    Binary copy = *binary;
    copy.left = &first;
    if (operands.size() == 1) {
      return binary->right->is<Const>() && make(first, binary->left, 0) && run(&copy);
    }
    copy.right = &second;
    return operands.size() == 2 && make(first, binary->left, 0) && make(second, binary->right, 1) && run(&copy);
  }
  return false;
}

rust::Vec<TableSegment> list_table_segments(const Module& module) {
  rust::Vec<TableSegment> rows;
  for (auto& segment : module.elementSegments) {
    if (!segment->table.is()) {
      continue;
    }
    TableSegment row;
    row.table = as_number(segment->table);
    row.global = 0;
    row.offset = 0;
    if (auto* constant = segment->offset->dynCast<Const>()) {
      row.offset = bits(constant->value);
    } else if (auto* global = segment->offset->dynCast<GlobalGet>()) {
      row.global = as_number(global->name);
    } else {
      continue;
    }
    for (auto* item : segment->data) {
      auto* reference = item->dynCast<RefFunc>();
      row.functions.push_back(reference ? as_number(reference->func) : 0);
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

} // namespace fork_instrument
