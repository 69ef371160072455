//! Compares an instrumented module with its original under schedules of forks.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use fork_host::protocol::FRAME_MEMORY;
use fork_host::replay::{Entry, Limit, OnAbort, Outcome, Replay, Schedule};
use wasmparser::Payload;
use wasmtime::{Result, bail, error::Context as _};

/// Compare an instrumented module with its original under schedules of forks. Exits with 1 if they differ.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// The module before instrumentation.
    original: PathBuf,
    /// The module after it.
    instrumented: PathBuf,
    /// The module with the resume functions, if they are not in the instrumented one.
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// An import at which the program can be forked; `*` stands for anything. May be repeated.
    #[arg(long, value_name = "MODULE.NAME", default_value = "kernel.kernel_fork")]
    entry: Vec<String>,
    /// The export to call: by default run, or else _start.
    #[arg(long)]
    export: Option<String>,
    /// Comma-separated: never, child, parent, at:N (both sides, at N calls spread over the run), random:SEED, sizes (calls
    /// get buffers of all sizes up to enough for all frames, in turn; where they do not fit, once the call is made
    /// without a fork, and once with a larger buffer).
    #[arg(long, value_delimiter = ',', default_value = "never,child,parent,at:10,random:1")]
    schedules: Vec<String>,
    /// The exported memory with the buffer; default: one that the pass has added for it, or else the program's.
    #[arg(long)]
    memory: Option<String>,
    /// Bytes of the buffer.
    #[arg(long, default_value_t = 1 << 20)]
    buffer: u64,
    /// Address of the buffer, for a memory that cannot grow.
    #[arg(long)]
    buffer_at: Option<u64>,
    /// What to do when frames do not fit.
    #[arg(long, value_enum, default_value = "retry")]
    on_abort: Abort,
    /// Seconds until a run is stopped; 0 for never.
    #[arg(long, default_value_t = 600)]
    time: u64,
    /// Compile with optimisation.
    #[arg(long)]
    optimize: bool,
    /// Check at each fork that nothing outside the buffer changes.
    #[arg(long)]
    strict: bool,
    /// Open a directory for a WASI program. Every run sees what the ones before left there.
    #[arg(long, value_name = "HOST[::GUEST]")]
    dir: Vec<String>,
    /// An argument of a WASI program, after its name. May be repeated.
    #[arg(long, allow_hyphen_values = true)]
    arg: Vec<String>,
    /// Print what the original wrote.
    #[arg(long)]
    show_output: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Abort {
    /// Enlarge the buffer.
    Retry,
    /// Make the call without a fork.
    Perform,
    /// Return an error.
    Error,
}

fn main() -> ExitCode {
    match compare(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("fork-replay: {error:?}");
            ExitCode::from(2)
        }
    }
}

/// The memory that the pass has added for frames, if it has.
fn frame_memory(instrumented: &[u8]) -> Option<String> {
    let payloads = wasmparser::Parser::new(0).parse_all(instrumented).filter_map(Result::ok);
    let exports = payloads.filter_map(|payload| match payload {
        Payload::ExportSection(exports) => Some(exports),
        _ => None,
    });
    let is_it = exports.flatten().filter_map(Result::ok).any(|export| export.name == FRAME_MEMORY);
    is_it.then(|| FRAME_MEMORY.to_owned())
}

fn compare(cli: &Cli) -> Result<bool> {
    let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let (original, instrumented) = (read(&cli.original)?, read(&cli.instrumented)?);
    let resume = cli.resume.as_ref().map(read).transpose()?;
    let plain = Replay {
        entries: cli.entry.iter().map(|entry| Entry::parse(entry)).collect(),
        export: cli.export.clone(),
        memory: cli.memory.clone().or_else(|| frame_memory(&instrumented)),
        buffer: cli.buffer,
        buffer_at: cli.buffer_at,
        on_abort: match cli.on_abort {
            Abort::Retry => OnAbort::Retry,
            Abort::Perform => OnAbort::Perform,
            Abort::Error => OnAbort::ReturnError,
        },
        limit: if cli.time == 0 { Limit::None } else { Limit::Time(Duration::from_secs(cli.time)) },
        optimize: cli.optimize,
        strict: cli.strict,
        carry: true,
        program_args: ["program".to_owned()].into_iter().chain(cli.arg.iter().cloned()).collect(),
        dirs: cli.dir.iter().map(|dir| fork_host::wasi::parse_dir(dir)).collect(),
        ..Replay::new(&original)
    };
    let reference = plain.run().context("the original")?;
    println!("original: {:?}, {} events, {} entry calls", reference.end, reference.trace.count, reference.entry_calls);
    if cli.show_output {
        print!("{}", String::from_utf8_lossy(&reference.stdout));
        eprint!("{}", String::from_utf8_lossy(&reference.stderr));
    }
    let mut same = true;
    let forked = Replay { wasm: &instrumented, resume: resume.as_deref(), instrumented: true, ..plain.clone() };
    for schedule in &cli.schedules {
        if schedule == "sizes" {
            same &= every_size(&reference, &forked)?;
            continue;
        }
        for (name, schedule) in parse_schedule(schedule, reference.entry_calls)? {
            let replay = Replay { schedule, ..forked.clone() };
            let outcome = replay.run().with_context(|| format!("schedule {name}"))?;
            same &= report(&name, &reference, &outcome);
        }
    }
    Ok(same)
}

/// Sizes that a program sees, in several runs if it has fewer calls of an entry.
const SIZES: u64 = 16;

/// Forks at every call, with a buffer of another size each time.
fn every_size(reference: &Outcome, forked: &Replay<'_>) -> Result<bool> {
    let parent = Replay { schedule: Schedule::FollowParent, ..forked.clone() };
    let ample = parent.run().context("an ample buffer")?;
    let starts: Vec<u64> = (0..SIZES).step_by(reference.entry_calls.clamp(1, SIZES) as usize).collect();
    let run = |cycle: u64, on_abort| -> Result<Vec<Outcome>> {
        let run = |&start: &u64| {
            Replay { buffer_cycle: Some(cycle), buffer_cycle_start: start, on_abort, ..parent.clone() }.run()
        };
        starts.iter().map(run).collect::<Result<_>>().context("sizes")
    };
    // Below the end there is a reserve for the largest frame of any function: more than what was saved, perhaps.
    let mut enough = 2 * ample.frame_bytes.max + 16;
    loop {
        let performed = run(enough, OnAbort::Perform)?;
        let sum = |of: fn(&Outcome) -> u64| performed.iter().map(of).sum::<u64>();
        if sum(|outcome| outcome.forks) * 5 < sum(|outcome| outcome.entry_calls) && enough < forked.buffer {
            enough *= 2;
            continue;
        }
        let retried = run(enough, OnAbort::Retry)?;
        let mut same = true;
        for (index, (performed, retried)) in performed.iter().zip(&retried).enumerate() {
            let name = format!("sizes below {enough}, run {}", index + 1);
            same &= report(&format!("{name}, else without a fork"), reference, performed);
            same &= report(&format!("{name}, else in a larger buffer"), reference, retried);
        }
        return Ok(same);
    }
}

fn report(name: &str, reference: &Outcome, outcome: &Outcome) -> bool {
    let differences = reference.differences(outcome);
    let verdict = if differences.is_empty() { "same" } else { "DIFFERENT" };
    let bytes = outcome.frame_bytes;
    let saved = format!("{} forks, {} aborts, at most {} bytes saved", outcome.forks, outcome.aborts, bytes.max);
    println!("{name}: {verdict} ({saved}, {} in all)", bytes.total);
    differences.iter().for_each(|difference| println!("  {difference}"));
    differences.is_empty()
}

/// The schedules that a word stands for, with their names.
fn parse_schedule(word: &str, calls: u64) -> Result<Vec<(String, Schedule)>> {
    let (kind, number) = match word.split_once(':') {
        Some((kind, number)) => (kind, Some(number.parse::<u64>().with_context(|| format!("schedule {word}"))?)),
        None => (word, None),
    };
    let one = |schedule| Ok(vec![(word.to_owned(), schedule)]);
    match (kind, number) {
        ("never", None) => one(Schedule::Never),
        ("child", None) => one(Schedule::FollowChild),
        ("parent", None) => one(Schedule::FollowParent),
        ("random", Some(seed)) => one(Schedule::Random { seed }),
        ("at", Some(count)) => {
            let count = count.min(calls);
            let at = |index| u64::try_from(u128::from(index) * u128::from(calls) / u128::from(count));
            let at = (0..count).map(at).collect::<Result<Vec<u64>, _>>()?;
            Ok(at.into_iter().map(|at| (format!("at call {at}"), Schedule::ForkAt(at))).collect())
        }
        _ => bail!("unknown schedule {word:?}: never, child, parent, at:COUNT, random:SEED"),
    }
}
