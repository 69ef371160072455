// References: their hierarchies, where locals get them from, how they can be computed again, and values for results
// that cannot be null.
#pragma once

#include "bridge.h"
#include <unordered_map>
#include <unordered_set>

namespace fork_instrument {

// The type with each reference replaced by the nullable top of its hierarchy.
size_t reference_top(size_t type);

// 0 no reference, 1 function, 2 extern, 3 any, 4 exception, 5 i31, 6 what neither tables nor frames hold.
uint32_t reference_class(size_t type);

// The type as one for a local: without the exactness that only Binaryen knows of.
size_t local_type(const Module& module, size_t type);
size_t nullable_type(size_t type);
size_t basic_reference(uint32_t reference_class);

// Which `local.set`s (and tees) the value of a local with references can come from, at some point.
class ReachingSets {
public:
  struct Set {
    uint32_t local;
    size_t expression;
  };
  struct Position {
    uint32_t block;
    // Those of the block's sets that are in front.
    uint32_t sets;
  };

  ReachingSets(Module& module, Function& func);

  // Addresses of the sets that reach a call or a read of such a local; 0 stands for the value on entry of the function.
  rust::Vec<size_t> at(size_t expression, uint32_t local) const;

private:
  struct Block {
    std::vector<Set> sets;
    std::vector<uint32_t> in;
    bool is_entry;
  };
  std::vector<Block> blocks;
  std::unordered_map<size_t, Position> positions;
};

std::unique_ptr<ReachingSets> reaching_sets(Module& module, Function& func);

// Whether the expression can be computed again once its captured operands are known: constants, immutable globals,
// ref.i31, reads of the tables named, and casts and conversions of these. `captures` gets the numeric operands whose
// value must be kept.
bool is_replayable(Module& module, size_t expression, rust::Slice<const rust::String> tables,
                   rust::Slice<const rust::String> globals, rust::Vec<size_t>& captures);

// Whether two replayable expressions differ in their captured operands only.
bool is_same_replay(size_t left, size_t right);

// A copy of a replayable expression with its captured operands replaced by reads of locals.
size_t make_replay(Module& module, size_t expression, rust::Slice<const uint32_t> locals);

// Makes variables nullable: `local.get`s that were not built as nullable check for null instead.
void make_nullable(Module& module, Function& func, rust::Slice<const uint32_t> locals);

// The value, a reference of some supertype, as one of the type. Only components of references change.
size_t cast_reference(Module& module, Function& func, size_t value, size_t type);

// An expression for some value of the type, for results that nobody looks at; 0 if there is none to be made. Can add
// functions to the module.
size_t make_default(Module& module, size_t type);

struct TagRow;
rust::Vec<TagRow> list_tags(const Module& module);

// Adds an exported table of nullable references that can grow, and fills it from its start with functions.
void add_reference_table(Module& module, rust::Str name, rust::Str export_name, size_t type, uint32_t size,
                         rust::Slice<const rust::String> functions);

// Functions that return a non-null reference to nothing, which they therefore never do, return a nullable one from now
// on. Those that are exported, referenced or tail-called stay as they are.
void relax_bottom_results(Module& module, rust::Slice<const size_t> functions);

} // namespace fork_instrument
