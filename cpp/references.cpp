#include "references.h"

#include "cfg/cfg-traversal.h"
#include "fork-instrument/src/ir/ffi.rs.h"
#include "ir/find_all.h"
#include "ir/iteration.h"
#include "ir/manipulation.h"
#include "ir/names.h"
#include "ir/utils.h"
#include "wasm-builder.h"

namespace fork_instrument {

using namespace wasm;

namespace {

Type map_components(Type type, Type (*map)(Type)) {
  if (!type.isTuple()) {
    return type.isRef() ? map(type) : type;
  }
  std::vector<Type> components;
  for (auto component : type) {
    components.push_back(component.isRef() ? map(component) : component);
  }
  return Type(Tuple(components));
}

Type top_of(Type type) { return Type(type.getHeapType().getTop(), Nullable); }

} // namespace

size_t reference_top(size_t type) { return map_components(Type(type), top_of).getID(); }

uint32_t reference_class(size_t id) {
  auto type = Type(id);
  if (!type.isRef()) {
    return 0;
  }
  auto heap = type.getHeapType();
  if (heap.isShared() || heap.isMaybeShared(HeapType::string)) {
    return 6;
  }
  if (heap.isMaybeShared(HeapType::i31)) {
    return 5;
  }
  HeapType top = heap.getTop();
  if (top.isMaybeShared(HeapType::func)) {
    return 1;
  }
  if (top.isMaybeShared(HeapType::ext)) {
    return 2;
  }
  if (top.isMaybeShared(HeapType::any)) {
    return 3;
  }
  return top.isMaybeShared(HeapType::exn) ? 4 : 6;
}

// With custom descriptors exact types are the program's, else something that only optimisers know.
size_t local_type(const Module& module, size_t type) {
  if (module.features.hasCustomDescriptors()) {
    return type;
  }
  return map_components(Type(type), [](Type t) { return t.with(Inexact); }).getID();
}

size_t nullable_type(size_t type) {
  return map_components(Type(type), [](Type t) { return t.with(Nullable); }).getID();
}

size_t basic_reference(uint32_t reference_class) {
  HeapType::BasicHeapType heap = HeapType::func;
  switch (reference_class) {
  case 2:
    heap = HeapType::ext;
    break;
  case 3:
    heap = HeapType::any;
    break;
  case 4:
    heap = HeapType::exn;
    break;
  case 5:
    heap = HeapType::i31;
    break;
  }
  return Type(heap, Nullable).getID();
}

namespace {

bool has_reference(Type type) {
  return std::any_of(type.begin(), type.end(), [](Type t) { return t.isRef(); });
}

struct SetsOfBlock {
  uint32_t number = 0;
  std::vector<ReachingSets::Set> sets;
};

// Lists the writes of locals with references by basic block, and where calls and reads are among them.
struct SetWalker : public CFGWalker<SetWalker, Visitor<SetWalker>, SetsOfBlock> {
  std::unordered_map<size_t, ReachingSets::Position>& positions;
  std::vector<bool> is_listed;

  SetWalker(Function& func, std::unordered_map<size_t, ReachingSets::Position>& positions) : positions(positions) {
    for (Index i = 0; i < func.getNumLocals(); i++) {
      is_listed.push_back(has_reference(func.getLocalType(i)));
    }
  }

  BasicBlock* makeBasicBlock() {
    auto* block = new BasicBlock();
    block->contents.number = basicBlocks.size();
    return block;
  }

  void mark(Expression* curr) {
    if (currBasicBlock) {
      auto& block = currBasicBlock->contents;
      positions.emplace(as_address(curr), ReachingSets::Position{block.number, uint32_t(block.sets.size())});
    }
  }
  void visitCall(Call* curr) { mark(curr); }
  void visitCallIndirect(CallIndirect* curr) { mark(curr); }
  void visitCallRef(CallRef* curr) { mark(curr); }
  void visitLocalGet(LocalGet* curr) {
    if (is_listed[curr->index]) {
      mark(curr);
    }
  }
  void visitLocalSet(LocalSet* curr) {
    if (currBasicBlock && is_listed[curr->index]) {
      currBasicBlock->contents.sets.push_back({curr->index, as_address(curr)});
    }
  }
};

} // namespace

ReachingSets::ReachingSets(Module& module, Function& func) {
  SetWalker walker(func, positions);
  walker.walkFunctionInModule(&func, &module);
  auto live = walker.findLiveBlocks();
  for (auto& block : walker.basicBlocks) {
    auto& out = blocks.emplace_back();
    out.is_entry = block.get() == walker.entry;
    for (auto* from : block->in) {
      if (live.count(from)) {
        out.in.push_back(from->contents.number);
      }
    }
    out.sets = std::move(block->contents.sets);
  }
}

rust::Vec<size_t> ReachingSets::at(size_t expression, uint32_t local) const {
  std::set<size_t> found;
  std::vector<bool> visited(blocks.size());
  std::vector<uint32_t> queue;
  // Looks backwards through the first sets of a block.
  auto look = [&](uint32_t number, size_t sets) {
    auto& block = blocks[number];
    for (size_t i = sets; i > 0; i--) {
      if (block.sets[i - 1].local == local) {
        found.insert(block.sets[i - 1].expression);
        return;
      }
    }
    if (block.is_entry) {
      found.insert(0);
    }
    queue.insert(queue.end(), block.in.begin(), block.in.end());
  };
  auto start = positions.at(expression);
  look(start.block, start.sets);
  while (!queue.empty()) {
    auto number = queue.back();
    queue.pop_back();
    if (!visited[number]) {
      visited[number] = true;
      look(number, blocks[number].sets.size());
    }
  }
  rust::Vec<size_t> out;
  for (auto set : found) {
    out.push_back(set);
  }
  return out;
}

std::unique_ptr<ReachingSets> reaching_sets(Module& module, Function& func) {
  return std::make_unique<ReachingSets>(module, func);
}

namespace {

// The names are sorted.
bool contains(rust::Slice<const rust::String> names, Name name) {
  auto text = [](const rust::String& known) { return std::string_view(known.data(), known.size()); };
  auto is_before = [&](const rust::String& known, std::string_view wanted) { return text(known) < wanted; };
  auto found = std::lower_bound(names.begin(), names.end(), name.view(), is_before);
  return found != names.end() && text(*found) == name.view();
}

// The operand of a replayable expression that is a value to keep, if it has one.
Expression** captured_operand(Expression* expression) {
  while (true) {
    if (auto* get = expression->dynCast<TableGet>()) {
      return get->index->is<Const>() ? nullptr : &get->index;
    }
    if (auto* i31 = expression->dynCast<RefI31>()) {
      return i31->value->is<Const>() ? nullptr : &i31->value;
    }
    if (auto* cast = expression->dynCast<RefCast>()) {
      expression = cast->ref;
    } else if (auto* as = expression->dynCast<RefAs>()) {
      expression = as->value;
    } else {
      return nullptr;
    }
  }
}

} // namespace

bool is_replayable(Module& module, size_t address, rust::Slice<const rust::String> tables,
                   rust::Slice<const rust::String> globals, rust::Vec<size_t>& captures) {
  auto* expression = as_expression(address);
  if (expression->type == Type::unreachable) {
    return false;
  }
  while (true) {
    if (auto* cast = expression->dynCast<RefCast>()) {
      if (cast->desc) {
        return false;
      }
      expression = cast->ref;
    } else if (auto* as = expression->dynCast<RefAs>()) {
      expression = as->value;
    } else {
      break;
    }
  }
  if (auto* get = expression->dynCast<GlobalGet>()) {
    return contains(globals, get->name);
  }
  if (auto* get = expression->dynCast<TableGet>()) {
    if (!contains(tables, get->table)) {
      return false;
    }
  } else if (!expression->is<RefI31>()) {
    return expression->is<RefNull>() || expression->is<RefFunc>() || expression->is<StringConst>();
  }
  if (auto** operand = captured_operand(expression)) {
    captures.push_back(as_address(*operand));
  }
  return true;
}

bool is_same_replay(size_t left_address, size_t right_address) {
  auto* left = as_expression(left_address);
  auto* right = as_expression(right_address);
  auto** left_operand = captured_operand(left);
  auto** right_operand = captured_operand(right);
  if (!left_operand || !right_operand) {
    return !left_operand && !right_operand && ExpressionAnalyzer::equal(left, right);
  }
  // Equal but for the operand: compare with one operand for both.
  auto* kept = *right_operand;
  if (kept->type != (*left_operand)->type) {
    return false;
  }
  *right_operand = *left_operand;
  bool equal = ExpressionAnalyzer::equal(left, right);
  *right_operand = kept;
  return equal;
}

size_t make_replay(Module& module, size_t address, rust::Slice<const uint32_t> locals) {
  auto* copy = ExpressionManipulator::copy(as_expression(address), module);
  if (auto** operand = captured_operand(copy)) {
    *operand = Builder(module).makeLocalGet(locals[0], (*operand)->type);
  }
  return as_address(copy);
}

void make_nullable(Module& module, Function& func, rust::Slice<const uint32_t> locals) {
  std::set<Index> wanted;
  for (auto local : locals) {
    auto type = func.getLocalType(local);
    if (func.isVar(local) && type.isNonNullable()) {
      wanted.insert(local);
      func.vars[local - func.getVarIndexBase()] = type.with(Nullable);
    }
  }
  if (wanted.empty()) {
    return;
  }
  Builder builder(module);
  for (auto** pointer : FindAllPointers<LocalGet>(func.body).list) {
    auto* get = (*pointer)->cast<LocalGet>();
    if (wanted.count(get->index) && get->type.isNonNullable()) {
      get->type = get->type.with(Nullable);
      *pointer = builder.makeRefAs(RefAsNonNull, get);
    }
  }
  for (auto** pointer : FindAllPointers<LocalSet>(func.body).list) {
    auto* set = (*pointer)->cast<LocalSet>();
    if (wanted.count(set->index) && set->isTee() && set->type != Type::unreachable) {
      set->type = func.getLocalType(set->index);
      *pointer = builder.makeRefAs(RefAsNonNull, set);
    }
  }
}

namespace {

Expression* cast_one(Module& module, Expression* value, Type type) {
  if (!type.isRef() || value->type == Type::unreachable) {
    return value;
  }
  Builder builder(module);
  type = Type(local_type(module, type.getID()));
  if (Type::isSubType(value->type, type)) {
    return value;
  }
  if (Type::isSubType(value->type, type.with(Nullable))) {
    return builder.makeRefAs(RefAsNonNull, value);
  }
  return builder.makeRefCast(value, type);
}

} // namespace

size_t cast_reference(Module& module, Function& func, size_t address, size_t id) {
  Builder builder(module);
  auto* value = as_expression(address);
  auto type = Type(id);
  if (!type.isTuple()) {
    return as_address(cast_one(module, value, type));
  }
  if (Type::isSubType(value->type, type)) {
    return address;
  }
  auto local = Builder::addVar(&func, value->type);
  std::vector<Expression*> parts;
  for (Index i = 0; i < type.size(); i++) {
    auto* part = builder.makeTupleExtract(builder.makeLocalGet(local, value->type), i);
    parts.push_back(cast_one(module, part, type[i]));
  }
  return as_address(builder.makeSequence(builder.makeLocalSet(local, value), builder.makeTupleMake(parts)));
}

namespace {

// Makes some value of a type. `open` are the types and tags that are being made: a type that needs itself has no value.
struct DefaultMaker {
  Module& module;
  Builder builder;
  std::unordered_set<HeapType> open;
  std::unordered_set<Name> open_tags;
  Index exceptions = 0;
  // Values that may still be made: a type that holds two of a type that holds two, and so on, has values of any size.
  Index values_left = 10000;

  explicit DefaultMaker(Module& module) : module(module), builder(module) {}

  Expression* make(Type type) {
    if (values_left == 0) {
      return nullptr;
    }
    values_left--;
    if (type.isTuple()) {
      std::vector<Expression*> parts;
      for (auto component : type) {
        auto* part = make(component);
        if (!part) {
          return nullptr;
        }
        parts.push_back(part);
      }
      return builder.makeTupleMake(parts);
    }
    if (!type.isRef()) {
      return builder.makeConst(Literal::makeZero(type));
    }
    if (type.isNullable()) {
      return builder.makeRefNull(type.getHeapType());
    }
    auto heap = type.getHeapType();
    if (heap.isShared() || type.isExact()) {
      return nullptr;
    }
    return heap.isBasic() ? make_basic(heap.getBasic(Unshared)) : make_defined(heap);
  }

  Expression* make_basic(HeapType::BasicHeapType heap) {
    auto* zero = builder.makeConst(int32_t(0));
    switch (heap) {
    case HeapType::any:
    case HeapType::eq:
    case HeapType::i31:
      return builder.makeRefI31(zero);
    case HeapType::ext:
      return module.features.hasGC() ? builder.makeRefAs(ExternConvertAny, builder.makeRefI31(zero)) : nullptr;
    case HeapType::string:
      return builder.makeStringConst(Name(""));
    case HeapType::struct_:
      return builder.makeStructNew(HeapType(Struct()), std::initializer_list<Expression*>{});
    case HeapType::array:
      return builder.makeArrayNewFixed(HeapType(Array(Field(Field::i8, Mutable))), std::vector<Expression*>{});
    case HeapType::func:
      return make_function(HeapType(Signature()));
    case HeapType::exn:
      return make_exception();
    default:
      return nullptr;
    }
  }

  // Throws an exception of the module and catches it.
  Expression* make_exception() {
    for (auto& tag : module.tags) {
      auto payload = tag->params();
      if (tag->results() != Type::none || !open_tags.insert(tag->name).second) {
        continue;
      }
      std::vector<Expression*> operands;
      for (auto type : payload) {
        operands.push_back(make(type));
      }
      open_tags.erase(tag->name);
      if (std::count(operands.begin(), operands.end(), nullptr) > 0) {
        continue;
      }
      auto label = Name("fork.exception." + std::to_string(exceptions++));
      auto* thrown = builder.makeTryTable(builder.makeThrow(tag.get(), operands), {Name()}, {label}, {true});
      return builder.makeBlock(label, std::vector<Expression*>{thrown, builder.makeUnreachable()},
                               Type(HeapType::exn, NonNullable));
    }
    return nullptr;
  }

  Expression* make_defined(HeapType heap) {
    if (heap.isSignature()) {
      return make_function(heap);
    }
    if (heap.isArray()) {
      return builder.makeArrayNewFixed(heap, std::vector<Expression*>{});
    }
    if (!heap.isStruct() || heap.getDescriptorType() || !open.insert(heap).second) {
      return nullptr;
    }
    std::vector<Expression*> fields;
    for (auto& field : heap.getStruct().fields) {
      auto* value = make(field.type);
      if (!value) {
        return nullptr;
      }
      fields.push_back(value);
    }
    open.erase(heap);
    return builder.makeStructNew(heap, fields);
  }

  Expression* make_function(HeapType heap) {
    auto name = Names::getValidFunctionName(module, "fork.never_called");
    auto func = std::make_unique<Function>();
    func->name = name;
    func->hasExplicitName = true;
    func->type = Type(heap, NonNullable, Exact);
    func->body = builder.makeUnreachable();
    module.addFunction(std::move(func));
    return builder.makeRefFunc(name);
  }
};

} // namespace

rust::Vec<TagRow> list_tags(const Module& module) {
  rust::Vec<TagRow> rows;
  for (auto& tag : module.tags) {
    rows.push_back({to_rust(tag->name), tag->params().getID(), tag->results() != Type::none});
  }
  return rows;
}

void add_reference_table(Module& module, rust::Str text, rust::Str export_name, size_t type, uint32_t size,
                         rust::Slice<const rust::String> functions) {
  auto name = as_name(text);
  auto* table = module.addTable(Builder::makeTable(name, Type(type), size, Table::kUnlimitedSize));
  module.addExport(Builder::makeExport(as_name(export_name), name, ExternalKind::Table));
  if (functions.empty()) {
    return;
  }
  Builder builder(module);
  std::vector<Expression*> items;
  for (auto& function : functions) {
    items.push_back(builder.makeRefFunc(wasm::Name(std::string_view(function.data(), function.size()))));
  }
  auto segment = std::make_unique<ElementSegment>(name, builder.makeConst(int32_t(0)), table->type, items);
  segment->name = name;
  module.addElementSegment(std::move(segment));
}

namespace {

// Adds to a set the functions that something refers to other than by an ordinary call: their types are seen there.
struct ReferenceCollector : public PostWalker<ReferenceCollector> {
  std::unordered_set<Name>& names;
  explicit ReferenceCollector(std::unordered_set<Name>& names) : names(names) {}
  void visitRefFunc(RefFunc* curr) { names.insert(curr->func); }
  void visitCall(Call* curr) {
    if (curr->isReturn) {
      names.insert(curr->target);
    }
  }
};

struct BottomCallRelaxer : public PostWalker<BottomCallRelaxer> {
  const std::unordered_map<Name, Type>& results;
  explicit BottomCallRelaxer(const std::unordered_map<Name, Type>& results) : results(results) {}
  void visitCall(Call* curr) {
    auto found = results.find(curr->target);
    if (found != results.end() && curr->type != Type::unreachable) {
      curr->type = found->second;
      replaceCurrent(Builder(*getModule()).makeRefAs(RefAsNonNull, curr));
    }
  }
};

} // namespace

void relax_bottom_results(Module& module, rust::Slice<const size_t> functions) {
  std::unordered_map<Name, Type> results;
  for (auto address : functions) {
    auto* func = as_function(address);
    auto type = func->getResults();
    if (type.isRef() && type.isNonNullable() && type.getHeapType().isBottom()) {
      results[func->name] = type.with(Nullable);
    }
  }
  if (results.empty()) {
    return;
  }
  std::unordered_set<Name> fixed;
  ReferenceCollector collector(fixed);
  collector.walkModuleCode(&module);
  for (auto& func : module.functions) {
    if (!func->imported()) {
      collector.walk(func->body);
    }
  }
  for (auto& item : module.exports) {
    if (item->kind == ExternalKind::Function) {
      fixed.insert(*item->getInternalName());
    }
  }
  for (auto name : fixed) {
    results.erase(name);
  }
  for (auto& [name, type] : results) {
    auto* func = module.getFunction(name);
    func->type = Type(HeapType(Signature(func->getParams(), type)), NonNullable, Exact);
  }
  for (auto& func : module.functions) {
    if (!func->imported()) {
      BottomCallRelaxer(results).walkFunctionInModule(func.get(), &module);
    }
  }
}

size_t make_default(Module& module, size_t type) { return as_address(DefaultMaker(module).make(Type(type))); }

} // namespace fork_instrument
