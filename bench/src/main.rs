//! Measures what `--fork-instrument` costs, beside `--asyncify` and beside no instrumentation at all.
//!
//! Every *module* is instrumented in several ways, the *columns*; for each column the *rows* are measured, most of them
//! in processes of their own. Raw numbers go to `docs/benchmarks.json`, where they replace older ones of the same module,
//! column and row, so that any part of the whole can be measured again by itself; `docs/benchmarks.md` and
//! `docs/benchmarks.svg` are made from that file alone.
//!
//! Reading order: [`modules`] (what is measured), [`columns`] (how it is instrumented), [`rows`] (the measurements), with
//! [`wasm`] (reading modules), [`node`] and [`guest`] (the two engines) below it; [`results`], [`report`], [`chart`].
//! Beside it, [`instructions`] counts what is executed, for work on the pass.
#![forbid(unsafe_code)]

mod causes;
mod chart;
mod columns;
mod cpu;
mod guest;
mod instructions;
mod modules;
mod node;
mod report;
mod results;
mod rows;
mod scaling;
mod tools;
mod wasm;
mod worker;

use std::process::ExitCode;

use clap::Parser;
use wasmtime::Result;

use crate::results::Results;
use crate::rows::Row;
use crate::tools::Tools;

/// Measure what fork-instrument costs, beside Asyncify.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Modules to measure, comma-separated; default: all.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Rows to measure, comma-separated; default: all.
    #[arg(long, value_enum, value_delimiter = ',')]
    rows: Vec<Row>,
    /// Rounds of each timed row.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// The wasm-opt to measure; default: the one beside this program.
    #[arg(long)]
    wasm_opt: Option<std::path::PathBuf>,
    /// The folder of the compiled programs; default: `programs` in cargo's target folder.
    #[arg(long)]
    programs: Option<std::path::PathBuf>,
    /// Measure nothing: only write the tables and the chart again.
    #[arg(long)]
    report: bool,
    /// Print the table for the README, from the numbers that are there.
    #[arg(long)]
    readme: bool,
    /// Names of modules and rows.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let outcome = match arguments.next().as_deref() {
        Some("worker") => worker::main(&arguments.collect::<Vec<_>>()),
        Some("instructions") => instructions::main(&arguments.collect::<Vec<_>>()),
        Some("fork-instructions") => instructions::of_forks(&arguments.collect::<Vec<_>>()),
        _ => measure(&Cli::parse()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fork-bench: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn measure(cli: &Cli) -> Result<()> {
    let tools = Tools::find(cli.wasm_opt.as_deref(), cli.programs.as_deref())?;
    if cli.list {
        modules::ALL.iter().for_each(|module| println!("{:16} {}", module.name, module.about));
        return Ok(());
    }
    let mut results = Results::read(&tools.docs())?;
    if cli.readme {
        print!("{}", report::readme(&results));
        return Ok(());
    }
    if !cli.report {
        rows::measure(&tools, cli, &mut results)?;
    }
    report::write(&tools.docs(), &results)
}
