#include "calls.h"

#include "fork-instrument/src/ir/ffi.rs.h"
#include "ir/find_all.h"
#include "ir/module-utils.h"

namespace fork_instrument {

using namespace wasm;

rust::Vec<Reference> list_references(Module& module) {
  rust::Vec<Reference> rows;
  // The globals that what a table starts with reads, and those that their values read.
  std::unordered_map<Name, std::unordered_set<Name>> read;
  std::function<void(Expression*, Name)> add = [&](Expression* expression, Name table) {
    for (auto* ref : FindAll<RefFunc>(expression).list) {
      rows.push_back({as_number(table), as_number(ref->func)});
    }
    if (!table) {
      return;
    }
    for (auto* get : FindAll<GlobalGet>(expression).list) {
      auto* global = module.getGlobal(get->name);
      if (!global->type.isRef() || !read[table].insert(global->name).second) {
        continue;
      }
      if (global->imported()) {
        rows.push_back({as_number(table), as_number(Name())});
      } else {
        add(global->init, table);
      }
    }
  };
  for (auto& segment : module.elementSegments) {
    for (auto* item : segment->data) {
      add(item, segment->table);
    }
  }
  for (auto& table : module.tables) {
    if (table->init) {
      add(table->init, table->name);
    }
  }
  for (auto& global : module.globals) {
    if (!global->imported()) {
      add(global->init, Name());
    }
  }
  return rows;
}

namespace {

enum class Kind : uint32_t { Call, CallIndirect, CallRef, RefFunc, TableWrite, GlobalWrite, StackSwitch, LegacyTry };

// Collects what one body calls, refers to and writes.
struct CallCollector : public PostWalker<CallCollector> {
  std::vector<CallSite>& sites;
  explicit CallCollector(std::vector<CallSite>& sites) : sites(sites) {}

  void add(Kind kind, Name target, bool is_return = false, size_t heap_type = 0) {
    CallSite site;
    site.caller = 0;
    site.kind = uint32_t(kind);
    site.target = as_number(target);
    site.is_return = is_return;
    site.heap_type = heap_type;
    sites.push_back(std::move(site));
  }
  void visitCall(Call* curr) { add(Kind::Call, curr->target, curr->isReturn); }
  void visitCallIndirect(CallIndirect* curr) {
    add(Kind::CallIndirect, curr->table, curr->isReturn, curr->heapType.getID());
  }
  void visitCallRef(CallRef* curr) {
    auto type = curr->target->type;
    if (type.isRef() && type.getHeapType().isSignature()) {
      add(Kind::CallRef, Name(), curr->isReturn, type.getHeapType().getID());
    }
  }
  void visitRefFunc(RefFunc* curr) { add(Kind::RefFunc, curr->func); }
  void visitGlobalSet(GlobalSet* curr) {
    if (curr->value->type.isRef()) {
      add(Kind::GlobalWrite, curr->name);
    }
  }
  void visitTableSet(TableSet* curr) { add(Kind::TableWrite, curr->table); }
  void visitTableGrow(TableGrow* curr) { add(Kind::TableWrite, curr->table); }
  void visitTableFill(TableFill* curr) { add(Kind::TableWrite, curr->table); }
  void visitTableCopy(TableCopy* curr) { add(Kind::TableWrite, curr->destTable); }
  void visitTableInit(TableInit* curr) { add(Kind::TableWrite, curr->table); }
  void visitResume(Resume*) { add(Kind::StackSwitch, Name()); }
  void visitResumeThrow(ResumeThrow*) { add(Kind::StackSwitch, Name()); }
  void visitStackSwitch(StackSwitch*) { add(Kind::StackSwitch, Name()); }
  void visitTry(Try*) { add(Kind::LegacyTry, Name()); }
};

} // namespace

CallSite describe_call(size_t call) {
  std::vector<CallSite> sites;
  CallCollector collector(sites);
  auto* expression = as_expression(call);
  if (auto* direct = expression->dynCast<Call>()) {
    collector.visitCall(direct);
  } else if (auto* indirect = expression->dynCast<CallIndirect>()) {
    collector.visitCallIndirect(indirect);
  } else {
    collector.visitCallRef(expression->cast<CallRef>());
  }
  return std::move(sites.at(0));
}

rust::Vec<CallSite> list_calls(Module& module) {
  ModuleUtils::ParallelFunctionAnalysis<std::vector<CallSite>> analysis(
      module, [&](Function* func, std::vector<CallSite>& sites) {
        if (!func->imported()) {
          CallCollector(sites).walk(func->body);
        }
      });
  rust::Vec<CallSite> rows;
  for (uint32_t i = 0; i < module.functions.size(); i++) {
    for (auto& site : analysis.map[module.functions[i].get()]) {
      site.caller = i;
      rows.push_back(std::move(site));
    }
  }
  return rows;
}

bool is_sub_type(size_t callee, size_t expected) { return HeapType::isSubType(HeapType(callee), HeapType(expected)); }

} // namespace fork_instrument
