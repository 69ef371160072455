//! The resume functions in a module of their own.
//!
//! The first module keeps everything that runs normally and while unwinding; the second holds the resume functions and
//! the helpers that only they use, imports the rest from the first, and fills the resume table when it is instantiated.
//! The table's name carries a digest of the second module, so that engines refuse to link a wrong pair.

use std::collections::{HashMap, HashSet};

use sha2::{Digest, Sha256};

use crate::abi;
use crate::analysis::fork_path::kind;
use crate::error::Error;
use crate::ir::{Module, Pass, Split};
use crate::transform::runtime::{ResumeTable, Runtime};

/// Moves the resume functions out of the module. Gives the second module's bytes, or text.
pub fn separate<'m>(pass: Pass<'m>, module: Module<'m>, runtime: &Runtime, text: bool) -> Result<Vec<u8>, Error> {
    let ResumeTable::Table { name: table, base, .. } = &runtime.table else { return Err(Error::NoTableForSeparate) };
    let ours = [runtime.mask_segment()];
    let mut slots: Vec<String> = runtime.resume_names.clone();
    slots.extend(runtime.mask_function_in_table());
    let entries: Vec<(u64, String)> =
        slots.iter().enumerate().map(|(i, name)| (base + i as u64, name.clone())).collect();
    let mut moved: HashSet<String> =
        slots.into_iter().filter(|name| !module.uses_segments(module.function(name), &ours)).collect();
    keep_what_others_call(module, &mut moved);
    let helpers = helpers_used_only_by(module, runtime, &moved);
    let functions: Vec<String> =
        module.functions().into_iter().map(|f| f.name).filter(|n| moved.contains(n) || helpers.contains(n)).collect();
    let has_masks = runtime.mask_function_in_table().is_some();
    let placeholder = format!("{}{}", abi::RESUME_TABLE, "0".repeat(DIGEST_DIGITS));
    let mut second = module
        .split(&Split {
            functions: &functions,
            data_segment: if has_masks { &ours[0] } else { "" },
            table,
            entries: &entries,
            import_module: abi::RESUME_MODULE,
            table_export: &placeholder,
        })
        .map_err(Error::Binaryen)?;
    let bytes = second.write(pass, false).map_err(Error::Binaryen)?;
    let name = format!("{}{}", abi::RESUME_TABLE, digest(&bytes));
    second.rename_table_export(&placeholder, &name);
    second.write(pass, text).map_err(Error::Binaryen)
}

/// Hexadecimal digits of the digest in the table's name.
const DIGEST_DIGITS: usize = 16;

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(DIGEST_DIGITS / 2).map(|byte| format!("{byte:02x}")).collect()
}

/// The first module imports nothing from the second: what functions that stay there call stays, too.
fn keep_what_others_call(module: Module<'_>, moved: &mut HashSet<String>) {
    let functions = module.functions();
    let calls: Vec<(String, String)> = module
        .calls()
        .into_iter()
        .filter(|call| call.kind == kind::CALL || call.kind == kind::REF_FUNC)
        .map(|call| (functions[call.caller as usize].name.clone(), call.target))
        .filter(|(_, target)| moved.contains(target))
        .collect();
    loop {
        let before = moved.len();
        for (caller, target) in &calls {
            if !moved.contains(caller) {
                moved.remove(target);
            }
        }
        if moved.len() == before {
            return;
        }
    }
}

/// Helpers of ours that nothing uses but what is moved.
fn helpers_used_only_by(module: Module<'_>, runtime: &Runtime, moved: &HashSet<String>) -> HashSet<String> {
    let functions = module.functions();
    let mut callers: HashMap<String, Vec<String>> = HashMap::new();
    for call in module.calls() {
        if call.kind == kind::CALL || call.kind == kind::REF_FUNC {
            callers.entry(call.target).or_default().push(functions[call.caller as usize].name.clone());
        }
    }
    let referenced: HashSet<String> = module
        .references()
        .into_iter()
        .map(|r| r.function)
        .chain(module.exports().into_iter().filter(|e| e.kind == 0).map(|e| e.item))
        .collect();
    let mut helpers: HashSet<String> = HashSet::new();
    loop {
        let is_only_used_there = |name: &String| {
            callers.get(name).is_some_and(|users| users.iter().all(|u| moved.contains(u) || helpers.contains(u)))
        };
        let more: Vec<String> = functions
            .iter()
            .map(|f| &f.name)
            .filter(|n| runtime.is_ours(n) && !moved.contains(*n) && !helpers.contains(*n) && !referenced.contains(*n))
            .filter(|n| is_only_used_there(n))
            .cloned()
            .collect();
        if more.is_empty() {
            return helpers;
        }
        helpers.extend(more);
    }
}
