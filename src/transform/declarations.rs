//! What the module gets before its functions are looked at: the state, an additional memory if one is asked for, and
//! the functions that report failed assertions.

use crate::abi;
use crate::error::Error;
use crate::ir::Module;
use crate::options::Options;
use crate::transform::asserts;
use crate::transform::linking;
use crate::transform::runtime::{FrameMemory, Runtime, quoted};

/// Adds them, and lets the runtime know of the additional memory.
pub fn add(module: Module<'_>, runtime: &mut Runtime, options: &Options) -> Result<(), Error> {
    let mut text = String::from("(module\n");
    text += &linking::table_base(runtime);
    text += &linking::global(runtime, "state", "i32", "(i32.const 0)");
    if let Some(pages) = options.secondary_memory {
        if !module.memories().is_empty() && !module.facts().multimemory {
            return Err(Error::NoMultiMemory);
        }
        let name = runtime.name("memory");
        text += &format!("(memory {} (export \"{}\") {pages})\n", quoted(&name), abi::MEMORY);
        runtime.memory = FrameMemory { name, is64: false, shared: false };
    }
    if options.asserts {
        text += &asserts::reporters(runtime);
    }
    text += ")\n";
    module.merge_text(&text).map_err(|e| Error::Binaryen(format!("the declarations do not parse: {e}")))
}
