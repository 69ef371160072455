// State of a program that a fresh instance has not and that no host can reach: dropped segments, and objects that
// globals and tables start with.
#pragma once

#include "bridge.h"

namespace fork_instrument {

struct SegmentRow;
struct ObjectHolder;

// Segments that functions drop, each once; those that only the start function drops are dropped by any instance.
rust::Vec<SegmentRow> list_dropped_segments(Module& module);
// Sets each segment's global, an i32, to 1 wherever the segment is dropped.
void note_drops(Module& module, rust::Slice<const SegmentRow> segments, rust::Slice<const rust::String> globals);
// Adds a function that drops the segments whose global is not 0.
void add_drop_again(Module& module, rust::Str name, rust::Slice<const SegmentRow> segments,
                    rust::Slice<const rust::String> globals);

// Globals, tables and passive element segments with objects that must be those of the parent: the program writes to
// them, or they hold such ones, or, if other objects are copied for a child, the program compares objects. So can other
// modules, as far as they get at the objects; linked ones at all that goes in and out.
rust::Vec<ObjectHolder> list_changing_objects(Module& module, bool are_copied, bool is_linked);
// Makes globals mutable. One that a constant expression reads stays as it is, and functions read a copy from now on.
// Returns the names of the mutable ones; empty if a global is imported or exported.
rust::Vec<rust::String> make_globals_mutable(Module& module, rust::Slice<const rust::String> names);

} // namespace fork_instrument
