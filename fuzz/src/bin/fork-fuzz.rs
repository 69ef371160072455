//! `fork-fuzz`: random programs, instrumented and compared with their originals.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use fork_fuzz::campaign::Campaign;
use fork_fuzz::check::{Case, Verdict};
use fork_fuzz::rotation::{self, Kind};
use fork_fuzz::tool::Tool;
use fork_fuzz::{bytes, finding, generated_case, minimise};

/// Compares random programs that `wasm-opt --fork-instrument` has changed with their originals, under random forks.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    shared: Shared,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Shared {
    /// The `wasm-opt` to test; by default $WASM_OPT, or else the one that cargo has built.
    #[arg(long, global = true)]
    wasm_opt: Option<PathBuf>,
    /// Threads.
    #[arg(long, global = true, default_value_t = 2)]
    jobs: usize,
    /// Stop after this many minutes.
    #[arg(long, global = true)]
    minutes: Option<f64>,
    /// Where findings are written.
    #[arg(long, global = true)]
    findings: Option<PathBuf>,
    /// One more option for `wasm-opt`; can be repeated.
    #[arg(long = "option", global = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

#[derive(Subcommand)]
enum Command {
    /// All kinds in turn, until --minutes are over (10 by default).
    All {
        /// The first seed of each kind; by default the time.
        #[arg(long)]
        seed: Option<u64>,
        /// A folder with the modules for `bytes`.
        #[arg(long)]
        modules: Option<PathBuf>,
    },
    /// Programs of our own generator.
    Generate {
        #[command(flatten)]
        seeds: Seeds,
        #[command(flatten)]
        style: Style,
    },
    /// One program of our generator, and what it is compared with.
    One {
        #[arg(long)]
        seed: u64,
        #[command(flatten)]
        style: Style,
        /// Writes the program here, in text form.
        #[arg(long)]
        print: bool,
    },
    /// Modules of wasm-smith, with calls of the fork import everywhere.
    Smith {
        #[command(flatten)]
        seeds: Seeds,
    },
    /// Modules of Binaryen's generator, with calls of the fork import everywhere.
    Ttf {
        #[command(flatten)]
        seeds: Seeds,
    },
    /// Mutated bytes of the modules in a folder.
    Bytes {
        folder: PathBuf,
        #[command(flatten)]
        seeds: Seeds,
    },
    /// Rewinds from corrupted buffers.
    Buffers {
        #[command(flatten)]
        seeds: Seeds,
    },
    /// Checks a finding again.
    Again {
        /// Its folder.
        finding: PathBuf,
    },
    /// Makes a finding smaller.
    Minimise {
        /// Its folder.
        finding: PathBuf,
        /// What wasm-shrink may try.
        #[arg(long, default_value_t = 2000)]
        attempts: u32,
    },
}

/// How exceptions are written.
#[derive(Args)]
struct Style {
    /// Exceptions are caught by reference, too.
    #[arg(long, conflicts_with = "legacy")]
    exnref: bool,
    /// Exceptions in the legacy encoding.
    #[arg(long)]
    legacy: bool,
}

impl Style {
    fn kind(&self) -> Kind {
        match (self.exnref, self.legacy) {
            (true, _) => Kind::GeneratedExnref,
            (_, true) => Kind::GeneratedLegacy,
            _ => Kind::Generated,
        }
    }
}

#[derive(Args)]
struct Seeds {
    /// Seeds, from A to before B.
    #[arg(long, value_parser = parse_range, default_value = "0..1000000000")]
    seeds: Range<u64>,
}

fn parse_range(text: &str) -> Result<Range<u64>> {
    let (low, high) = text.split_once("..").context("seeds are given as A..B")?;
    Ok(low.parse()?..high.parse()?)
}

/// How long all kinds take turns, if nothing says so.
const DEFAULT_TIME: Duration = Duration::from_secs(600);

fn kind(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Same(_) => "the same",
        Verdict::Ends(_) => "rewound",
        Verdict::Refused(_) => "refused",
        Verdict::Binaryen(_) => "wrong in Binaryen too",
        Verdict::Finding(_) => "a finding",
    }
}

fn main() -> Result<ExitCode> {
    let Cli { shared, command } = Cli::parse();
    let tool = Tool::find(shared.wasm_opt.as_deref())?;
    let minutes = shared.minutes.map(|minutes| Duration::from_secs_f64(60.0 * minutes));
    let campaign = Campaign {
        tool: tool.clone(),
        jobs: shared.jobs,
        time: minutes,
        findings: shared.findings.clone().unwrap_or_else(finding::default_folder),
        options: shared.options.clone(),
    };
    let summary = match command {
        Command::All { seed, modules } => {
            let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
            return all(&campaign, minutes.unwrap_or(DEFAULT_TIME), seed.unwrap_or_else(now), modules);
        }
        Command::Generate { seeds, style } => style.kind().run(&campaign, &[], seeds.seeds)?,
        Command::Smith { seeds } => Kind::Smith.run(&campaign, &[], seeds.seeds)?,
        Command::Ttf { seeds } => Kind::Ttf.run(&campaign, &[], seeds.seeds)?,
        Command::Bytes { folder, seeds } => Kind::Bytes.run(&campaign, &bytes::modules(&folder)?, seeds.seeds)?,
        Command::Buffers { seeds } => Kind::Buffers.run(&campaign, &[], seeds.seeds)?,
        Command::One { seed, style, print } => {
            let (mut case, _) = generated_case(seed, style.kind().limits());
            case.options.extend(shared.options);
            if print {
                println!("{}", wasmprinter::print_bytes(&case.wasm)?);
            }
            return show(&case, &tool);
        }
        Command::Again { finding } => {
            let (mut case, _) = finding::load(&finding)?;
            case.options.extend(shared.options);
            return show(&case, &tool);
        }
        Command::Minimise { finding, attempts } => {
            minimise::minimise(&finding, &Tool::new(&tool)?, attempts)?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    summary.print();
    Ok(ExitCode::from(u8::from(!summary.findings.is_empty())))
}

fn all(campaign: &Campaign, time: Duration, seed: u64, modules: Option<PathBuf>) -> Result<ExitCode> {
    println!("with {}, seeds from {seed} on, {:.1} minutes", campaign.tool.display(), time.as_secs_f64() / 60.0);
    let totals = rotation::run(campaign, time, seed, modules)?;
    let mut findings = 0;
    for (kind, total) in &totals {
        println!("\n{}:", kind.name());
        total.print();
        findings += total.findings.len();
    }
    if findings > 0 {
        println!("\n{findings} findings are in {}: fork-fuzz minimise FOLDER", campaign.findings.display());
    }
    Ok(ExitCode::from(u8::from(findings > 0)))
}

fn show(case: &Case, tool: &Path) -> Result<ExitCode> {
    println!("{}", case.command());
    let verdict = case.check(&Tool::new(tool)?)?;
    match &verdict {
        Verdict::Same(counts) => println!("{}: {counts:?}", kind(&verdict)),
        Verdict::Ends(ends) => println!("{}: {ends:?}", kind(&verdict)),
        Verdict::Finding(said) | Verdict::Refused(said) | Verdict::Binaryen(said) => {
            println!("{}: {said}", kind(&verdict));
        }
    }
    Ok(ExitCode::from(u8::from(matches!(verdict, Verdict::Finding(_)))))
}
