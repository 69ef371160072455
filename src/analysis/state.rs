//! What of a program's state a fresh instance has not, and no host can reach.
//!
//! Memories that are exported or imported are copied by hosts, and numeric globals are saved in the buffer. Besides, there
//! are:
//!
//! - memories and tables that are neither exported nor imported: they are exported, for hosts to copy. Tables that nobody
//!   writes are the same in any instance;
//! - segments that the program dropped: a global notes it, and `rewind_begin` drops them again;
//! - objects that a global starts with and that the program changes, and those that hold such ones. They are kept in a
//!   table, as what mutable globals of references hold is, or the module is refused. Where other objects are copied for a
//!   child, because tables or imported globals hold them, and the program compares objects, all that globals start with are
//!   kept so: what was one object in the parent is one in the child. What other modules can get at, by the types of imports
//!   and exports, they can change and compare;
//! - such objects in passive element segments: the module is refused.

use std::collections::HashSet;

use crate::analysis::fork_path::{ForkPath, kind};
use crate::error::Error;
use crate::ir::{GlobalRow, Hierarchy, Module, Name, SegmentRow, TableRow, Type};
use crate::options::{Options, Refs, Sharing};

#[derive(Default)]
pub struct HiddenState {
    /// Memories and tables to export.
    pub memories: Vec<String>,
    pub tables: Vec<String>,
    pub dropped: Vec<SegmentRow>,
    /// Globals with objects that change.
    pub globals: Vec<String>,
}

impl HiddenState {
    pub fn find(module: Module<'_>, path: &ForkPath, options: &Options) -> Result<HiddenState, Error> {
        let exports = module.exports();
        let is_exported = |kind: u32, name: &str| exports.iter().any(|e| e.kind == kind && e.item == name);
        let written = path.sites(kind::TABLE_WRITE).filter_map(|site| site.target());
        let written: HashSet<String> = written.map(Name::text).collect();
        let is_open = |t: &TableRow| t.imported || is_exported(1, &t.name) || written.contains(&t.name);
        // Hosts give the child what imported globals hold.
        let is_held = |g: &GlobalRow| {
            let hierarchy = Type::from_id(g.type_id).hierarchy();
            g.imported && g.mutable_ && matches!(hierarchy, Hierarchy::Any | Hierarchy::Extern)
        };
        let are_copied = options.refs == Refs::Tables
            || module.tables().iter().any(|t| !t.of_functions && is_open(t))
            || module.globals().iter().any(is_held);
        let holders = module.changing_objects(are_copied, options.sharing != Sharing::None);
        let of_kind = |kind| holders.iter().filter(move |h| h.kind == kind).map(|h| h.name.clone());
        if let Some(segment) = of_kind(2).next() {
            return Err(Error::ObjectInSegment(segment));
        }
        let globals: Vec<String> = of_kind(0).collect();
        if let (Some(global), Refs::Refuse) = (globals.first(), options.refs) {
            return Err(Error::ObjectInGlobal(global.clone()));
        }
        let changing: HashSet<String> = of_kind(1).chain(written.iter().cloned()).collect();
        let tables = module.tables().into_iter().filter(|t| changing.contains(&t.name));
        let tables = tables.filter(|t| !t.imported && !is_exported(1, &t.name)).map(|t| t.name).collect();
        let memories = module.memories().into_iter().filter(|m| !m.imported && !is_exported(2, &m.name));
        let memories = memories.map(|m| m.name).collect();
        Ok(HiddenState { memories, tables, dropped: module.dropped_segments(), globals })
    }
}
