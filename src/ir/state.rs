//! State that neither memories nor numeric globals hold.

use super::ffi::bridge;
use super::{Module, ObjectHolder, SegmentRow, c};

impl<'m> Module<'m> {
    /// Segments that functions other than the start function drop, in order of the module.
    pub fn dropped_segments(self) -> Vec<SegmentRow> {
        bridge::list_dropped_segments(self.pin())
    }

    /// Sets each segment's global, an i32, to 1 wherever the segment is dropped.
    pub fn note_drops(self, segments: &[SegmentRow], globals: &[String]) {
        bridge::note_drops(self.pin(), segments, globals);
    }

    /// Adds a function that drops the segments whose global is not 0.
    pub fn add_drop_again(self, name: &str, segments: &[SegmentRow], globals: &[String]) {
        bridge::add_drop_again(self.pin(), name, segments, globals);
    }

    /// Globals, tables and passive element segments with objects that must be those of the parent: the program writes to
    /// them, or they hold such ones, or, if other objects are copied for a child, the program compares objects. So can
    /// other modules, as far as they get at the objects; linked ones at all that goes in and out.
    pub fn changing_objects(self, are_copied: bool, is_linked: bool) -> Vec<ObjectHolder> {
        bridge::list_changing_objects(self.pin(), are_copied, is_linked)
    }

    /// Makes globals mutable, or, where a constant expression reads one, adds a mutable copy that functions read instead.
    /// The names of the mutable ones; empty for what is imported or exported.
    pub fn make_globals_mutable(self, names: &[String]) -> Vec<String> {
        bridge::make_globals_mutable(self.pin(), names)
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
