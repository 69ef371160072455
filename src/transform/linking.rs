//! Dynamic linking: modules that share a memory also share the state, the buffer and one stack of frames.
//!
//! The main module is instrumented with `export-globals`, side modules with `import-globals`. Shared are, as exports of
//! the main module and as imports of side modules from `env`, each under the prefix `__wpk_fork_`:
//!
//! | name | what |
//! | --- | --- |
//! | `state`, `buffer`, `position`, `limit` | mutable globals of the transitions |
//! | `frames` | mutable global: where the frames start, past the saved globals of all modules |
//! | `reserve` | mutable global: the size of the largest frame of all modules; each raises it in its start function |
//! | `table` | the resume table, which hosts grow for each side module |
//! | `table_base` | imported only: an immutable i32, the first of the slots of this side module |
//!
//! The custom section `fork-instrument.linking` holds the number of slots that a module needs, as an unsigned LEB128
//! number. A frame names its function by the slot, so that calls through shared function tables can resume functions of
//! the other module; any call through an imported or exported table may fork. Direct calls of the other module's
//! functions are imports: those that fork are named as entries, and reach the other module's exported function again,
//! which resumes.
//!
//! Every module saves its own globals. To unwind, hosts call `wpk_fork_unwind_begin` of the main module, and if that
//! leaves the state 1, of each side module (the state is 0 again if the buffer is too small); to rewind,
//! `wpk_fork_rewind_begin` of the main module, then of each side module in the same order. The other transitions are
//! those of any of the modules.

use crate::abi;
use crate::error::Error;
use crate::ir::{Module, Name, Type};
use crate::options::{Options, Sharing};
use crate::transform::runtime::{Runtime, quoted};

/// The custom section with the number of slots.
const SECTION: &str = "fork-instrument.linking";

/// The text of a mutable global: the module's own, exported or imported.
pub fn global(runtime: &Runtime, base: &str, type_: &str, init: &str) -> String {
    let (id, name) = (quoted(&runtime.name(base)), format!("\"{}{base}\"", abi::LINKING_PREFIX));
    match runtime.sharing {
        Sharing::None => format!("(global {id} (mut {type_}) {init})\n"),
        Sharing::Export => format!("(global {id} (export {name}) (mut {type_}) {init})\n"),
        Sharing::Import => format!("(import \"{}\" {name} (global {id} (mut {type_})))\n", abi::LINKING_MODULE),
    }
}

/// The option by which the program is to be several modules.
pub fn option_of_several_modules(options: &Options) -> Option<&'static str> {
    match options.sharing {
        Sharing::Export => Some("--pass-arg=fork-instrument-export-globals"),
        Sharing::Import => Some("--pass-arg=fork-instrument-import-globals"),
        Sharing::None => options.resume.is_some().then_some("--pass-arg=fork-instrument-resume"),
    }
}

/// What the features must allow for modules to share a table.
pub fn check_features(module: Module<'_>, sharing: Sharing) -> Result<(), Error> {
    match sharing != Sharing::None && !module.facts().reference_types {
        true => Err(Error::NoReferenceTypes),
        false => Ok(()),
    }
}

/// The text of what side modules import besides globals of the state.
pub fn table_base(runtime: &Runtime) -> String {
    match base_global(runtime) {
        Some(base) => {
            let (env, prefix) = (abi::LINKING_MODULE, abi::LINKING_PREFIX);
            format!("(import \"{env}\" \"{prefix}table_base\" (global {} i32))\n", quoted(&base))
        }
        None => String::new(),
    }
}

/// The global that is added to function numbers; the main module's slots are the first.
pub fn base_global(runtime: &Runtime) -> Option<String> {
    (runtime.sharing == Sharing::Import).then(|| runtime.name("table_base"))
}

/// Adds the shared resume table with the functions, and the section that says how many there are.
pub fn add_table(module: Module<'_>, runtime: &Runtime, table: &str, functions: &[String]) -> Result<(), Error> {
    let count = functions.len();
    let (env, name) = (abi::LINKING_MODULE, format!("\"{}table\"", abi::LINKING_PREFIX));
    let text = match runtime.sharing {
        Sharing::Import => format!("(module (import \"{env}\" {name} (table {} {count} funcref)))", quoted(table)),
        _ => format!("(module (table {} (export {name}) {count} funcref))", quoted(table)),
    };
    module.merge_text(&text).map_err(|e| Error::Binaryen(format!("the table does not parse: {e}")))?;
    let build = module.build();
    let offset = match base_global(runtime) {
        Some(base) => build.global_get(&base, Type::I32),
        None => build.i32(0),
    };
    module.add_function_segment(table, table, functions, offset);
    module.add_custom_section(SECTION, &abi::leb128(count as u32));
    Ok(())
}

/// Raises the shared reserve when the module is instantiated.
pub fn raise_reserve_at_start<'m>(module: Module<'m>, runtime: &Runtime) {
    if runtime.sharing != Sharing::Import {
        return;
    }
    let (name, start) = (runtime.name("raise_reserve"), module.facts().start);
    if start.is_empty() {
        return module.set_start(&name);
    }
    let (build, is_start) = (module.build(), Name::of(&start));
    let raise = build.call(&name, &[], Type::NONE);
    if module.function_imports().iter().any(|import| import.name() == is_start) {
        let both = build.block(None, &[raise, build.call(&start, &[], Type::NONE)], Some(Type::NONE));
        module.add_function(&runtime.name("start"), Type::NONE, Type::NONE, both);
        module.set_start(&runtime.name("start"));
    } else {
        let start = module.function(&start);
        start.set_body(build.block(None, &[raise, start.body()], Some(start.results())));
    }
}
