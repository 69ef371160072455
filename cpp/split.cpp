#include "split.h"

#include "fork-instrument/src/ir/ffi.rs.h"
#include "ir/element-utils.h"
#include "ir/find_all.h"
#include "ir/module-utils.h"
#include "pass.h"
#include "wasm-binary.h"
#include "wasm-builder.h"
#include "wasm-validator.h"

#include "tree.h"

namespace fork_instrument {

using namespace wasm;

namespace {

// Module items by kind and name, in the order in which they are first met.
struct UsedItems {
  std::vector<std::pair<ModuleItemKind, Name>> items;
  std::set<std::pair<ModuleItemKind, Name>> seen;

  void add(ModuleItemKind kind, Name name) {
    if (seen.emplace(kind, name).second) {
      items.emplace_back(kind, name);
    }
  }
};

// Collects every module item that an expression names.
struct ItemCollector : public PostWalker<ItemCollector, UnifiedExpressionVisitor<ItemCollector>> {
  UsedItems& used;
  explicit ItemCollector(UsedItems& used) : used(used) {}

  void visitExpression(Expression* curr) {
#define DELEGATE_ID curr->_id
#define DELEGATE_START(id) [[maybe_unused]] auto* cast = curr->cast<id>();
#define DELEGATE_GET_FIELD(id, field) cast->field
#define DELEGATE_FIELD_TYPE(id, field)
#define DELEGATE_FIELD_HEAPTYPE(id, field)
#define DELEGATE_FIELD_CHILD(id, field)
#define DELEGATE_FIELD_INT(id, field)
#define DELEGATE_FIELD_LITERAL(id, field)
#define DELEGATE_FIELD_NAME(id, field)
#define DELEGATE_FIELD_SCOPE_NAME_DEF(id, field)
#define DELEGATE_FIELD_SCOPE_NAME_USE(id, field)
#define DELEGATE_FIELD_ADDRESS(id, field)
#define DELEGATE_FIELD_NAME_KIND(id, field, kind)                                                                      \
  if (cast->field.is()) {                                                                                              \
    used.add(kind, cast->field);                                                                                       \
  }
#include "wasm-delegations-fields.def"
  }
};

ExternalKind external_kind(ModuleItemKind kind) {
  switch (kind) {
  case ModuleItemKind::Function:
    return ExternalKind::Function;
  case ModuleItemKind::Table:
    return ExternalKind::Table;
  case ModuleItemKind::Memory:
    return ExternalKind::Memory;
  case ModuleItemKind::Global:
    return ExternalKind::Global;
  case ModuleItemKind::Tag:
    return ExternalKind::Tag;
  default:
    throw std::runtime_error("a segment cannot be exported");
  }
}

// Names for exports: short, and taken by nothing else.
class ExportNames {
public:
  explicit ExportNames(Module& module) : module(module) {
    for (auto& exported : module.exports) {
      if (auto* name = exported->getInternalName()) {
        existing.emplace(std::make_pair(exported->kind, *name), exported->name);
      }
    }
  }

  // The name under which the item is exported; it is exported if it was not.
  Name get(ModuleItemKind kind, Name item) {
    auto key = std::make_pair(external_kind(kind), item);
    if (auto found = existing.find(key); found != existing.end()) {
      return found->second;
    }
    auto name = next();
    add(kind, item, name);
    return name;
  }

  void add(ModuleItemKind kind, Name item, Name name) {
    module.addExport(std::make_unique<Export>(name, external_kind(kind), item));
    existing[std::make_pair(external_kind(kind), item)] = name;
  }

private:
  Name next() {
    static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    while (true) {
      std::string text;
      for (size_t n = counter++ + 1; n > 0; n /= 62) {
        text.push_back(digits[n % 62]);
      }
      if (!module.getExportOrNull(text)) {
        return text;
      }
    }
  }

  Module& module;
  std::map<std::pair<ExternalKind, Name>, Name> existing;
  size_t counter = 0;
};

template <typename T> std::unique_ptr<T> import_of(const T& item, Name module, Name base) {
  auto copy = std::make_unique<T>(item);
  copy->module = module;
  copy->base = base;
  return copy;
}

void add_import(Module& first, Module& second, ModuleItemKind kind, Name name, Name module, Name base) {
  switch (kind) {
  case ModuleItemKind::Function: {
    auto* original = first.getFunction(name);
    auto func = std::make_unique<Function>();
    func->name = name;
    func->hasExplicitName = original->hasExplicitName;
    // Without custom descriptors no import is exact.
    auto exactness = first.features.hasCustomDescriptors() ? original->type.getExactness() : Inexact;
    func->type = Type(original->type.getHeapType(), NonNullable, exactness);
    func->module = module;
    func->base = base;
    second.addFunction(std::move(func));
    return;
  }
  case ModuleItemKind::Table: {
    auto table = import_of(*first.getTable(name), module, base);
    table->init = nullptr;
    second.addTable(std::move(table));
    return;
  }
  case ModuleItemKind::Memory:
    second.addMemory(import_of(*first.getMemory(name), module, base));
    return;
  case ModuleItemKind::Global: {
    auto global = import_of(*first.getGlobal(name), module, base);
    global->init = nullptr;
    second.addGlobal(std::move(global));
    return;
  }
  case ModuleItemKind::Tag:
    second.addTag(import_of(*first.getTag(name), module, base));
    return;
  default:
    throw std::runtime_error("a segment cannot be imported");
  }
}

// Moves functions, in the order of the list. Their code stays where it is, in the arena of the first module.
void move_functions(Module& first, Module& second, const rust::Vec<rust::String>& names,
                    const std::unordered_set<Name>& moved) {
  std::unordered_map<Name, std::unique_ptr<Function>> taken;
  for (auto& func : first.functions) {
    if (moved.count(func->name)) {
      auto name = func->name;
      taken[name] = std::move(func);
    }
  }
  auto& rest = first.functions;
  rest.erase(std::remove(rest.begin(), rest.end(), nullptr), rest.end());
  first.updateFunctionsMap();
  for (auto& name : names) {
    second.addFunction(std::move(taken.at(to_name(name))));
  }
}

// Slots of the table of functions that stay are filled by the first module, the others by the second; neighbours share
// a segment.
void divide_slots(Module& first, Module& second, const Split& split, Name table,
                  const std::unordered_set<Name>& moved) {
  std::unordered_set<Name> entered;
  for (auto& entry : split.entries) {
    entered.insert(to_name(entry.function));
  }
  first.removeElementSegments([&](ElementSegment* segment) {
    return segment->table == table && segment->data.size() &&
           std::all_of(segment->data.begin(), segment->data.end(), [&](Expression* item) {
             auto* ref = item->dynCast<RefFunc>();
             return ref && entered.count(ref->func);
           });
  });
  ElementSegment* open[2] = {nullptr, nullptr};
  uint64_t next[2] = {0, 0};
  for (auto& entry : split.entries) {
    auto name = to_name(entry.function);
    int side = moved.count(name) ? 1 : 0;
    auto& owner = side ? second : first;
    auto* owner_table = owner.getTable(table);
    if (!open[side] || next[side] != entry.index) {
      auto offset = Builder(owner).makeConst(Literal::makeFromInt64(entry.index, owner_table->addressType));
      auto segment = std::make_unique<ElementSegment>(table, offset, owner_table->type);
      segment->name = Names::getValidElementSegmentName(owner, "fork.resume." + std::to_string(entry.index));
      open[side] = owner.addElementSegment(std::move(segment));
    }
    open[side]->data.push_back(Builder(owner).makeRefFunc(name));
    next[side] = entry.index + 1;
  }
}

} // namespace

bool uses_segments(const Function& func) {
  UsedItems used;
  ItemCollector(used).walk(const_cast<Function&>(func).body);
  return std::any_of(used.items.begin(), used.items.end(), [](auto& item) {
    return item.first == ModuleItemKind::DataSegment || item.first == ModuleItemKind::ElementSegment;
  });
}

std::unique_ptr<SecondModule> split_module(Module& first, const Split& split) {
  auto result = std::make_unique<SecondModule>(first);
  auto& second = *result->module;
  second.features = first.features;
  second.hasFeaturesSection = first.hasFeaturesSection;
  second.typeNames = first.typeNames;
  second.debugInfoFileNames = first.debugInfoFileNames;
  second.debugInfoSymbolNames = first.debugInfoSymbolNames;

  auto names_of = [](auto& list) { return as_names(rust::Slice<const rust::String>(list.data(), list.size())); };
  auto moved = names_of(split.functions), moved_globals = names_of(split.globals);
  move_functions(first, second, split.functions, moved);
  for (auto& name : split.shared_functions) {
    auto* original = first.getFunction(to_name(name));
    ModuleUtils::copyFunction(original, second)->hasExplicitName = original->hasExplicitName;
  }
  UsedItems used;
  for (auto& func : second.functions) {
    ItemCollector(used).walk(func->body);
  }
  auto own_globals = names_of(split.shared_globals);
  own_globals.insert(moved_globals.begin(), moved_globals.end());
  for (auto& global : first.globals) {
    if (own_globals.count(global->name)) {
      second.addGlobal(std::make_unique<Global>(*global));
    }
  }
  auto table = to_name(split.table);
  used.add(ModuleItemKind::Table, table);

  ExportNames exports(first);
  exports.add(ModuleItemKind::Table, table, to_name(split.table_export));
  auto import_module = to_name(split.import_module);
  for (auto& [kind, name] : used.items) {
    bool is_there = kind == ModuleItemKind::Function && second.getFunctionOrNull(name) ||
                    kind == ModuleItemKind::Global && own_globals.count(name);
    if (!is_there) {
      add_import(first, second, kind, name, import_module, exports.get(kind, name));
    }
  }

  // A reference to a function that is imported now has another type.
  for (auto& func : second.functions) {
    if (!func->imported() && !FindAll<RefFunc>(func->body).list.empty()) {
      refinalize(second, *func);
    }
  }

  divide_slots(first, second, split, table, moved);
  first.removeGlobals([&](Global* global) { return moved_globals.count(global->name); });

  // Those that are called most get the shortest indices.
  PassRunner runner(&second);
  runner.setIsNested(true);
  runner.add("reorder-functions");
  runner.run();
  return result;
}

void rename_table_export(SecondModule& second, rust::Str from, rust::Str to) {
  auto old_name = as_name(from);
  auto new_name = as_name(to);
  auto item = *second.first.getExport(old_name)->getInternalName();
  for (auto& exported : second.first.exports) {
    if (exported->name == old_name) {
      exported->name = new_name;
    }
  }
  second.first.updateMaps();
  second.module->getTable(item)->base = new_name;
}

rust::Vec<uint8_t> write_second(Pass& pass, SecondModule& second, bool text) {
  auto& options = pass.getPassOptions();
  auto& module = *second.module;
  if (options.validate && !WasmValidator().validate(module, options)) {
    throw std::runtime_error("the module with the resume functions does not validate");
  }
  rust::Vec<uint8_t> out;
  auto copy = [&](const auto& bytes) {
    out.reserve(bytes.size());
    for (auto byte : bytes) {
      out.push_back(uint8_t(byte));
    }
  };
  if (text) {
    std::stringstream stream;
    stream << module;
    copy(stream.str());
    return out;
  }
  BufferWithRandomAccess buffer;
  WasmBinaryWriter writer(&module, buffer, options);
  writer.setNamesSection(options.debugInfo);
  writer.write();
  copy(buffer);
  return out;
}

} // namespace fork_instrument
