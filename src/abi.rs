//! The contract with hosts: names, states, the buffer's layout, and the version that stands for all of it.
//!
//! `docs/abi.md` describes it for people who write hosts, and `snapshots/abi.snap` pins it: whoever changes something
//! here raises [`VERSION`].

/// Raised with every change of the contract.
pub const VERSION: u32 = 1;
/// The custom section that holds [`VERSION`] as an unsigned LEB128 number.
pub const SECTION: &str = "fork-instrument.abi";

pub const UNWIND_BEGIN: &str = "wpk_fork_unwind_begin";
pub const UNWIND_END: &str = "wpk_fork_unwind_end";
pub const REWIND_BEGIN: &str = "wpk_fork_rewind_begin";
pub const REWIND_END: &str = "wpk_fork_rewind_end";
pub const STATE: &str = "wpk_fork_state";
/// Followed by `_` and the value types, joined by `_`, when there are results.
pub const RESUME: &str = "wpk_fork_resume";

/// The module name of everything that a separate module of resume functions imports.
pub const RESUME_MODULE: &str = "wpk_fork";
/// Followed by a digest of the module of resume functions: the name of the table that the two modules meet in.
pub const RESUME_TABLE: &str = "wpk_fork_table_";
/// In front of the heap type (`func`, `extern`, `any`) in the names of exported tables that keep references.
pub const REFS: &str = "wpk_fork_refs_";

/// Followed by a number: memories and tables that the program changes and does not export, for hosts to copy.
pub const COPY_MEMORY: &str = "wpk_fork_copy_memory_";
pub const COPY_TABLE: &str = "wpk_fork_copy_table_";

/// The memory that holds the frames, when the pass adds one.
pub const MEMORY: &str = "wpk_fork_memory";
/// Gives the code of the assertion that failed, 0 for none.
pub const ASSERT: &str = "wpk_fork_assert";
/// How the names begin of functions that trap for a reason.
pub const ASSERTION: &str = "wpk_fork.";

/// Where side modules of dynamic linking import what they share with the main module.
pub const LINKING_MODULE: &str = "env";
/// Prefix of the names of shared globals, and of the shared resume table.
pub const LINKING_PREFIX: &str = "__wpk_fork_";

/// Whether the pass may add an export of this name.
pub fn is_export(name: &str) -> bool {
    let names = [UNWIND_BEGIN, UNWIND_END, REWIND_BEGIN, REWIND_END, STATE, RESUME, MEMORY, ASSERT];
    let prefixes = ["wpk_fork_resume_", RESUME_TABLE, REFS, COPY_MEMORY, COPY_TABLE, ASSERTION, LINKING_PREFIX];
    names.contains(&name) || prefixes.iter().any(|prefix| name.starts_with(prefix))
}

/// States of an instrumented module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum State {
    Normal = 0,
    Unwinding = 1,
    Rewinding = 2,
    Aborting = 3,
}

impl State {
    pub const ALL: [State; 4] = [State::Normal, State::Unwinding, State::Rewinding, State::Aborting];
}

/// Where things are in the buffer, in bytes from its start, for pointers of `pointer` bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BufferLayout {
    pub pointer: u32,
}

impl BufferLayout {
    /// Absolute address of the next frame.
    pub fn position(self) -> u32 {
        0
    }

    /// Absolute address one past the buffer; 0 for a buffer without bound.
    pub fn end(self) -> u32 {
        self.pointer
    }

    /// The saved globals, followed by the frames.
    pub fn globals(self) -> u32 {
        2 * self.pointer
    }
}

/// The name that value types add to [`RESUME`].
pub fn resume_export(result_keywords: &[&str]) -> String {
    let mut name = RESUME.to_string();
    for keyword in result_keywords {
        name.push('_');
        name += keyword;
    }
    name
}

/// The version as it stands in the custom section.
pub fn section_data() -> Vec<u8> {
    leb128(VERSION)
}

/// An unsigned number of variable length.
pub fn leb128(mut value: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}
