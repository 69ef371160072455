#include "module.h"
#include "references.h"

#include "fork-instrument/src/ir/ffi.rs.h"
#include "ir/branch-utils.h"
#include "ir/find_all.h"
#include "ir/iteration.h"
#include "ir/module-utils.h"
#include "ir/names.h"
#include "ir/table-utils.h"
#include "ir/utils.h"
#include "parser/wat-parser.h"
#include "support/threads.h"
#include "wasm-builder.h"

namespace fork_instrument {

using namespace wasm;

namespace {

// Does the work for each index up to `count`, shared out among Binaryen's threads.
void in_parallel(size_t count, const std::function<void(size_t)>& work) {
  std::atomic<size_t> next{0};
  auto* pool = ThreadPool::get();
  std::vector<std::function<ThreadWorkState()>> workers;
  for (size_t i = 0; i < pool->size(); i++) {
    workers.push_back([&]() {
      auto index = next.fetch_add(1);
      if (index >= count) {
        return ThreadWorkState::Finished;
      }
      work(index);
      return ThreadWorkState::More;
    });
  }
  pool->work(workers);
}

} // namespace

ModuleFacts module_facts(const Module& module) {
  ModuleFacts facts;
  facts.start = module.start.is() ? to_rust(module.start) : rust::String();
  facts.reference_types = module.features.hasReferenceTypes();
  facts.mutable_globals = module.features.hasMutableGlobals();
  facts.multimemory = module.features.hasMultiMemory();
  facts.multivalue = module.features.hasMultivalue();
  facts.has_dylink = bool(module.dylinkSection);
  return facts;
}

rust::Vec<FunctionRow> list_functions(const Module& module) {
  rust::Vec<FunctionRow> rows;
  for (auto& func : module.functions) {
    FunctionRow row;
    row.name = as_number(func->name);
    row.address = as_address(func.get());
    row.imported = func->imported();
    row.heap_type = func->type.getHeapType().getID();
    row.params = func->getParams().getID();
    row.results = func->getResults().getID();
    rows.push_back(std::move(row));
  }
  return rows;
}

rust::Vec<FunctionImport> list_function_imports(const Module& module) {
  rust::Vec<FunctionImport> rows;
  for (auto& func : module.functions) {
    if (func->imported()) {
      auto path = func->module.toString() + "." + func->base.toString();
      rows.push_back({as_number(func->name), rust::String::lossy(path)});
    }
  }
  return rows;
}

rust::Vec<ExportRow> list_exports(const Module& module) {
  rust::Vec<ExportRow> rows;
  for (auto& exported : module.exports) {
    auto* internal = exported->getInternalName();
    rows.push_back({to_rust(exported->name), uint32_t(exported->kind), internal ? to_rust(*internal) : rust::String()});
  }
  return rows;
}

rust::Vec<GlobalRow> list_globals(const Module& module) {
  rust::Vec<GlobalRow> rows;
  for (auto& global : module.globals) {
    rows.push_back({to_rust(global->name), global->imported(), global->mutable_, global->type.getID(),
                    global->imported() ? to_rust(global->base) : rust::String()});
  }
  return rows;
}

rust::Vec<MemoryRow> list_memories(const Module& module) {
  rust::Vec<MemoryRow> rows;
  for (auto& memory : module.memories) {
    rows.push_back({to_rust(memory->name), memory->imported(), memory->is64(), memory->shared});
  }
  return rows;
}

rust::Vec<TableRow> list_tables(const Module& module) {
  rust::Vec<TableRow> rows;
  for (auto& table : module.tables) {
    rows.push_back({to_rust(table->name), table->imported(), table->is64(), table->type.isFunction(), table->initial});
  }
  return rows;
}

rust::Vec<rust::String> functions_with_calls(Module& module, rust::Str text, uint32_t at_least) {
  auto prefix = as_string(text);
  std::unordered_map<Name, std::atomic<uint32_t>> counts;
  for (auto& func : module.functions) {
    if (!func->imported() && func->name.startsWith(std::string_view(prefix))) {
      counts[func->name] = 0;
    }
  }
  struct Counter : public PostWalker<Counter> {
    std::unordered_map<Name, std::atomic<uint32_t>>& counts;
    explicit Counter(std::unordered_map<Name, std::atomic<uint32_t>>& counts) : counts(counts) {}
    void visitCall(Call* curr) {
      if (auto found = counts.find(curr->target); found != counts.end()) {
        found->second++;
      }
    }
  };
  in_parallel(module.functions.size(), [&](size_t index) {
    auto& func = module.functions[index];
    if (!func->imported()) {
      Counter(counts).walk(func->body);
    }
  });
  rust::Vec<rust::String> names;
  for (auto& func : module.functions) {
    if (auto found = counts.find(func->name); found != counts.end() && found->second >= at_least) {
      names.push_back(to_rust(func->name));
    }
  }
  return names;
}

bool has_name_with_prefix(const Module& module, rust::Str text) {
  auto prefix = as_string(text);
  auto any = [&](auto& items) {
    return std::any_of(items.begin(), items.end(),
                       [&](auto& item) { return item->name.startsWith(std::string_view(prefix)); });
  };
  return any(module.functions) || any(module.globals) || any(module.tables) || any(module.memories) ||
         any(module.elementSegments) || any(module.dataSegments) || any(module.tags);
}

void merge_text(Module& module, rust::Str text) {
  Module parsed;
  parsed.features = FeatureSet::All;
  auto result = WATParser::parseModule(parsed, std::string_view(text.data(), text.size()));
  if (auto* error = result.getErr()) {
    throw std::runtime_error(error->msg);
  }
  // Imports of a module without a name stand for items that are there.
  auto is_added = [](auto& item) { return !item->imported() || !item->module.toString().empty(); };
  for (auto& memory : parsed.memories) {
    if (is_added(memory)) {
      ModuleUtils::copyMemory(memory.get(), module);
    }
  }
  for (auto& table : parsed.tables) {
    if (is_added(table)) {
      ModuleUtils::copyTable(table.get(), module);
    }
  }
  for (auto& global : parsed.globals) {
    if (is_added(global)) {
      ModuleUtils::copyGlobal(global.get(), module);
    }
  }
  for (auto& func : parsed.functions) {
    if (!func->imported()) {
      ModuleUtils::copyFunction(func.get(), module)->hasExplicitName = true;
    }
  }
  for (auto& segment : parsed.elementSegments) {
    ModuleUtils::copyElementSegment(segment.get(), module);
  }
  for (auto& exported : parsed.exports) {
    module.addExport(new Export(*exported));
  }
}

void add_custom_section(Module& module, rust::Str name, rust::Slice<const uint8_t> data) {
  CustomSection section;
  section.name = as_string(name);
  section.data.assign(data.begin(), data.end());
  module.customSections.push_back(std::move(section));
}

rust::Vec<ImportRow> list_other_imports(const Module& module) {
  rust::Vec<ImportRow> rows;
  auto add = [&](auto& items, const char* kind) {
    for (auto& item : items) {
      if (item->imported()) {
        auto name = item->module.toString() + "." + item->base.toString();
        rows.push_back({rust::String::lossy(name), rust::String(kind)});
      }
    }
  };
  add(module.tables, "table");
  add(module.memories, "memory");
  add(module.globals, "global");
  add(module.tags, "tag");
  return rows;
}

bool has_function(const Module& module, rust::Str name) { return module.getFunctionOrNull(as_name(name)); }

bool has_custom_section(const Module& module, rust::Str name) {
  auto wanted = as_string(name);
  return std::any_of(module.customSections.begin(), module.customSections.end(),
                     [&](auto& section) { return section.name == wanted; });
}

void retarget_export(Module& module, rust::Str export_name, rust::Str function) {
  module.getExport(as_name(export_name))->setInternalName(as_name(function));
}

void replace_references(Module& module, rust::Str function, rust::Str replacement) {
  auto from = as_name(function);
  auto to = as_name(replacement);
  struct Replacer : public PostWalker<Replacer> {
    Name from, to;
    Type type;
    bool changed = false;
    void visitRefFunc(RefFunc* curr) {
      if (curr->func == from) {
        curr->func = to;
        curr->type = type;
        changed = true;
      }
    }
    void visitCall(Call* curr) {
      if (curr->isReturn && curr->target == from) {
        curr->target = to;
      }
    }
  };
  Replacer replacer;
  replacer.from = from;
  replacer.to = to;
  replacer.type = module.getFunction(to)->type;
  for (auto& func : module.functions) {
    if (!func->imported() && func->name != to) {
      replacer.changed = false;
      replacer.walk(func->body);
      if (replacer.changed) {
        ReFinalize().walkFunctionInModule(func.get(), &module);
      }
    }
  }
  replacer.walkModuleCode(&module);
  for (auto& exported : module.exports) {
    if (exported->kind == ExternalKind::Function && *exported->getInternalName() == from) {
      exported->setInternalName(to);
    }
  }
}

Function* add_resume_function(Module& module, const Function& original, rust::Str name) {
  auto& like = const_cast<Function&>(original);
  auto func = std::make_unique<Function>();
  func->name = as_name(name);
  func->hasExplicitName = true;
  auto results = Type(reference_top(like.getResults().getID()));
  func->type = Type(HeapType(Signature(Type::none, results)), NonNullable, Exact);
  for (Index i = 0; i < like.getNumLocals(); i++) {
    func->vars.push_back(like.getLocalType(i));
    if (like.hasLocalName(i)) {
      func->setLocalName(i, like.getLocalName(i));
    }
  }
  func->prologLocation = like.prologLocation;
  func->epilogLocation = like.epilogLocation;
  func->body = Builder(module).makeUnreachable();
  return module.addFunction(std::move(func));
}

void add_function_like(Module& module, const Function& like, rust::Str name) {
  auto func = std::make_unique<Function>();
  func->name = as_name(name);
  func->hasExplicitName = true;
  func->type = Type(like.type.getHeapType(), NonNullable, Exact);
  func->body = Builder(module).makeUnreachable();
  module.addFunction(std::move(func));
}

namespace {

std::vector<Expression*> make_references(Module& module, rust::Slice<const rust::String> functions) {
  Builder builder(module);
  std::vector<Expression*> items;
  for (auto& function : functions) {
    items.push_back(builder.makeRefFunc(wasm::Name(std::string_view(function.data(), function.size()))));
  }
  return items;
}

Expression* make_offset(Module& module, const Table& table, uint64_t offset) {
  return Builder(module).makeConst(Literal::makeFromInt64(offset, table.addressType));
}

} // namespace

void remove_functions(Module& module, rust::Slice<const rust::String> functions) {
  auto removed = as_names(functions);
  module.removeFunctions([&](Function* func) { return removed.count(func->name) > 0; });
}

void put_functions_first(Module& module, rust::Slice<const rust::String> functions) {
  auto first = as_names(functions);
  std::stable_partition(module.functions.begin(), module.functions.end(),
                        [&](auto& func) { return first.count(func->name) > 0; });
}

void add_function_table(Module& module, rust::Str text, rust::Slice<const rust::String> functions) {
  auto name = as_name(text);
  auto table = Builder::makeTable(name, Type(HeapType::func, Nullable), functions.size(), functions.size());
  auto* added = module.addTable(std::move(table));
  auto items = make_references(module, functions);
  auto segment = std::make_unique<ElementSegment>(name, make_offset(module, *added, 0), added->type, items);
  segment->name = name;
  module.addElementSegment(std::move(segment));
}

uint64_t extend_function_table(Module& module, rust::Str text, rust::Slice<const rust::String> functions) {
  auto* table = module.getTable(as_name(text));
  uint64_t first = table->initial;
  table->initial = first + functions.size();
  if (table->hasMax()) {
    table->max = std::max(uint64_t(table->max), uint64_t(table->initial));
  }
  auto items = make_references(module, functions);
  auto segment = std::make_unique<ElementSegment>(table->name, make_offset(module, *table, first), table->type, items);
  segment->name = Names::getValidElementSegmentName(module, "fork.resume");
  module.addElementSegment(std::move(segment));
  return first;
}

Function* get_function(Module& module, rust::Str name) { return module.getFunction(as_name(name)); }

rust::String function_name(const Function& func) { return to_rust(func.name); }

uint32_t add_local(Function& func, size_t type, rust::Str text) {
  auto index = Builder::addVar(&func, Type(type));
  auto base = as_string(text);
  auto numbered = [&](size_t number) { return number ? Name(base + "." + std::to_string(number)) : Name(base); };
  auto is_taken = [&](size_t number) { return func.hasLocalIndex(numbered(number)); };
  // A function can have thousands of them: those before the first free number are taken.
  size_t free = 0, taken = 0;
  while (is_taken(free)) {
    taken = free;
    free = 2 * free + 1;
  }
  while (free > taken + 1) {
    auto middle = taken + (free - taken) / 2;
    (is_taken(middle) ? taken : free) = middle;
  }
  func.setLocalName(index, numbered(free));
  return index;
}

rust::String local_name(Function& func, uint32_t index) { return to_rust(func.getLocalNameOrGeneric(index)); }

rust::Vec<size_t> local_types(Function& func) {
  rust::Vec<size_t> types;
  for (Index i = 0; i < func.getNumLocals(); i++) {
    types.push_back(func.getLocalType(i).getID());
  }
  return types;
}

rust::Vec<size_t> type_components(size_t id) {
  rust::Vec<size_t> components;
  auto type = Type(id);
  if (type.isConcrete()) {
    for (const auto& component : type) {
      components.push_back(component.getID());
    }
  }
  return components;
}

bool is_defaultable(size_t type) { return Type(type).isDefaultable(); }
bool is_reference(size_t type) { return Type(type).isRef(); }

rust::String print_type(Module& module, size_t type) {
  std::stringstream text;
  text << ModuleType(module, Type(type));
  auto string = text.str();
  return rust::String::lossy(string.data(), string.size());
}

void for_each_function(size_t count, const FunctionTask& task) {
  in_parallel(count, [&](size_t index) { run_function_task(task, index); });
}

namespace {

// Whether dead-code elimination would change anything: a walk that finds nothing costs a fifth of the pass.
struct DeadCodeFinder : public PostWalker<DeadCodeFinder, UnifiedExpressionVisitor<DeadCodeFinder>> {
  bool found = false;
  // Labels that are branched to.
  std::unordered_set<Name> labels;

  static bool is_dead_end(Expression* curr) { return curr && curr->type == Type::unreachable; }

  bool is_dead(Block* curr) {
    auto& list = curr->list;
    if (list.empty()) {
      return false;
    }
    auto dead_end = std::find_if(list.begin(), list.end(), is_dead_end);
    if (dead_end == list.end()) {
      return false;
    }
    bool is_last = *dead_end == list.back();
    return !is_last || (list.size() == 1 && list[0]->is<Unreachable>()) ||
           (curr->type.isConcrete() && !labels.count(curr->name));
  }

  void visitExpression(Expression* curr) {
    if (found) {
      return;
    }
    BranchUtils::operateOnScopeNameUses(curr, [&](Name& name) { labels.insert(name); });
    if (auto* block = curr->dynCast<Block>()) {
      found = is_dead(block);
    } else if (auto* loop = curr->dynCast<Loop>()) {
      found = loop->body->is<Unreachable>();
    } else if (auto* table = curr->dynCast<TryTable>()) {
      found = table->type != Type::unreachable && is_dead_end(table->body);
    } else if (curr->is<Try>() || curr->type == Type::unreachable || curr->is<If>()) {
      // What ends in a dead end in some of its children.
      for (auto* child : ChildIterator(curr)) {
        bool is_arm = curr->is<If>() && child != curr->cast<If>()->condition;
        found = found || (is_dead_end(child) && !is_arm);
      }
      if (auto* iff = curr->dynCast<If>()) {
        found = found || (curr->type != Type::unreachable && is_dead_end(iff->ifTrue) && is_dead_end(iff->ifFalse));
      }
    }
  }
};

bool has_dead_code(Function* func) {
  DeadCodeFinder finder;
  finder.walk(func->body);
  return finder.found;
}

} // namespace

void run_on_functions(Pass& pass, Module& module, rust::Slice<const size_t> functions,
                      rust::Slice<const rust::String> passes) {
  // Threads share runners: each makes its own instance of the pass.
  std::vector<std::pair<std::string, std::unique_ptr<PassRunner>>> runners;
  for (auto& name : passes) {
    auto& [text, runner] =
        runners.emplace_back(std::string(name), std::make_unique<PassRunner>(&module, pass.getPassOptions()));
    runner->setIsNested(true);
    runner->add(text);
  }
  in_parallel(functions.size(), [&](size_t index) {
    auto* func = as_function(functions[index]);
    for (auto& [name, runner] : runners) {
      if (name != "dce" || has_dead_code(func)) {
        runner->runOnFunction(func);
      }
    }
  });
}

void run_on_module(Pass& pass, Module& module, rust::Str name) {
  PassRunner runner(&module, pass.getPassOptions());
  runner.setIsNested(true);
  runner.add(as_string(name));
  runner.run();
}

namespace {

const std::unordered_map<std::string, std::string>& arguments(const Pass& pass) {
  return const_cast<Pass&>(pass).getPassOptions().arguments;
}

} // namespace

rust::Vec<PassArgument> pass_arguments(const Pass& pass) {
  std::map<std::string, std::string> sorted(arguments(pass).begin(), arguments(pass).end());
  rust::Vec<PassArgument> out;
  for (auto& [key, value] : sorted) {
    out.push_back({rust::String::lossy(key), rust::String::lossy(value)});
  }
  return out;
}

bool is_closed_world(const Pass& pass) { return const_cast<Pass&>(pass).getPassOptions().worldMode != WorldMode::Open; }
int32_t optimize_level(const Pass& pass) { return const_cast<Pass&>(pass).getPassOptions().optimizeLevel; }
int32_t shrink_level(const Pass& pass) { return const_cast<Pass&>(pass).getPassOptions().shrinkLevel; }

} // namespace fork_instrument
