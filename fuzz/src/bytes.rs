//! Mutated bytes of real modules: whatever they are, the tool says no or gives a valid module, which does what its original
//! does.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use wasmparser::{ExternalKind, Parser, Payload};

use crate::check::Case;
use crate::generate::Source;
use crate::pipeline;
use crate::prepare::{has_memory, keeps_state_outside};

/// Larger ones are left out: a mutation in them says no more, and takes seconds.
const LARGEST: usize = 400_000;

/// The modules in a folder and those under it.
pub fn modules(folder: &Path) -> Result<Vec<Vec<u8>>> {
    let mut modules = Vec::new();
    collect(folder, &mut modules)?;
    // Where they are says nothing.
    modules.sort();
    modules.dedup();
    anyhow::ensure!(!modules.is_empty(), "no modules in {}", folder.display());
    Ok(modules)
}

fn collect(folder: &Path, modules: &mut Vec<Vec<u8>>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, modules)?;
        } else if path.extension().is_some_and(|extension| extension == "wasm") {
            let wasm = fs::read(path)?;
            // What is instrumented already is refused.
            let instrumented = wasm.windows(19).any(|window| window == b"fork-instrument.abi");
            if wasm.len() <= LARGEST && !instrumented {
                modules.push(wasm);
            }
        }
    }
    Ok(())
}

/// The case of a seed: a mutated module.
pub fn case(seed: u64, modules: &[Vec<u8>]) -> (Case, Vec<u32>) {
    let mut source = Source::from_seed(seed);
    let mut wasm = modules[source.below(modules.len() as u32) as usize].clone();
    for _ in 0..[1, 2, 4][source.weighted(&[6, 2, 1])] {
        mutate(&mut source, &mut wasm);
    }
    let (passes, mut options) = pipeline::choose(&mut source, true);
    let fd_write = "wasi_snapshot_preview1.fd_write";
    options.extend(pipeline::all_features());
    options.push(format!("--pass-arg=fork-instrument-entry@kernel.kernel_fork,{fd_write}"));
    let roots = root(&wasm).filter(|_| has_memory(&wasm)).map(|name| (name, Vec::new())).into_iter().collect();
    let entries = vec![fd_write.to_owned()];
    let same_instance = keeps_state_outside(&wasm);
    let forks_can_fail = true;
    let case = Case { wasm, passes, options, roots, entries, seed, same_instance, forks_can_fail, ..Case::default() };
    (case, Vec::new())
}

/// The export that runs the program.
fn root(wasm: &[u8]) -> Option<String> {
    for payload in Parser::new(0).parse_all(wasm) {
        if let Ok(Payload::ExportSection(exports)) = payload {
            let functions = exports.into_iter().flatten().filter(|export| export.kind == ExternalKind::Func);
            return functions
                .map(|export| export.name)
                .find(|name| ["run", "_start"].contains(name))
                .map(str::to_owned);
        }
    }
    None
}

/// One change.
fn mutate(source: &mut Source, wasm: &mut Vec<u8>) {
    if wasm.len() < 16 {
        return;
    }
    let length = wasm.len() as u32;
    let at = source.range(8, length - 1) as usize;
    let end = (at + source.range(1, 40) as usize).min(wasm.len());
    match source.weighted(&[6, 6, 2, 2, 1, 1]) {
        0 => wasm[at] ^= 1 << source.below(8),
        1 => wasm[at] = source.below(256) as u8,
        2 => _ = wasm.drain(at..end),
        3 => {
            let part = wasm[at..end].to_vec();
            let to = source.range(8, length - 1) as usize;
            wasm.splice(to..to, part);
        }
        4 => wasm[at..end].fill(0xff),
        _ => wasm.truncate(at),
    }
}
