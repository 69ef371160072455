//! Legacy exception handling: whether a module can keep it.
//!
//! A landing in the body of a legacy `try` is like any other. One in a catch body is not: nothing but a `throw` can
//! lead into a catch body, so a resume function cannot go there. Such a module is translated to modern exception
//! handling first, as a whole, because engines refuse modules that mix the two.

use std::collections::HashSet;

use crate::analysis::fork_path::{CallClass, ForkPath, kind};
use crate::ir::{Kind, Module};

/// A call in a catch body of legacy exception handling that can fork.
pub struct LandingInCatch {
    pub function: String,
    pub call: String,
}

/// The first landing in a legacy catch body, if there is one.
pub fn find_landing_in_catch(module: Module<'_>, path: &ForkPath) -> Option<LandingInCatch> {
    let with_try: HashSet<u32> = path.sites(kind::LEGACY_TRY).map(|site| site.caller).collect();
    path.defined().into_iter().filter(|index| with_try.contains(index)).find_map(|index| {
        let function = module.function_at(path.function(index));
        let nodes = function.nodes();
        let is_in_catch = |row: usize| {
            let mut node = &nodes[row];
            while let Some(parent) = nodes.get(node.parent as usize) {
                if parent.kind() == Kind::Try && node.child > 0 {
                    return true;
                }
                node = parent;
            }
            false
        };
        let forks =
            |row: &usize| nodes[*row].is_call() && path.classify(module, nodes[*row].expr()) != CallClass::CannotFork;
        let row = (0..nodes.len()).filter(forks).find(|&row| is_in_catch(row))?;
        Some(LandingInCatch { function: function.name(), call: module.print_expression(nodes[row].expr()) })
    })
}
