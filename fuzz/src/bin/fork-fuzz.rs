//! `fork-fuzz`: random programs, instrumented and compared with their originals.

use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use fork_fuzz::campaign::Campaign;
use fork_fuzz::check::Verdict;
use fork_fuzz::generate::Limits;
use fork_fuzz::tool::Tool;
use fork_fuzz::{buffers, bytes, finding, generated_case, minimise, smith, ttf};

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
    /// Programs of our own generator.
    Generate {
        /// Seeds, from A to before B.
        #[arg(long, value_parser = parse_range, default_value = "0..1000000000")]
        seeds: Range<u64>,
        /// Exceptions are caught by reference, too.
        #[arg(long)]
        exnref: bool,
    },
    /// One program of our generator, and what it is compared with.
    One {
        #[arg(long)]
        seed: u64,
        #[arg(long)]
        exnref: bool,
        /// Writes the program here, in text form.
        #[arg(long)]
        print: bool,
    },
    /// Modules of wasm-smith, with calls of the fork import everywhere.
    Smith {
        #[arg(long, value_parser = parse_range, default_value = "0..1000000000")]
        seeds: Range<u64>,
    },
    /// Modules of Binaryen's generator, with calls of the fork import everywhere.
    Ttf {
        #[arg(long, value_parser = parse_range, default_value = "0..1000000000")]
        seeds: Range<u64>,
    },
    /// Mutated bytes of the modules in a folder.
    Bytes {
        folder: PathBuf,
        #[arg(long, value_parser = parse_range, default_value = "0..1000000000")]
        seeds: Range<u64>,
    },
    /// Rewinds from corrupted buffers.
    Buffers {
        #[arg(long, value_parser = parse_range, default_value = "0..1000000000")]
        seeds: Range<u64>,
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

fn parse_range(text: &str) -> Result<Range<u64>> {
    let (low, high) = text.split_once("..").context("seeds are given as A..B")?;
    Ok(low.parse()?..high.parse()?)
}

fn limits(exnref: bool) -> Limits {
    Limits { exnref, ..Limits::default() }
}

fn kind(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Same(_) => "the same",
        Verdict::Refused(_) => "refused",
        Verdict::Binaryen(_) => "wrong in Binaryen too",
        Verdict::Finding(_) => "a finding",
    }
}

fn main() -> Result<ExitCode> {
    let Cli { shared, command } = Cli::parse();
    let tool = Tool::find(shared.wasm_opt.as_deref())?;
    let campaign = |name| Campaign {
        name,
        tool: tool.clone(),
        jobs: shared.jobs,
        time: shared.minutes.map(|minutes| Duration::from_secs_f64(60.0 * minutes)),
        findings: shared.findings.clone().unwrap_or_else(finding::default_folder),
        options: shared.options.clone(),
    };
    let summary = match command {
        Command::Generate { seeds, exnref } => {
            campaign("generated").run(seeds, |seed, _| Ok(Some(generated_case(seed, limits(exnref)))))?
        }
        Command::Smith { seeds } => campaign("smith").run(seeds, |seed, _| smith::case(seed))?,
        Command::Ttf { seeds } => campaign("ttf").run(seeds, ttf::case)?,
        Command::Bytes { folder, seeds } => {
            let ends = bytes::run(&campaign("bytes"), &folder, seeds)?;
            let of =
                |prefix| ends.iter().filter(|(end, _)| end.starts_with(prefix)).map(|(_, count)| count).sum::<u64>();
            ends.iter().for_each(|(end, count)| println!("{count:6} {end}"));
            let (all, refused, findings) = (ends.values().sum::<u64>(), of("refused"), of("findings"));
            println!("{all} programs, {refused} refused, {findings} findings");
            return Ok(ExitCode::from(u8::from(findings > 0)));
        }
        Command::Buffers { seeds } => {
            let ends = buffers::run(&campaign("buffers"), seeds)?;
            let of =
                |prefix| ends.iter().filter(|(end, _)| end.starts_with(prefix)).map(|(_, count)| count).sum::<u64>();
            ends.iter().for_each(|(end, count)| println!("{count:6} {end}"));
            let (all, refused, findings) = (ends.values().sum::<u64>(), of("refused"), of("finding"));
            println!("{all} rewinds and other ends, {refused} refused, {findings} findings");
            return Ok(ExitCode::from(u8::from(findings > 0)));
        }
        Command::One { seed, exnref, print } => {
            let (mut case, _) = generated_case(seed, limits(exnref));
            case.options.extend(shared.options);
            if print {
                println!("{}", wasmprinter::print_bytes(&case.wasm)?);
            }
            println!("{}", case.command());
            let verdict = case.check(&Tool::new(&tool)?)?;
            match &verdict {
                Verdict::Same(counts) => println!("{}: {counts:?}", kind(&verdict)),
                Verdict::Finding(said) | Verdict::Refused(said) | Verdict::Binaryen(said) => {
                    println!("{}: {said}", kind(&verdict));
                }
            }
            return Ok(ExitCode::from(u8::from(matches!(verdict, Verdict::Finding(_)))));
        }
        Command::Minimise { finding, attempts } => {
            minimise::minimise(&finding, &Tool::new(&tool)?, attempts)?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    summary.print();
    Ok(ExitCode::from(u8::from(!summary.findings.is_empty())))
}
