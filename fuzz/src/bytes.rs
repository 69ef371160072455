//! Mutated bytes of real modules: whatever they are, the tool says no or gives a valid module.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, anyhow};

use crate::campaign::{ALIKE, Campaign, kind_of_finding};
use crate::check::Case;
use crate::finding;
use crate::generate::Source;
use crate::pipeline;
use crate::prepare::validate;
use crate::tool::{Ran, Tool};

/// How the runs ended, by what is said about them.
pub type Ends = BTreeMap<String, u64>;

/// Runs the tool on mutations of the modules in `folder`.
pub fn run(campaign: &Campaign, folder: &Path, seeds: Range<u64>) -> Result<Ends> {
    let mut modules = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "wasm") {
            modules.push(fs::read(path)?);
        }
    }
    modules.sort();
    anyhow::ensure!(!modules.is_empty(), "no modules in {}", folder.display());
    let next = AtomicU64::new(seeds.start);
    let ends = Mutex::new(Ends::new());
    let started = Instant::now();
    let work = || -> Result<()> {
        let tool = Tool::new(&campaign.tool)?;
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || campaign.time.is_some_and(|time| started.elapsed() > time) {
                return Ok(());
            }
            let (wasm, end) = one(&tool, &modules, seed)?;
            let mut ends = ends.lock().map_err(|_| anyhow!("a thread panicked"))?;
            let (Ok(name) | Err(name)) = end
                .as_ref()
                .map(|end| (*end).to_owned())
                .map_err(|problem| format!("findings: {}", kind_of_finding(problem)));
            let alike = ends.entry(name).or_default();
            *alike += 1;
            if let (Err(problem), true) = (end, *alike <= ALIKE) {
                save(campaign, wasm, seed, &problem)?;
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..campaign.jobs.max(1)).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
    })?;
    ends.into_inner().map_err(|_| anyhow!("a thread panicked"))
}

fn options() -> Vec<String> {
    let mut options = pipeline::all_features();
    options.push("--pass-arg=fork-instrument-entry@kernel.kernel_fork,wasi_snapshot_preview1.fd_write".to_owned());
    options
}

/// A mutated module, and what became of it; the error is a finding.
fn one(tool: &Tool, modules: &[Vec<u8>], seed: u64) -> Result<(Vec<u8>, Result<&'static str, String>)> {
    let mut source = Source::from_seed(seed);
    let mut wasm = modules[source.below(modules.len() as u32) as usize].clone();
    for _ in 0..[1, 2, 4][source.weighted(&[6, 2, 1])] {
        mutate(&mut source, &mut wasm);
    }
    let args: Vec<String> = options().into_iter().chain(["--fork-instrument".to_owned()]).collect();
    let problem = match tool.run(&wasm, &args)? {
        Ran::Refused(_) => return Ok((wasm, Ok("refused"))),
        Ran::Done(output) => match validate(&output) {
            Ok(()) => return Ok((wasm, Ok("instrumented"))),
            // Binaryen's reader lets some invalid modules through.
            Err(_) if validate(&wasm).is_err() => return Ok((wasm, Ok("invalid before and after"))),
            Err(error) => format!("invalid output: {error:#}"),
        },
        Ran::Broken(said) => said,
    };
    // Without the pass it may be as bad.
    let as_bad = match tool.run(&wasm, &pipeline::all_features())? {
        Ran::Broken(_) => true,
        Ran::Done(output) => validate(&output).is_err(),
        Ran::Refused(_) => false,
    };
    Ok((wasm, if as_bad { Ok("wrong in Binaryen too") } else { Err(problem) }))
}

fn save(campaign: &Campaign, wasm: Vec<u8>, seed: u64, problem: &str) -> Result<()> {
    let case = Case {
        wasm,
        passes: vec!["--fork-instrument".to_owned()],
        options: options(),
        roots: Vec::new(),
        seed,
        plain_imports: false,
        same_instance: true,
    };
    let folder = finding::save(&campaign.findings, &format!("{}-{seed}", campaign.name), &case, &[], problem)?;
    println!("finding, seed {seed}: {problem:.700}\n  in {}", folder.display());
    Ok(())
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
