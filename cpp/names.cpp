#include "names.h"

#include <functional>

#include "ir/branch-utils.h"
#include "ir/names.h"

namespace fork_instrument {

using namespace wasm;

namespace {

using Renames = std::map<ModuleItemKind, std::unordered_map<Name, Name>>;

// Replaces names of module items wherever code refers to them.
struct NameMapper : public WalkerPass<PostWalker<NameMapper, UnifiedExpressionVisitor<NameMapper>>> {
  const Renames& renames;

  explicit NameMapper(const Renames& renames) : renames(renames) {}
  bool isFunctionParallel() override { return true; }
  std::unique_ptr<Pass> create() override { return std::make_unique<NameMapper>(renames); }

  void map(ModuleItemKind kind, Name& name) const {
    if (auto of_kind = renames.find(kind); of_kind != renames.end()) {
      if (auto found = of_kind->second.find(name); found != of_kind->second.end()) {
        name = found->second;
      }
    }
  }

  void visitExpression(Expression* curr) {
#define DELEGATE_ID curr->_id
#define DELEGATE_START(id) [[maybe_unused]] auto* cast = curr->cast<id>();
#define DELEGATE_GET_FIELD(id, field) cast->field
#define DELEGATE_FIELD_TYPE(id, field)
#define DELEGATE_FIELD_HEAPTYPE(id, field)
#define DELEGATE_FIELD_CHILD(id, field)
#define DELEGATE_FIELD_OPTIONAL_CHILD(id, field)
#define DELEGATE_FIELD_INT(id, field)
#define DELEGATE_FIELD_LITERAL(id, field)
#define DELEGATE_FIELD_NAME(id, field)
#define DELEGATE_FIELD_SCOPE_NAME_DEF(id, field)
#define DELEGATE_FIELD_SCOPE_NAME_USE(id, field)
#define DELEGATE_FIELD_ADDRESS(id, field)
#define DELEGATE_FIELD_NAME_KIND(id, field, kind) map(kind, cast->field);
#include "wasm-delegations-fields.def"
  }
};

// Visits the labels of a function, where they are defined and where they are used.
struct LabelVisitor : public PostWalker<LabelVisitor, UnifiedExpressionVisitor<LabelVisitor>> {
  std::function<void(Name&)> visit_label;
  void visitExpression(Expression* curr) {
    BranchUtils::operateOnScopeNameDefs(curr, [&](Name& name) { visit_label(name); });
    BranchUtils::operateOnScopeNameUses(curr, [&](Name& name) { visit_label(name); });
  }
};

bool is_unusable(Name name) { return name.is() && (name.size() == 0 || name.view().find('\0') != name.view().npos); }

// Without zero bytes, and not empty.
Name usable(Name name, const std::unordered_set<Name>& taken) {
  auto text = name.toString();
  std::replace(text.begin(), text.end(), '\0', '_');
  return Names::getValidNameGivenExisting(Name(text.empty() ? "_" : text), taken);
}

struct LabelReplacer : public WalkerPass<PostWalker<LabelReplacer>> {
  bool isFunctionParallel() override { return true; }
  std::unique_ptr<Pass> create() override { return std::make_unique<LabelReplacer>(); }
  void doWalkFunction(Function* func) {
    std::unordered_set<Name> labels;
    LabelVisitor visitor;
    auto replaces = false;
    visitor.visit_label = [&](Name& name) {
      labels.insert(name);
      replaces |= is_unusable(name);
    };
    visitor.walk(func->body);
    if (!replaces) {
      return;
    }
    std::unordered_map<Name, Name> replaced;
    visitor.visit_label = [&](Name& name) {
      if (is_unusable(name)) {
        auto& other = replaced[name];
        if (!other) {
          other = usable(name, labels);
          labels.insert(other);
        }
        name = other;
      }
    };
    visitor.walk(func->body);
  }
};

} // namespace

void replace_unusable_names(Module& module) {
  PassRunner label_runner(&module);
  LabelReplacer().run(&label_runner, &module);
  Renames all;
  auto rename = [&](ModuleItemKind kind, auto& items) {
    if (std::none_of(items.begin(), items.end(), [](auto& item) { return is_unusable(item->name); })) {
      return;
    }
    std::unordered_set<Name> taken;
    for (auto& item : items) {
      taken.insert(item->name);
    }
    for (auto& item : items) {
      if (is_unusable(item->name)) {
        auto name = usable(item->name, taken);
        taken.insert(name);
        all[kind][item->name] = name;
        item->name = name;
      }
    }
  };
  rename(ModuleItemKind::Function, module.functions);
  rename(ModuleItemKind::Table, module.tables);
  rename(ModuleItemKind::Memory, module.memories);
  rename(ModuleItemKind::Global, module.globals);
  rename(ModuleItemKind::Tag, module.tags);
  rename(ModuleItemKind::DataSegment, module.dataSegments);
  rename(ModuleItemKind::ElementSegment, module.elementSegments);
  if (all.empty()) {
    return;
  }
  module.updateMaps();
  NameMapper mapper(all);
  PassRunner runner(&module);
  mapper.run(&runner, &module);
  mapper.runOnModuleCode(&runner, &module);
  for (auto& item : module.exports) {
    // Exports of types have none.
    if (auto* name = item->getInternalName()) {
      mapper.map(ModuleItemKind(item->kind), *name);
    }
  }
  for (auto& segment : module.elementSegments) {
    mapper.map(ModuleItemKind::Table, segment->table);
  }
  for (auto& segment : module.dataSegments) {
    mapper.map(ModuleItemKind::Memory, segment->memory);
  }
  mapper.map(ModuleItemKind::Function, module.start);
}

} // namespace fork_instrument
