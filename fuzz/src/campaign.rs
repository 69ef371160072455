//! Many cases, on several threads, until there are no more or the time is over.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::check::{Case, Counts, Verdict};
use crate::finding;
use crate::tool::Tool;

/// How to run.
#[derive(Clone)]
pub struct Campaign {
    pub tool: PathBuf,
    pub jobs: usize,
    pub time: Option<Duration>,
    pub findings: PathBuf,
    /// More options for `wasm-opt`.
    pub options: Vec<String>,
}

/// A case that was made from a seed, and the choices it was made from.
pub type Made = Option<(Case, Vec<u32>)>;

/// What came of all cases.
#[derive(Default)]
pub struct Summary {
    /// Seeds that were looked at.
    pub seeds: u64,
    pub programs: u64,
    pub findings: Vec<u64>,
    pub counts: Counts,
    /// Programs that call the entry at least once.
    pub forking: u64,
    /// The same, by what they are about.
    kinds: BTreeMap<String, u64>,
    refused: BTreeMap<String, u64>,
    binaryen: BTreeMap<String, u64>,
    /// What became of runs that are not compared.
    ends: BTreeMap<String, u64>,
}

/// Bytes of stack of each thread: rewinds from corrupted buffers run on it.
const STACK: usize = 16 << 20;

impl Campaign {
    /// Makes and checks the case of every seed. The names of findings begin with `name`.
    pub fn run(
        &self,
        name: &str,
        seeds: Range<u64>,
        make: impl Fn(u64, &Tool) -> Result<Made> + Sync,
    ) -> Result<Summary> {
        let next = AtomicU64::new(seeds.start);
        let summary = Mutex::new(Summary::default());
        let started = Instant::now();
        let over = || self.time.is_some_and(|time| started.elapsed() > time);
        let work = || -> Result<()> {
            let tool = Tool::new(&self.tool)?;
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds.end || over() {
                    return Ok(());
                }
                let made = make(seed, &tool)?.map(|(mut case, choices)| {
                    case.options.extend(self.options.iter().cloned());
                    let verdict = case.check(&tool);
                    (case, choices, verdict)
                });
                let mut summary = summary.lock().map_err(|_| anyhow::anyhow!("a thread panicked"))?;
                summary.seeds += 1;
                let Some((case, choices, verdict)) = made else { continue };
                summary.programs += 1;
                let problem = match verdict {
                    Ok(Verdict::Same(counts)) => {
                        summary.count(counts);
                        continue;
                    }
                    Ok(Verdict::Ends(ends)) => {
                        ends.into_iter().for_each(|end| *summary.ends.entry(end).or_default() += 1);
                        continue;
                    }
                    Ok(Verdict::Refused(said)) => {
                        *summary.refused.entry(kind(&said)).or_default() += 1;
                        continue;
                    }
                    Ok(Verdict::Binaryen(said)) => {
                        *summary.binaryen.entry(kind(&said)).or_default() += 1;
                        continue;
                    }
                    Ok(Verdict::Finding(problem)) => problem,
                    Err(error) => format!("the check failed: {error:#}"),
                };
                summary.findings.push(seed);
                let alike = summary.kinds.entry(kind_of_finding(&problem)).or_default();
                *alike += 1;
                // More of the same say nothing new.
                if *alike > ALIKE {
                    continue;
                }
                let folder = finding::save(&self.findings, &format!("{name}-{seed}"), &case, &choices, &problem)?;
                let shown: String = problem.chars().take(700).collect();
                println!("finding, seed {seed}: {}\n  {shown}\n  in {}", case.command(), folder.display());
            }
        };
        std::thread::scope(|scope| {
            let start = |_| std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
            let threads = (0..self.jobs.max(1)).map(start).collect::<Result<Vec<_>, _>>()?;
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?)
        })?;
        summary.into_inner().map_err(|_| anyhow::anyhow!("a thread panicked"))
    }
}

impl Summary {
    fn count(&mut self, counts: Counts) {
        self.forking += u64::from(counts.entry_calls > 0);
        self.counts.entry_calls += counts.entry_calls;
        self.counts.forks += counts.forks;
        self.counts.aborts += counts.aborts;
        self.counts.runs += counts.runs;
    }

    /// Adds what came of other cases.
    pub fn add(&mut self, other: Summary) {
        self.seeds += other.seeds;
        self.programs += other.programs;
        self.forking += other.forking;
        self.findings.extend(other.findings);
        let Counts { entry_calls, forks, aborts, runs } = &mut self.counts;
        *entry_calls += other.counts.entry_calls;
        *forks += other.counts.forks;
        *aborts += other.counts.aborts;
        *runs += other.counts.runs;
        let pairs = [
            (&mut self.kinds, other.kinds),
            (&mut self.refused, other.refused),
            (&mut self.binaryen, other.binaryen),
            (&mut self.ends, other.ends),
        ];
        for (ours, theirs) in pairs {
            theirs.into_iter().for_each(|(kind, count)| *ours.entry(kind).or_default() += count);
        }
    }

    /// Prints the numbers, and what they are about.
    pub fn print(&self) {
        let all = [
            ("refused: ", &self.refused),
            ("wrong in Binaryen too: ", &self.binaryen),
            ("findings: ", &self.kinds),
            ("", &self.ends),
        ];
        for (whose, kinds) in all {
            kinds.iter().for_each(|(kind, count)| println!("{count:6} {whose}{kind}"));
        }
        println!("{}", self.line());
    }

    /// The numbers in one line.
    pub fn line(&self) -> String {
        let [refused, binaryen, ends] =
            [&self.refused, &self.binaryen, &self.ends].map(|kinds| kinds.values().sum::<u64>());
        let Counts { entry_calls, forks, aborts, runs } = self.counts;
        format!(
            "{} programs, {refused} refused, {binaryen} wrong in Binaryen too, {} fork; {runs} runs, {entry_calls} entry \
             calls, {forks} forks, {aborts} aborts; {ends} other ends; {} findings",
            self.programs,
            self.forking,
            self.findings.len()
        )
    }
}

/// How many findings of a kind are kept.
pub const ALIKE: u64 = 5;

/// What a finding is about: where it panicked, or else how it begins.
pub fn kind_of_finding(problem: &str) -> String {
    let panic = problem.lines().find(|line| line.contains("panicked at"));
    match panic.and_then(|line| line.split_once("panicked at ")) {
        Some((_, place)) => format!("panicked at {place}"),
        None => kind(problem.split_once(": ").map_or(problem, |(_, what)| what)),
    }
}

/// A message without what differs from case to case.
fn kind(said: &str) -> String {
    let line = said.lines().find(|line| !line.to_lowercase().starts_with("warning")).unwrap_or_default();
    let line = line.split(", on ").next().unwrap_or_default();
    let mut kind = String::new();
    for c in line.chars().take(160) {
        match c {
            c if c.is_ascii_digit() && kind.ends_with('#') => {}
            c if c.is_ascii_digit() => kind.push('#'),
            c => kind.push(c),
        }
    }
    kind
}
