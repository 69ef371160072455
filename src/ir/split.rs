//! Moving functions into a second module.

use super::ffi::bridge;
use super::{Function, Module, Pass};

/// A module that holds functions moved out of the first one.
pub struct SecondModule(cxx::UniquePtr<bridge::SecondModule>);

/// What to move, and how the two modules meet.
pub struct Split<'a> {
    pub functions: &'a [String],
    /// Globals that only those functions use.
    pub globals: &'a [String],
    /// Functions, and globals, of which each module gets its own.
    pub shared_functions: &'a [String],
    pub shared_globals: &'a [String],
    /// The resume table, and its slots: index and function.
    pub table: &'a str,
    pub entries: &'a [(u64, String)],
    /// The module name of the second module's imports.
    pub import_module: &'a str,
    pub table_export: &'a str,
}

impl<'m> Module<'m> {
    /// Whether the function uses data or element segments.
    pub fn uses_segments(self, function: Function<'m>) -> bool {
        bridge::uses_segments(&function.pin())
    }

    /// Moves functions to a new module that imports what they use from this one.
    pub fn split(self, split: &Split<'_>) -> Result<SecondModule, String> {
        let entries: Vec<bridge::ResumeEntry> = split
            .entries
            .iter()
            .map(|(index, function)| bridge::ResumeEntry { index: *index, function: function.clone() })
            .collect();
        bridge::split_module(
            self.pin(),
            split.functions,
            split.globals,
            split.shared_functions,
            split.shared_globals,
            split.table,
            &entries,
            split.import_module,
            split.table_export,
        )
        .map(SecondModule)
        .map_err(|e| e.what().to_string())
    }
}

impl SecondModule {
    /// Gives the resume table another name where the two modules meet.
    pub fn rename_table_export(&mut self, from: &str, to: &str) {
        bridge::rename_table_export(self.0.pin_mut(), from, to);
    }

    /// The module's bytes, or its text, with names as the pipeline's options say.
    pub fn write(&mut self, pass: Pass<'_>, text: bool) -> Result<Vec<u8>, String> {
        bridge::write_second(pass.pin(), self.0.pin_mut(), text).map_err(|e| e.what().to_string())
    }
}
