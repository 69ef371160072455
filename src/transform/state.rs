//! Makes state that a fresh instance has not, and no host can reach, part of what the host copies or the buffer holds.

use crate::abi;
use crate::analysis::state::HiddenState;
use crate::error::Error;
use crate::ir::Module;
use crate::transform::runtime::{Runtime, quoted};

/// Before globals to save are chosen: those that note dropped segments are among them, and so are those with objects.
pub fn prepare(module: Module<'_>, runtime: &mut Runtime, state: &mut HiddenState) -> Result<(), Error> {
    let globals = module.make_globals_mutable(&state.globals);
    if let Some(at) = globals.iter().position(String::is_empty) {
        return Err(Error::FixedObjectInGlobal(state.globals.swap_remove(at)));
    }
    state.globals = globals;
    if state.dropped.is_empty() {
        return Ok(());
    }
    let globals: Vec<String> = (0..state.dropped.len()).map(|i| runtime.name(&format!("dropped.{i}"))).collect();
    let declare = |global: &String| format!("(global {} (mut i32) (i32.const 0))\n", quoted(global));
    let text = format!("(module\n{})\n", globals.iter().map(declare).collect::<String>());
    module.merge_text(&text).map_err(|e| Error::Binaryen(format!("the globals of segments do not parse: {e}")))?;
    module.note_drops(&state.dropped, &globals);
    module.add_drop_again(&runtime.drop_again_helper(), &state.dropped, &globals);
    runtime.has_drops = true;
    Ok(())
}

/// Exports what hosts have to copy. When nothing asks any more what was exported before.
pub fn export(module: Module<'_>, state: &HiddenState) {
    let free = |prefix: &str, number: usize| {
        let mut name = format!("{prefix}{number}");
        while module.exports().iter().any(|e| e.name == name) {
            name.push('_');
        }
        name
    };
    for (i, memory) in state.memories.iter().enumerate() {
        module.export_memory(&free(abi::COPY_MEMORY, i), memory);
    }
    for (i, table) in state.tables.iter().enumerate() {
        module.export_table(&free(abi::COPY_TABLE, i), table);
    }
}
