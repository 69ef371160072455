#include "state.h"

#include "fork-instrument/src/ir/ffi.rs.h"
#include "ir/find_all.h"
#include "ir/module-utils.h"
#include "ir/names.h"
#include "wasm-builder.h"

namespace fork_instrument {

using namespace wasm;

namespace {

// Whether the start function runs at no other time.
bool starts_only(Module& module) {
  struct Finder : public PostWalker<Finder> {
    Name start;
    bool found = false;
    void visitCall(Call* curr) { found |= curr->target == start; }
    void visitRefFunc(RefFunc* curr) { found |= curr->func == start; }
  };
  Finder finder;
  finder.start = module.start;
  for (auto& func : module.functions) {
    if (!func->imported()) {
      finder.walk(func->body);
    }
  }
  finder.walkModuleCode(&module);
  auto is_start = [&](auto& exported) {
    return exported->kind == ExternalKind::Function && *exported->getInternalName() == module.start;
  };
  return !finder.found && !std::any_of(module.exports.begin(), module.exports.end(), is_start);
}

} // namespace

rust::Vec<SegmentRow> list_dropped_segments(Module& module) {
  // In order of the module.
  std::unordered_set<Name> data, elements;
  struct Collector : public PostWalker<Collector> {
    std::unordered_set<Name>&data, &elements;
    Collector(std::unordered_set<Name>& data, std::unordered_set<Name>& elements) : data(data), elements(elements) {}
    void visitDataDrop(DataDrop* curr) { data.insert(curr->segment); }
    void visitElemDrop(ElemDrop* curr) { elements.insert(curr->segment); }
  };
  Collector collector(data, elements);
  bool skips_start = module.start && starts_only(module);
  for (auto& func : module.functions) {
    if (!func->imported() && !(skips_start && func->name == module.start)) {
      collector.walk(func->body);
    }
  }
  rust::Vec<SegmentRow> rows;
  auto add = [&](auto& segments, const std::unordered_set<Name>& dropped, bool is_data) {
    for (auto& segment : segments) {
      if (dropped.count(segment->name)) {
        rows.push_back({to_rust(segment->name), is_data});
      }
    }
  };
  add(module.dataSegments, data, true);
  add(module.elementSegments, elements, false);
  return rows;
}

void note_drops(Module& module, rust::Slice<const SegmentRow> segments, rust::Slice<const rust::String> globals) {
  struct Noter : public PostWalker<Noter> {
    // The global of each segment, by whether it holds data, and name.
    std::map<std::pair<bool, Name>, Name> globals;
    void note(Expression* drop, bool is_data, Name segment) {
      if (auto found = globals.find({is_data, segment}); found != globals.end()) {
        Builder builder(*getModule());
        auto* set = builder.makeGlobalSet(found->second, builder.makeConst(int32_t(1)));
        replaceCurrent(builder.makeBlock(std::vector<Expression*>{drop, set}, Type::none));
      }
    }
    void visitDataDrop(DataDrop* curr) { note(curr, true, curr->segment); }
    void visitElemDrop(ElemDrop* curr) { note(curr, false, curr->segment); }
  };
  Noter noter;
  for (size_t i = 0; i < segments.size(); i++) {
    noter.globals[{segments[i].is_data, as_name(segments[i].name)}] = as_name(globals[i]);
  }
  for (auto& func : module.functions) {
    if (!func->imported()) {
      noter.walkFunctionInModule(func.get(), &module);
    }
  }
}

void add_drop_again(Module& module, rust::Str name, rust::Slice<const SegmentRow> segments,
                    rust::Slice<const rust::String> globals) {
  Builder builder(module);
  std::vector<Expression*> code;
  for (size_t i = 0; i < segments.size(); i++) {
    auto segment = as_name(segments[i].name);
    auto* drop = segments[i].is_data ? (Expression*)builder.makeDataDrop(segment) : builder.makeElemDrop(segment);
    code.push_back(builder.makeIf(builder.makeGlobalGet(as_name(globals[i]), Type::i32), drop));
  }
  auto type = Type(HeapType(Signature(Type::none, Type::none)), NonNullable, Exact);
  auto func = Builder::makeFunction(as_name(name), type, {}, builder.makeBlock(code));
  func->hasExplicitName = true;
  module.addFunction(std::move(func));
}

namespace {

using Types = std::unordered_set<HeapType>;

// Collects the types through which objects are written.
struct WriteCollector : public PostWalker<WriteCollector> {
  Types& types;
  explicit WriteCollector(Types& types) : types(types) {}

  void add(Expression* object) {
    if (object->type.isRef()) {
      types.insert(object->type.getHeapType());
    }
  }
  void visitStructSet(StructSet* curr) { add(curr->ref); }
  void visitStructRMW(StructRMW* curr) { add(curr->ref); }
  void visitStructCmpxchg(StructCmpxchg* curr) { add(curr->ref); }
  void visitArraySet(ArraySet* curr) { add(curr->ref); }
  void visitArrayStore(ArrayStore* curr) { add(curr->ref); }
  void visitArrayCopy(ArrayCopy* curr) { add(curr->destRef); }
  void visitArrayFill(ArrayFill* curr) { add(curr->ref); }
  void visitArrayInitData(ArrayInitData* curr) { add(curr->ref); }
  void visitArrayInitElem(ArrayInitElem* curr) { add(curr->ref); }
  void visitArrayRMW(ArrayRMW* curr) { add(curr->ref); }
  void visitArrayCmpxchg(ArrayCmpxchg* curr) { add(curr->ref); }
  void visitStringEncode(StringEncode* curr) { add(curr->array); }
};

// Functions that engines provide for strings write to arrays that they are given.
void add_arrays_of_import(Function& import, Types& types) {
  bool is_writer = (import.module == "wasm:js-string" && import.base == "intoCharCodeArray") ||
                   (import.module == "wasm:text-encoder" && import.base == "encodeStringIntoUTF8Array");
  if (!is_writer) {
    return;
  }
  for (auto param : import.getParams()) {
    if (param.isRef()) {
      types.insert(param.getHeapType());
    }
  }
}

// Finds out whether code can tell whether two references are to the same object. Casts to the objects that a descriptor
// describes compare descriptors.
struct ComparisonFinder : public PostWalker<ComparisonFinder> {
  bool found = false;
  void visitRefEq(RefEq*) { found = true; }
  void visitStructCmpxchg(StructCmpxchg*) { found = true; }
  void visitArrayCmpxchg(ArrayCmpxchg*) { found = true; }
  void visitRefCast(RefCast* curr) { found = found || curr->desc; }
  void visitBrOn(BrOn* curr) { found = found || curr->desc; }
};

// A host can compare the objects that it is given at once. Engines' string functions go by what is in them.
bool can_compare(Function& func) {
  if (!func.imported()) {
    ComparisonFinder finder;
    finder.walk(func.body);
    return finder.found;
  }
  auto is_object = [](Type type) {
    if (!type.isRef()) {
      return false;
    }
    HeapType top = type.getHeapType().getTop();
    return top.isMaybeShared(HeapType::any) || top.isMaybeShared(HeapType::ext);
  };
  auto params = func.getParams();
  return func.module != "wasm:js-string" && std::count_if(params.begin(), params.end(), is_object) > 1;
}

bool is_below(HeapType type, const Types& types) {
  return std::any_of(types.begin(), types.end(), [&](HeapType above) { return HeapType::isSubType(type, above); });
}

// Types through which other modules get at objects of this one: those of what it imports and exports, and what is in
// their objects. Of functions only what they say: an abstract type is taken for what a host hands around, unless
// modules are linked that can look into it.
class SharedTypes {
  Module& module;
  // Closed: with a type go its subtypes, and those of what is in its objects.
  Types types;
  std::vector<HeapType> open;
  bool all = false;

  void add(HeapType type) {
    if (types.insert(type).second) {
      open.push_back(type);
    }
  }

  void add(Type type, bool abstract) {
    for (auto part : type) {
      if (!part.isRef()) {
        continue;
      }
      auto heap = part.getHeapType();
      if (!heap.isBasic()) {
        add(heap);
      } else if (abstract && !heap.isBottom() && !heap.isMaybeShared(HeapType::i31)) {
        HeapType top = heap.getTop();
        all = all || top.isMaybeShared(HeapType::any) || top.isMaybeShared(HeapType::ext);
      }
    }
  }

  void add_parts(HeapType type) {
    if (type.isStruct()) {
      for (auto& field : type.getStruct().fields) {
        add(field.type, true);
      }
    } else if (type.isArray()) {
      add(type.getArray().element.type, true);
    } else if (type.isSignature()) {
      add(type.getSignature().params, false);
      add(type.getSignature().results, false);
    }
  }

public:
  SharedTypes(Module& module, bool is_linked) : module(module) {
    auto add_function = [&](Function& func) {
      // What engines provide is known.
      if (!func.imported() || !func.module.startsWith("wasm:")) {
        add(func.getParams(), is_linked);
        add(func.getResults(), is_linked);
      }
    };
    ModuleUtils::iterImportedFunctions(module, [&](Function* func) { add_function(*func); });
    ModuleUtils::iterImportedGlobals(module, [&](Global* global) { add(global->type, is_linked); });
    ModuleUtils::iterImportedTables(module, [&](Table* table) { add(table->type, is_linked); });
    ModuleUtils::iterImportedTags(module, [&](Tag* tag) { add(tag->params(), is_linked); });
    for (auto& item : module.exports) {
      if (item->kind == ExternalKind::Function) {
        add_function(*module.getFunction(*item->getInternalName()));
      } else if (item->kind == ExternalKind::Global) {
        add(module.getGlobal(*item->getInternalName())->type, true);
      } else if (item->kind == ExternalKind::Table) {
        add(module.getTable(*item->getInternalName())->type, true);
      } else if (item->kind == ExternalKind::Tag) {
        add(module.getTag(*item->getInternalName())->params(), is_linked);
      }
    }
    std::unordered_map<HeapType, std::vector<HeapType>> subtypes;
    for (auto type : ModuleUtils::collectHeapTypes(module)) {
      if (auto super = type.getDeclaredSuperType()) {
        subtypes[*super].push_back(type);
      }
    }
    while (!open.empty() && !all) {
      auto type = open.back();
      open.pop_back();
      add_parts(type);
      for (auto subtype : subtypes[type]) {
        add(subtype);
      }
    }
  }

  bool contain(HeapType type) const { return all || types.count(type) > 0; }
};

bool has_mutable_parts(HeapType type) {
  if (type.isArray()) {
    return type.getArray().element.mutable_ == Mutable;
  }
  auto& fields = type.getStruct().fields;
  return std::any_of(fields.begin(), fields.end(), [](const Field& field) { return field.mutable_ == Mutable; });
}

// Finds constant expressions that hold objects which must be those of the parent.
struct HolderFinder : public PostWalker<HolderFinder, UnifiedExpressionVisitor<HolderFinder>> {
  const Types& written;
  const SharedTypes& shared;
  // A child gets copies of some objects.
  bool are_copied;
  // Objects of any type count.
  bool any;
  // Globals that hold such objects.
  std::unordered_set<Name> holders;
  bool found;

  HolderFinder(const Types& written, const SharedTypes& shared, bool are_copied, bool compares)
      : written(written), shared(shared), are_copied(are_copied), any(are_copied && compares), found(false) {}

  void visitExpression(Expression* curr) {
    if (curr->is<StructNew>() || curr->is<ArrayNew>() || curr->is<ArrayNewFixed>()) {
      auto made = curr->type.getHeapType();
      // Another module can change them, too, or compare them with others.
      auto is_others = [&]() { return (are_copied || has_mutable_parts(made)) && shared.contain(made); };
      found = found || any || is_below(made, written) || is_others();
    } else if (auto* get = curr->dynCast<GlobalGet>()) {
      found = found || holders.count(get->name);
    }
  }
  bool holds(Expression* expression) {
    found = false;
    walk(expression);
    return found;
  }
  bool holds(const ElementSegment& segment) {
    return std::any_of(segment.data.begin(), segment.data.end(), [&](Expression* item) { return holds(item); });
  }
};

// Whether a constant expression of the module makes objects.
bool makes_objects(Module& module) {
  struct Finder : public PostWalker<Finder> {
    bool found = false;
    void visitStructNew(StructNew*) { found = true; }
    void visitArrayNew(ArrayNew*) { found = true; }
    void visitArrayNewFixed(ArrayNewFixed*) { found = true; }
  };
  Finder finder;
  finder.walkModuleCode(&module);
  return finder.found;
}

} // namespace

rust::Vec<ObjectHolder> list_changing_objects(Module& module, bool are_copied, bool is_linked) {
  rust::Vec<ObjectHolder> rows;
  if (!module.features.hasGC() || !makes_objects(module)) {
    return rows;
  }
  struct Use {
    Types written;
    bool compares = false;
  };
  ModuleUtils::ParallelFunctionAnalysis<Use> analysis(module, [&](Function* func, Use& use) {
    use.compares = can_compare(*func);
    if (func->imported()) {
      add_arrays_of_import(*func, use.written);
    } else {
      WriteCollector(use.written).walk(func->body);
    }
  });
  Types written;
  bool compares = false;
  for (auto& [_, use] : analysis.map) {
    written.insert(use.written.begin(), use.written.end());
    compares = compares || use.compares;
  }
  SharedTypes shared(module, is_linked);
  HolderFinder finder(written, shared, are_copied, compares);
  // Constant expressions read globals in front of them.
  for (auto& global : module.globals) {
    if (!global->imported() && finder.holds(global->init)) {
      finder.holders.insert(global->name);
      rows.push_back({to_rust(global->name), 0});
    }
  }
  for (auto& table : module.tables) {
    bool found = table->init && finder.holds(table->init);
    for (auto& segment : module.elementSegments) {
      found = found || (segment->table == table->name && finder.holds(*segment));
    }
    if (found) {
      rows.push_back({to_rust(table->name), 1});
    }
  }
  for (auto& segment : module.elementSegments) {
    if (!segment->table && finder.holds(*segment)) {
      rows.push_back({to_rust(segment->name), 2});
    }
  }
  return rows;
}

rust::Vec<rust::String> make_globals_mutable(Module& module, rust::Slice<const rust::String> names) {
  struct Reads : public PostWalker<Reads> {
    std::unordered_set<Name> read;
    void visitGlobalGet(GlobalGet* curr) { read.insert(curr->name); }
  };
  Reads reads;
  reads.walkModuleCode(&module);
  std::unordered_set<Name> exported;
  for (auto& item : module.exports) {
    if (item->kind == ExternalKind::Global) {
      exported.insert(*item->getInternalName());
    }
  }
  rust::Vec<rust::String> out;
  std::unordered_map<Name, Name> copies;
  for (auto& text : names) {
    auto name = as_name(rust::Str(text));
    auto* global = module.getGlobal(name);
    if (!global->mutable_ && (global->imported() || exported.count(name))) {
      out.push_back("");
      continue;
    }
    if (!global->mutable_ && reads.read.count(name)) {
      Builder builder(module);
      auto copy = Names::getValidGlobalName(module, name.toString() + ".current");
      auto* init = builder.makeGlobalGet(name, global->type);
      module.addGlobal(Builder::makeGlobal(copy, global->type, init, Builder::Mutable));
      copies[name] = copy;
      name = copy;
    } else {
      global->mutable_ = true;
    }
    out.push_back(to_rust(name));
  }
  struct Redirect : public PostWalker<Redirect> {
    const std::unordered_map<Name, Name>& copies;
    explicit Redirect(const std::unordered_map<Name, Name>& copies) : copies(copies) {}
    void visitGlobalGet(GlobalGet* curr) {
      if (auto found = copies.find(curr->name); found != copies.end()) {
        curr->name = found->second;
      }
    }
  };
  for (auto& func : module.functions) {
    if (!copies.empty() && !func->imported()) {
      Redirect(copies).walk(func->body);
    }
  }
  return out;
}

} // namespace fork_instrument
