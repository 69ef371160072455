#include "state.h"

#include "fork-instrument/src/ir/ffi.rs.h"
#include "ir/find_all.h"
#include "ir/module-utils.h"
#include "wasm-builder.h"

namespace fork_instrument {

using namespace wasm;

rust::Vec<SegmentRow> list_dropped_segments(Module& module) {
  // In order of the module.
  std::unordered_set<Name> data, elements;
  for (auto& func : module.functions) {
    if (func->imported() || func->name == module.start) {
      continue;
    }
    for (auto* drop : FindAll<DataDrop>(func->body).list) {
      data.insert(drop->segment);
    }
    for (auto* drop : FindAll<ElemDrop>(func->body).list) {
      elements.insert(drop->segment);
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

void note_drops(Module& module, const SegmentRow& segment, rust::Str global) {
  struct Noter : public PostWalker<Noter> {
    Name segment, global;
    bool is_data;
    void note(Expression* drop) {
      Builder builder(*getModule());
      auto* set = builder.makeGlobalSet(global, builder.makeConst(int32_t(1)));
      replaceCurrent(builder.makeBlock(std::vector<Expression*>{drop, set}, Type::none));
    }
    void visitDataDrop(DataDrop* curr) {
      if (is_data && curr->segment == segment) {
        note(curr);
      }
    }
    void visitElemDrop(ElemDrop* curr) {
      if (!is_data && curr->segment == segment) {
        note(curr);
      }
    }
  };
  Noter noter;
  noter.segment = as_name(segment.name);
  noter.global = as_name(global);
  noter.is_data = segment.is_data;
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
};

// Whether an expression makes an object of a type that is written.
bool makes_written(Expression* expression, const Types& written) {
  struct Finder : public PostWalker<Finder, UnifiedExpressionVisitor<Finder>> {
    const Types& written;
    bool found = false;
    explicit Finder(const Types& written) : written(written) {}
    void visitExpression(Expression* curr) {
      if (curr->is<StructNew>() || curr->is<ArrayNew>() || curr->is<ArrayNewFixed>()) {
        auto made = curr->type.getHeapType();
        found = found || std::any_of(written.begin(), written.end(),
                                     [&](HeapType type) { return HeapType::isSubType(made, type); });
      }
    }
  };
  Finder finder(written);
  finder.walk(expression);
  return finder.found;
}

} // namespace

rust::Vec<ObjectHolder> list_changing_objects(Module& module) {
  rust::Vec<ObjectHolder> rows;
  if (!module.features.hasGC()) {
    return rows;
  }
  ModuleUtils::ParallelFunctionAnalysis<Types> analysis(module, [&](Function* func, Types& types) {
    if (!func->imported()) {
      WriteCollector(types).walk(func->body);
    }
  });
  Types written;
  for (auto& [_, types] : analysis.map) {
    written.insert(types.begin(), types.end());
  }
  for (auto& global : module.globals) {
    if (!global->imported() && makes_written(global->init, written)) {
      rows.push_back({to_rust(global->name), true});
    }
  }
  for (auto& table : module.tables) {
    auto* init = table->init;
    bool found = init && makes_written(init, written);
    for (auto& segment : module.elementSegments) {
      if (segment->table == table->name) {
        found = found || std::any_of(segment->data.begin(), segment->data.end(),
                                     [&](Expression* item) { return makes_written(item, written); });
      }
    }
    if (found) {
      rows.push_back({to_rust(table->name), false});
    }
  }
  return rows;
}

bool make_global_mutable(Module& module, rust::Str text) {
  auto name = as_name(text);
  auto* global = module.getGlobal(name);
  if (global->mutable_) {
    return true;
  }
  struct Reads : public PostWalker<Reads> {
    Name name;
    bool found = false;
    void visitGlobalGet(GlobalGet* curr) { found = found || curr->name == name; }
  };
  Reads reads;
  reads.name = name;
  reads.walkModuleCode(&module);
  bool exported = std::any_of(module.exports.begin(), module.exports.end(), [&](auto& item) {
    return item->kind == ExternalKind::Global && *item->getInternalName() == name;
  });
  if (global->imported() || exported || reads.found) {
    return false;
  }
  global->mutable_ = true;
  return true;
}

} // namespace fork_instrument
