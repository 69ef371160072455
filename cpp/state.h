// State of a program that a fresh instance has not and that no host can reach: dropped segments, and objects that
// globals and tables start with.
#pragma once

#include "bridge.h"

namespace fork_instrument {

struct SegmentRow;
struct ObjectHolder;

// Segments that functions drop, each once; those that only the start function drops are dropped by any instance.
rust::Vec<SegmentRow> list_dropped_segments(Module& module);
// Sets a global, an i32, to 1 wherever the segment is dropped.
void note_drops(Module& module, const SegmentRow& segment, rust::Str global);
// Adds a function that drops the segments whose global is not 0.
void add_drop_again(Module& module, rust::Str name, rust::Slice<const SegmentRow> segments,
                    rust::Slice<const rust::String> globals);

// Globals and tables that start with an object that the program writes to.
rust::Vec<ObjectHolder> list_changing_objects(Module& module);
// Makes a global mutable. False, and nothing is changed, if it is imported, exported or read by a constant expression.
bool make_global_mutable(Module& module, rust::Str name);

} // namespace fork_instrument
