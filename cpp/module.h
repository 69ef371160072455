// Reading and extending the module around the functions.
#pragma once

#include "bridge.h"

namespace fork_instrument {

struct ExportRow;
struct FunctionImport;
struct FunctionRow;
struct GlobalRow;
struct MemoryRow;
struct TableRow;
struct ImportRow;
struct ModuleFacts;
struct PassArgument;
struct FunctionTask;

ModuleFacts module_facts(const Module& module);
rust::Vec<FunctionRow> list_functions(const Module& module);
rust::Vec<FunctionImport> list_function_imports(const Module& module);
rust::Vec<ExportRow> list_exports(const Module& module);
rust::Vec<GlobalRow> list_globals(const Module& module);
rust::Vec<MemoryRow> list_memories(const Module& module);
rust::Vec<TableRow> list_tables(const Module& module);

// Defined functions with such names that so many direct calls name, in order of the module.
rust::Vec<rust::String> functions_with_calls(Module& module, rust::Str prefix, uint32_t at_least);

// Whether the name of any module item begins with the prefix.
bool has_name_with_prefix(const Module& module, rust::Str prefix);

// Adds what the text of a module defines, exports and imports, but for imports of a module without a name: these must
// exist here under the same internal name. Throws when the text does not parse.
void merge_text(Module& module, rust::Str text);

void add_custom_section(Module& module, rust::Str name, rust::Slice<const uint8_t> data);
// Names (module.base) and kinds of imports that are no functions.
rust::Vec<ImportRow> list_other_imports(const Module& module);
bool has_function(const Module& module, rust::Str name);
bool has_custom_section(const Module& module, rust::Str name);

// Makes the function export name another function.
void retarget_export(Module& module, rust::Str export_name, rust::Str function);

// Replaces all references to a function, but for plain calls: operands of ref.func, element segments, exports, and
// targets of tail calls.
void replace_references(Module& module, rust::Str function, rust::Str replacement);

// Adds a defined function with a body of `unreachable`, the results of `like` (references as the tops of their
// hierarchies), no parameters, and all of its locals
// (parameters included) as variables, named as there.
Function* add_resume_function(Module& module, const Function& like, rust::Str name);

// Adds a defined function of the same type with a body of `unreachable`.
void add_function_like(Module& module, const Function& like, rust::Str name);

void remove_functions(Module& module, rust::Slice<const rust::String> functions);

// Moves functions to the front, where their indices are short.
void put_functions_first(Module& module, rust::Slice<const rust::String> functions);

// Adds a function table and an active segment that fills it from its start.
void add_function_table(Module& module, rust::Str name, rust::Slice<const rust::String> functions);
// Appends functions to a defined function table; returns the index of the first.
uint64_t extend_function_table(Module& module, rust::Str name, rust::Slice<const rust::String> functions);

// Adds a passive data segment.

Function* get_function(Module& module, rust::Str name);
rust::String function_name(const Function& func);
uint32_t add_local(Function& func, size_t type, rust::Str name);
rust::String local_name(Function& func, uint32_t index);
rust::Vec<size_t> local_types(Function& func);

// The components of a type that can be a tuple.
rust::Vec<size_t> type_components(size_t type);
bool is_defaultable(size_t type);
bool is_reference(size_t type);
rust::String print_type(Module& module, size_t type);

// Calls the task once for each index, on Binaryen's threads.
void for_each_function(size_t count, const FunctionTask& task);

// Runs passes on functions, on Binaryen's threads, with the pipeline's options.
void run_on_functions(Pass& pass, Module& module, rust::Slice<const size_t> functions,
                      rust::Slice<const rust::String> passes);
// Runs one pass on the whole module.
void run_on_module(Pass& pass, Module& module, rust::Str name);

rust::Vec<PassArgument> pass_arguments(const Pass& pass);
// Whether the tool was told that no other module has anything of this one.
bool is_closed_world(const Pass& pass);
int32_t optimize_level(const Pass& pass);
int32_t shrink_level(const Pass& pass);

} // namespace fork_instrument
