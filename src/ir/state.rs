//! State that neither memories nor numeric globals hold.

use super::ffi::bridge;
use super::{Module, ObjectHolder, SegmentRow, c};

impl<'m> Module<'m> {
    /// Segments that functions other than the start function drop, in order of the module.
    pub fn dropped_segments(self) -> Vec<SegmentRow> {
        bridge::list_dropped_segments(self.pin())
    }

    /// Sets the global, an i32, to 1 wherever the segment is dropped.
    pub fn note_drops(self, segment: &SegmentRow, global: &str) {
        bridge::note_drops(self.pin(), segment, global);
    }

    /// Adds a function that drops the segments whose global is not 0.
    pub fn add_drop_again(self, name: &str, segments: &[SegmentRow], globals: &[String]) {
        bridge::add_drop_again(self.pin(), name, segments, globals);
    }

    /// Globals and tables that start with an object that the program writes to.
    pub fn changing_objects(self) -> Vec<ObjectHolder> {
        bridge::list_changing_objects(self.pin())
    }

    /// Makes a global mutable; false if it is imported, exported or read by a constant expression.
    pub fn make_global_mutable(self, name: &str) -> bool {
        bridge::make_global_mutable(self.pin(), name)
    }

    pub fn export_memory(self, export: &str, memory: &str) {
        let (memory, export) = (super::build::c_name(memory), super::build::c_name(export));
        // SAFETY: the strings are NUL-terminated, and Binaryen interns them.
        unsafe { c::BinaryenAddMemoryExport(self.raw(), memory.as_ptr(), export.as_ptr()) };
    }

    pub fn export_table(self, export: &str, table: &str) {
        let (table, export) = (super::build::c_name(table), super::build::c_name(export));
        // SAFETY: the strings are NUL-terminated, and Binaryen interns them.
        unsafe { c::BinaryenAddTableExport(self.raw(), table.as_ptr(), export.as_ptr()) };
    }
}
