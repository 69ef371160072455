//! The resume functions in a module of their own.
//!
//! The first module keeps everything that runs normally and while unwinding; the second holds the resume functions and
//! the helpers that only they use, has its own of those that they call on their ways in and out, imports the rest from
//! the first, and fills the resume table when it is instantiated.
//! The table's name carries a digest of the second module, so that engines refuse to link a wrong pair.

use std::collections::{HashMap, HashSet};

use sha2::{Digest, Sha256};
use wasmparser::{BinaryReaderError, Parser, Payload};

use crate::abi;
use crate::analysis::fork_path::kind;
use crate::error::Error;
use crate::ir::{Module, Name, Pass, ResumeEntry, Split};
use crate::transform::runtime::{ResumeTable, Runtime};

/// The second module where there are no resume functions, because the first was left as it is.
pub fn nothing(text: bool) -> Vec<u8> {
    if text { b"(module)\n".to_vec() } else { b"\0asm\x01\0\0\0".to_vec() }
}

/// Whether an output, binary or text, is one of several modules that have functions and their types in common: a first or
/// second one, or one that is linked dynamically.
pub fn is_one_of_several(output: &[u8]) -> bool {
    let linking = format!("\"{}", abi::LINKING_PREFIX);
    meets(output, &[&format!("\"{}\" \"", abi::RESUME_MODULE), &format!("\"{}", abi::RESUME_TABLE), &linking])
}

/// Whether an output, binary or text, is instrumented.
pub fn is_instrumented(output: &[u8]) -> bool {
    meets(output, &[&format!("\"{}\"", abi::UNWIND_BEGIN)])
}

/// Whether the output has an import, as text `"module" "name"`, or an export, `"name"`, with one of these beginnings.
fn meets(output: &[u8], beginnings: &[&str]) -> bool {
    let is_met = |name: &str| beginnings.iter().any(|beginning| name.contains(beginning));
    if output.starts_with(b"\0asm") {
        return names(output).unwrap_or_default().iter().any(|name| is_met(name));
    }
    let text = String::from_utf8_lossy(output);
    text.lines().any(|line| {
        let line = line.trim_start();
        (line.starts_with("(import ") || line.starts_with("(export ")) && is_met(line)
    })
}

/// Imports and exports of a binary, as text has them.
fn names(wasm: &[u8]) -> Result<Vec<String>, BinaryReaderError> {
    let mut names = Vec::new();
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    let import = import?;
                    names.push(format!("\"{}\" \"{}\"", import.module, import.name));
                }
            }
            Payload::ExportSection(exports) => {
                for export in exports {
                    names.push(format!("\"{}\"", export?.name));
                }
            }
            _ => {}
        }
    }
    Ok(names)
}

/// Moves the resume functions out of the module. Gives the second module's bytes, or text.
pub fn separate<'m>(pass: Pass<'m>, module: Module<'m>, runtime: &Runtime, text: bool) -> Result<Vec<u8>, Error> {
    let ResumeTable::Table { name: table, base, .. } = &runtime.table else { return Err(Error::NoTableForSeparate) };
    let entries = (*base..).zip(runtime.table_functions());
    let entries: Vec<ResumeEntry> = entries.map(|(index, function)| ResumeEntry { index, function }).collect();
    let mut moved = moving(module, runtime)?;
    moved.extend(helpers_used_only_by(module, runtime, &moved));
    let names = module.functions().into_iter().map(|f| f.name());
    let functions: Vec<String> = names.filter(|n| moved.contains(n)).map(Name::text).collect();
    let shared = helpers_of_both(module, runtime, &moved);
    let placeholder = format!("{}{}", abi::RESUME_TABLE, "0".repeat(DIGEST_DIGITS));
    let mut split = Split {
        functions,
        globals: Vec::new(),
        shared_functions: shared.iter().map(|name| name.text()).collect(),
        shared_globals: Vec::new(),
        table: table.clone(),
        entries,
        import_module: abi::RESUME_MODULE.to_owned(),
        table_export: placeholder.clone(),
    };
    for scratch in &runtime.scratch {
        let mut helpers = scratch.helpers.iter().map(|name| Name::of(name));
        if helpers.clone().all(|name| moved.contains(&name)) {
            split.globals.extend(scratch.globals.iter().cloned());
        } else if helpers.any(|name| moved.contains(&name) || shared.contains(&name)) {
            split.shared_globals.extend(scratch.globals.iter().cloned());
        }
    }
    let mut second = module.split(&split).map_err(Error::Binaryen)?;
    let bytes = second.write(pass, false).map_err(Error::Binaryen)?;
    let name = format!("{}{}", abi::RESUME_TABLE, digest(&bytes));
    second.rename_table_export(&placeholder, &name);
    second.write(pass, text).map_err(Error::Binaryen)
}

/// The resume functions that can move, what has been outlined of these, and functions that give masks.
pub fn moving(module: Module<'_>, runtime: &Runtime) -> Result<HashSet<Name>, Error> {
    if runtime.table == ResumeTable::Switch {
        return Err(Error::NoTableForSeparate);
    }
    let can_move = |name: &String| !module.uses_segments(module.function(name));
    let slots = runtime.table_functions().into_iter().filter(can_move);
    let mut moved: HashSet<Name> = slots.chain(runtime.outlined.iter().cloned()).map(|name| Name::of(&name)).collect();
    keep_what_others_call(module, &mut moved);
    Ok(moved)
}

/// Hexadecimal digits of the digest in the table's name.
const DIGEST_DIGITS: usize = 12;

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(DIGEST_DIGITS / 2).map(|byte| format!("{byte:02x}")).collect()
}

/// The first module imports nothing from the second: what functions that stay there call stays, too.
fn keep_what_others_call(module: Module<'_>, moved: &mut HashSet<Name>) {
    let mut called: HashMap<Name, Vec<Name>> = HashMap::new();
    for (caller, callee) in direct_uses(module).filter(|(_, callee)| moved.contains(callee)) {
        called.entry(caller).or_default().push(callee);
    }
    let mut staying: Vec<Name> = called.keys().copied().filter(|caller| !moved.contains(caller)).collect();
    while let Some(caller) = staying.pop() {
        for callee in called.remove(&caller).into_iter().flatten() {
            if moved.remove(&callee) {
                staying.push(callee);
            }
        }
    }
}

/// Functions that call or refer to a function, and that function.
fn direct_uses(module: Module<'_>) -> impl Iterator<Item = (Name, Name)> {
    let functions = module.functions();
    let calls = module.calls().into_iter().filter(|call| call.kind == kind::CALL || call.kind == kind::REF_FUNC);
    calls.filter_map(move |call| Some((functions[call.caller as usize].name(), call.target()?)))
}

/// Helpers that moved functions call on their ways in and out, and that others call, too: a call within a module is
/// cheaper than one of an import. In the order of their names.
fn helpers_of_both(module: Module<'_>, runtime: &Runtime, moved: &HashSet<Name>) -> Vec<Name> {
    let on_the_way: HashSet<Name> = runtime.on_the_way.iter().map(|name| Name::of(name)).collect();
    let is_shared = |callee: &Name| on_the_way.contains(callee) && !moved.contains(callee);
    let mut callees: HashMap<Name, Vec<Name>> = HashMap::new();
    for (caller, callee) in direct_uses(module).filter(|(_, callee)| is_shared(callee)) {
        callees.entry(caller).or_default().push(callee);
    }
    let mut open: Vec<Name> = moved.iter().copied().collect();
    let mut called: HashSet<Name> = HashSet::new();
    while let Some(caller) = open.pop() {
        for callee in callees.remove(&caller).into_iter().flatten() {
            if called.insert(callee) {
                open.push(callee);
            }
        }
    }
    let mut called: Vec<Name> = called.into_iter().collect();
    called.sort_unstable_by_key(|name| name.text());
    called
}

/// Helpers of ours that nothing uses but what is moved.
fn helpers_used_only_by(module: Module<'_>, runtime: &Runtime, moved: &HashSet<Name>) -> HashSet<Name> {
    let mut callers: HashMap<Name, Vec<Name>> = HashMap::new();
    for (caller, callee) in direct_uses(module) {
        callers.entry(callee).or_default().push(caller);
    }
    let mut referenced: HashSet<Name> = module.references().iter().filter_map(|r| r.function()).collect();
    referenced.extend(module.exports().iter().filter(|e| e.kind == 0).map(|e| Name::of(&e.item)));
    let mut rest: Vec<Name> = module.functions().iter().map(|f| f.name()).collect();
    rest.retain(|n| !moved.contains(n) && !referenced.contains(n) && runtime.is_ours(&n.text()));
    let mut helpers: HashSet<Name> = HashSet::new();
    loop {
        let is_only_used_there = |name: &Name| {
            callers.get(name).is_some_and(|users| users.iter().all(|u| moved.contains(u) || helpers.contains(u)))
        };
        let more: Vec<Name> = rest.iter().copied().filter(|n| !helpers.contains(n) && is_only_used_there(n)).collect();
        if more.is_empty() {
            return helpers;
        }
        helpers.extend(more);
    }
}
