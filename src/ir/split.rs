//! Moving functions into a second module.

use super::ffi::bridge;
use super::{Function, Module, Pass, Split};

/// A module that holds functions moved out of the first one.
pub struct SecondModule(cxx::UniquePtr<bridge::SecondModule>);

impl<'m> Module<'m> {
    /// Whether the function uses data or element segments.
    pub fn uses_segments(self, function: Function<'m>) -> bool {
        bridge::uses_segments(&function.pin())
    }

    /// Moves functions to a new module that imports what they use from this one.
    pub fn split(self, split: &Split) -> Result<SecondModule, String> {
        bridge::split_module(self.pin(), split).map(SecondModule).map_err(|e| e.what().to_string())
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
