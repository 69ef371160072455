//! One case: a module, the arguments of `wasm-opt`, and the runs that are compared.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use fork_host::replay::{End, Entry, Limit, NO_LARGER_BUFFER, OnAbort, Outcome, Replay, Schedule, Value};

use crate::buffers;
use crate::generate::{Exceptions, Source};
use crate::oracle;
use crate::prepare::validate;
use crate::tool::{Ran, SLOW, Tool};

/// What is to be checked.
#[derive(Clone, Debug, Default)]
pub struct Case {
    pub wasm: Vec<u8>,
    /// Passes of the pipeline, ours among them.
    pub passes: Vec<String>,
    /// Options that are not passes.
    pub options: Vec<String>,
    /// Exports to call, with their arguments.
    pub roots: Vec<(String, Vec<Value>)>,
    /// Imports that fork, besides the default one.
    pub entries: Vec<String>,
    /// What the runs depend on.
    pub seed: u64,
    /// Imports are functions of numbers: failed forks can be compared with the oracle.
    pub plain_imports: bool,
    /// A fork can fail in any buffer: the program may hold exceptions of the host's tags, or with references of its own.
    pub forks_can_fail: bool,
    /// A fresh instance would lack what a fork does not copy: only forks whose parent is followed are right.
    pub same_instance: bool,
    /// The resume functions go to a module of their own.
    pub separate: bool,
    /// Nothing is compared: forks are rewound from corrupted buffers ([`buffers`]).
    pub corrupts: bool,
    /// Exceptions may be caught by reference.
    pub by_reference: bool,
    /// Exceptions are in the legacy encoding. What is run was translated by Binaryen: wasmtime knows the modern one alone.
    pub legacy: bool,
}

/// What a check found.
#[derive(Debug)]
pub enum Verdict {
    Same(Counts),
    /// What became of runs that are not compared.
    Ends(Vec<String>),
    /// The pass, or something else in the pipeline, does not take the module; or it cannot be run.
    Refused(String),
    /// The pipeline without our pass is wrong, too.
    Binaryen(String),
    Finding(String),
}

/// What happened in the runs of a case.
#[derive(Clone, Copy, Default, Debug)]
pub struct Counts {
    pub entry_calls: u64,
    pub forks: u64,
    pub aborts: u64,
    pub runs: u64,
}

/// What the verifier does not accept is a finding.
const VERIFY: &str = "--pass-arg=fork-instrument-verify";

/// Memories are copied and hashed for each fork.
const MEMORY_LIMIT: usize = 256 << 20;

/// How long a run of the original may take. Runs with forks may take much longer, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes for the buffer and its growth.
pub const RESERVE: u64 = 192 << 10;

impl Case {
    /// The whole pipeline's arguments, with or without our pass, whose output is verified.
    fn args(&self, instrument: bool) -> Vec<String> {
        let ours = |arg: &&String| instrument || !arg.contains("fork-instrument");
        let verify = instrument.then(|| VERIFY.to_owned());
        verify.into_iter().chain(self.options.iter().chain(&self.passes).filter(ours).cloned()).collect()
    }

    /// The pipeline, for people.
    pub fn command(&self) -> String {
        let resume = if self.separate { " --pass-arg=fork-instrument-resume@resume.wasm" } else { "" };
        format!("wasm-opt {}{resume}", self.args(true).join(" "))
    }

    /// Runs the pipeline with our pass.
    pub fn instrument(&self, tool: &Tool) -> Result<Ran> {
        let mut args = self.args(true);
        if self.separate {
            args.push(format!("--pass-arg=fork-instrument-resume@{}", tool.second().display()));
        }
        tool.run(&self.wasm, &args)
    }

    /// How exceptions are written.
    pub fn exceptions(&self) -> Exceptions {
        match (self.by_reference, self.legacy) {
            (_, true) => Exceptions::Legacy,
            (true, _) => Exceptions::ByReference,
            _ => Exceptions::Modern,
        }
    }

    /// Whether something may reorder traps.
    fn optimizes(&self) -> bool {
        self.passes.len() > 1
    }

    /// Instruments, and compares or corrupts.
    pub fn check(&self, tool: &Tool) -> Result<Verdict> {
        let wasm = match self.instrument(tool)? {
            Ran::Done(wasm) => wasm,
            // What the validator finds may be our doing.
            Ran::Refused(said) if !said.contains("wasm-validator error") => return Ok(Verdict::Refused(said)),
            // What comes after ours can take long for code of that size.
            Ran::Broken(said) if said.starts_with(SLOW) && self.is_quick_up_to_ours(tool)? => {
                return Ok(Verdict::Binaryen(said));
            }
            Ran::Refused(said) | Ran::Broken(said) => {
                return Ok(match tool.run(&self.wasm, &self.args(false))? {
                    Ran::Broken(also) => Verdict::Binaryen(also),
                    Ran::Refused(also) => Verdict::Refused(also),
                    Ran::Done(_) => Verdict::Finding(said),
                });
            }
        };
        let second = if self.separate { tool.take_second()? } else { None };
        let invalid = [Some(&wasm), second.as_ref()].into_iter().flatten().find_map(|wasm| validate(wasm).err());
        let problem = match invalid {
            // Binaryen's reader lets some invalid modules through.
            Some(_) if validate(&self.wasm).is_err() => return Ok(Verdict::Refused("invalid before and after".into())),
            Some(error) => format!("invalid output: {error:#}"),
            None => {
                let Ok(original) = self.modern(tool, self.wasm.clone()) else {
                    return Ok(Verdict::Refused("Binaryen does not translate the original".into()));
                };
                let original = Case { wasm: original, ..self.clone() };
                let wasm = self.modern(tool, wasm)?;
                let second = second.map(|second| self.modern(tool, second)).transpose()?;
                if self.corrupts {
                    return buffers::rewind_corrupted(self, &wasm, second.as_deref());
                }
                match original.compare(&wasm, second.as_deref())? {
                    Ok(counts) => return Ok(Verdict::Same(counts)),
                    Err(problem) => match self.wrong_without_ours(tool, &original, &wasm, second.as_deref())? {
                        Some(wrong) => return Ok(Verdict::Binaryen(wrong)),
                        None => return Ok(Verdict::Finding(problem)),
                    },
                }
            }
        };
        // Without our pass it may be as invalid.
        Ok(match tool.run(&self.wasm, &self.args(false))? {
            Ran::Done(twin) => match validate(&twin) {
                Ok(()) => Verdict::Finding(problem),
                Err(error) => Verdict::Binaryen(error.to_string()),
            },
            Ran::Refused(said) | Ran::Broken(said) => Verdict::Binaryen(said),
        })
    }

    /// Where our pass is.
    fn ours(&self) -> usize {
        self.passes.iter().position(|pass| pass.contains("fork-instrument")).unwrap_or(0)
    }

    fn is_quick_up_to_ours(&self, tool: &Tool) -> Result<bool> {
        let ours = self.ours() + 1;
        let more = ours < self.passes.len();
        let front = Case { passes: self.passes[..ours.min(self.passes.len())].to_vec(), ..self.clone() };
        Ok(more && matches!(front.instrument(tool)?, Ran::Done(_)))
    }

    /// What the other passes of the pipeline do to the program: they change it, or it is they, and not ours, that make a
    /// difference in the runs.
    fn wrong_without_ours(
        &self,
        tool: &Tool,
        original: &Case,
        wasm: &[u8],
        second: Option<&[u8]>,
    ) -> Result<Option<String>> {
        if self.passes.len() < 2 {
            return Ok(None);
        }
        match tool.run(&self.wasm, &self.args(false))? {
            Ran::Done(twin) => {
                let wrong = match validate(&twin) {
                    Ok(()) => original.compare_plainly(&self.modern(tool, twin)?)?,
                    Err(error) => Some(error.to_string()),
                };
                if wrong.is_some() {
                    return Ok(wrong);
                }
            }
            Ran::Refused(said) | Ran::Broken(said) => return Ok(Some(said)),
        }
        // With other answers of the host, or where NaNs are folded, the passes in front may make another program.
        let front = Case { passes: self.passes[..self.ours()].to_vec(), ..self.clone() };
        let Ran::Done(before) = tool.run(&self.wasm, &front.args(false))? else { return Ok(None) };
        let before = Case { wasm: self.modern(tool, before)?, ..self.clone() };
        let same = before.compare(wasm, second)?.is_ok();
        Ok(same.then(|| "the passes in front make another program".to_owned()))
    }

    /// A module as wasmtime takes it.
    fn modern(&self, tool: &Tool, wasm: Vec<u8>) -> Result<Vec<u8>> {
        if !self.legacy {
            return Ok(wasm);
        }
        let features = self.options.iter().filter(|option| option.starts_with("--enable")).cloned();
        // Bodies with dead code in them can come out invalid.
        let passes = ["--dce", "--translate-to-exnref"].map(str::to_owned);
        match tool.run(&wasm, &features.chain(passes).collect::<Vec<_>>())? {
            Ran::Done(wasm) => Ok(wasm),
            Ran::Refused(said) | Ran::Broken(said) => bail!("the translation of exceptions: {said}"),
        }
    }

    fn replay<'a>(&'a self, wasm: &'a [u8], root: &(String, Vec<Value>)) -> Replay<'a> {
        let entries = self.entries.iter().map(|entry| Entry::parse(entry));
        Replay {
            entries: [Entry::parse("kernel.kernel_fork")].into_iter().chain(entries).collect(),
            export: Some(root.0.clone()),
            args: root.1.clone(),
            buffer: RESERVE,
            reserve: RESERVE,
            carry: true,
            limit: Limit::Time(PATIENCE),
            trace_limit: 20_000,
            memory_limit: MEMORY_LIMIT,
            ..Replay::new(wasm)
        }
    }

    /// Runs a module that was not instrumented.
    fn compare_plainly(&self, wasm: &[u8]) -> Result<Option<String>> {
        for root in &self.roots {
            let reference = self.replay(&self.wasm, root).run().map_err(anyhow::Error::from).context("the original")?;
            let Ok(other) = self.replay(wasm, root).run() else { return Ok(Some("it does not run".to_owned())) };
            let found = self.differences(&reference, other);
            if !found.is_empty() {
                return Ok(Some(found.join("; ")));
            }
        }
        Ok(None)
    }

    fn differences(&self, reference: &Outcome, mut other: Outcome) -> Vec<String> {
        let mut reference = reference.clone();
        for outcome in [&mut reference, &mut other] {
            forget_trap(outcome, self.optimizes());
        }
        reference.differences(&other)
    }

    /// Runs under many schedules. The inner error is what differs. What the harness cannot run is left out.
    pub fn compare(&self, wasm: &[u8], second: Option<&[u8]>) -> Result<Result<Counts, String>> {
        let mut counts = Counts::default();
        for root in &self.roots {
            let Ok(reference) = self.replay(&self.wasm, root).run() else { continue };
            if reference.end == End::Stopped {
                continue;
            }
            if matches!(&reference.end, End::Trapped(what) if what.contains("stack")) {
                continue;
            }
            counts.entry_calls += reference.entry_calls;
            let mut source = Source::from_seed(self.seed ^ 0x5eed);
            for (schedule, buffer, on_abort) in runs(&mut source, reference.entry_calls) {
                let fresh = !matches!(schedule, Schedule::Never | Schedule::FollowParent);
                if fresh && self.same_instance {
                    continue;
                }
                let plain = Replay { resume: second, ..self.replay(wasm, root) };
                let strict = source.one_in(3);
                let limit = Limit::Time(12 * PATIENCE);
                let replay = Replay { instrumented: true, schedule, buffer, on_abort, strict, limit, ..plain };
                let which = format!("{} under {schedule:?} with {buffer} bytes and {on_abort:?}", root.0);
                let mut ended = replay.run();
                let is_too_large = |outcome: &Outcome| outcome.faults.iter().any(|fault| fault == NO_LARGER_BUFFER);
                if self.forks_can_fail && ended.as_ref().is_ok_and(is_too_large) {
                    ended = Replay { on_abort: OnAbort::Perform, ..replay }.run();
                }
                let outcome = match ended {
                    Ok(outcome) => outcome,
                    Err(error) => return Ok(Err(format!("{which}: {error:#}"))),
                };
                // A mutation can take the export of the memory away.
                if matches!(&outcome.end, End::Trapped(what) if what.contains("no memory for the fork buffer")) {
                    continue;
                }
                counts.runs += 1;
                counts.forks += outcome.forks;
                counts.aborts += outcome.aborts;
                let found = match on_abort {
                    OnAbort::ReturnError if outcome.aborts > 0 => {
                        if !self.plain_imports || outcome.end == End::Stopped {
                            continue;
                        }
                        oracle::differences(&self.wasm, &root.0, &root.1, RESERVE, &outcome)?
                    }
                    _ => self.differences(&reference, outcome),
                };
                if !found.is_empty() {
                    return Ok(Err(format!("{which}: {}", found.join("; "))));
                }
            }
        }
        Ok(Ok(counts))
    }
}

/// Optimisers reorder traps. Without reference types the resume functions are at the end of the program's own table, where
/// calls trap in another way.
fn forget_trap(outcome: &mut Outcome, any: bool) {
    if let End::Trapped(what) = &mut outcome.end {
        // An exception is no trap, and what it carries matters.
        // Binaryen writes a call of a null as `unreachable`.
        let kinds = ["undefined element", "uninitialized element", "indirect call", "unreachable", "null reference"];
        if kinds.iter().any(|kind| what.contains(kind)) {
            *what = "no such function".to_owned();
        }
        if any && !what.starts_with("uncaught") {
            *what = "trap".to_owned();
        }
    }
    if let Some(second) = &mut outcome.second {
        forget_trap(second, any);
    }
}

/// Schedules, sizes of the buffer, and what happens when it is full.
fn runs(source: &mut Source, entry_calls: u64) -> Vec<(Schedule, u64, OnAbort)> {
    let mut runs = vec![(Schedule::Never, RESERVE, OnAbort::Retry)];
    if entry_calls == 0 {
        return runs;
    }
    let mut size = |most: u32| u64::from(source.below(most));
    let (small, smaller, smallest) = (size(300), size(200), size(120));
    if entry_calls < 300 {
        runs.push((Schedule::FollowChild, RESERVE, OnAbort::Retry));
        runs.push((Schedule::FollowParent, small, OnAbort::Retry));
        runs.push((Schedule::FollowChild, smaller, OnAbort::ReturnError));
    }
    let calls = entry_calls.min(u64::from(u32::MAX)) as u32;
    for at in [source.below(calls), source.below(calls.min(10))] {
        runs.push((Schedule::ForkAt(u64::from(at)), RESERVE, OnAbort::Retry));
    }
    let seed = source.bits();
    runs.push((Schedule::Random { seed }, smallest, OnAbort::Perform));
    runs
}
