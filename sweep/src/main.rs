//! Instruments every WebAssembly module of a folder, and checks what comes out.
//!
//! For each `.wasm` file below the folder: validate it with wasmparser, guess an entry and the features, run `wasm-opt
//! --fork-instrument`, validate the output with the features of the input, compare imports and exports. One line a
//! file. Exits with 1 if any is wrong.

mod entry;
mod module;
mod report;
mod tool;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;

use module::Summary;
use report::{Instrumented, Outcome, Row};
use tool::{Run, Tool};

/// Instrument every .wasm file of a folder and check what comes out. Exits with 1 if any is wrong.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Folders, searched recursively, or files.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// The wasm-opt with the pass.
    #[arg(long, default_value = "wasm-opt")]
    wasm_opt: PathBuf,
    /// The fork import of all modules; guessed for each if not given.
    #[arg(long, value_name = "MODULE.NAME")]
    entry: Option<String>,
    /// Options of the pass, without the prefix fork-instrument-. May be repeated.
    #[arg(long = "option", value_name = "NAME[@VALUE]")]
    options: Vec<String>,
    /// More arguments for wasm-opt, such as -O2; they come before the pass. May be repeated.
    #[arg(long = "arg", value_name = "ARGUMENT", allow_hyphen_values = true)]
    arguments: Vec<String>,
    /// Seconds for one module.
    #[arg(long, default_value_t = 300)]
    time: u64,
    /// Write a table in Markdown.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Keep the instrumented modules in this folder.
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
}

fn main() -> ExitCode {
    match sweep(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("fork-sweep: {error:?}");
            ExitCode::from(2)
        }
    }
}

fn sweep(cli: &Cli) -> Result<bool> {
    let temporary = std::env::temp_dir().join(format!("fork-sweep-{}", std::process::id()));
    let folder = cli.keep.as_deref().unwrap_or(&temporary);
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let tool = Tool { path: cli.wasm_opt.clone(), limit: Duration::from_secs(cli.time) };
    let mut rows = Vec::new();
    for root in &cli.paths {
        for file in modules(root)? {
            let name = match file.strip_prefix(root) {
                Ok(rest) if rest != Path::new("") => rest.display().to_string(),
                _ => file.display().to_string(),
            };
            let output = folder.join(name.replace(['/', '\\'], "__"));
            let row = check(cli, &tool, &file, name, &output)?;
            println!("{row}");
            if cli.keep.is_none() {
                let _ = fs::remove_file(&output);
            }
            rows.push(row);
        }
    }
    if cli.keep.is_none() {
        let _ = fs::remove_dir(folder);
    }
    let count = |wanted: fn(&Outcome) -> bool| rows.iter().filter(|row| wanted(&row.outcome)).count();
    let wrong = count(|o| matches!(o, Outcome::Wrong(_)));
    println!(
        "{} ok, {} refused, {} skipped, {wrong} wrong",
        count(|o| matches!(o, Outcome::Ok(_))),
        count(|o| matches!(o, Outcome::Refused(_))),
        count(|o| matches!(o, Outcome::Skipped(_))),
    );
    if let Some(path) = &cli.markdown {
        fs::write(path, report::markdown(&rows)).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(wrong == 0)
}

/// All `.wasm` files below a folder, sorted; or the file itself.
fn modules(root: &Path) -> Result<Vec<PathBuf>> {
    if root.is_file() {
        return Ok(vec![root.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(root).with_context(|| format!("cannot read {}", root.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(modules(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "wasm") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn check(cli: &Cli, tool: &Tool, file: &Path, name: String, output: &Path) -> Result<Row> {
    let wasm = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut row = Row {
        module: name,
        size: wasm.len() as u64,
        functions: 0,
        features: Vec::new(),
        entry: String::new(),
        outcome: Outcome::Skipped(String::new()),
    };
    let summary = match module::validate(&wasm).and_then(|()| module::summarize(&wasm)) {
        Ok(summary) => summary,
        Err(error) => {
            row.outcome = Outcome::Skipped(format!("not a valid module: {error}"));
            return Ok(row);
        }
    };
    row.functions = summary.defined;
    row.features = module::used_features(&wasm);
    let Some(entry) = cli.entry.clone().or_else(|| entry::guess(&summary)) else {
        row.outcome = Outcome::Skipped("it calls no imported function".into());
        return Ok(row);
    };
    let mut arguments: Vec<String> = row.features.iter().map(|flag| format!("--enable-{flag}")).collect();
    let plain = arguments.clone();
    arguments.extend(cli.arguments.iter().cloned());
    arguments.push(format!("--fork-instrument={entry}"));
    arguments.push("--pass-arg=fork-instrument-verbose".into());
    arguments.extend(cli.options.iter().map(|option| format!("--pass-arg=fork-instrument-{option}")));
    // Without a memory of its own, as GC languages are, the module gets one for the frames.
    if !summary.has_memory {
        arguments.push("--pass-arg=fork-instrument-in-secondary-memory".into());
    }
    row.entry = entry;
    let mut run = tool.run(file, output, &arguments)?;
    let mut allowed = row.features.clone();
    let mut notes = Vec::new();
    // What an author would do who is told which features to enable.
    let wanted: Vec<&'static str> = refusal(&run.stderr).map_or(Vec::new(), |why| features_to_enable(&why));
    if !wanted.is_empty() {
        let flags: Vec<String> = wanted.iter().map(|flag| format!("--enable-{flag}")).collect();
        notes.push(format!("refused without {}", flags.join(" ")));
        arguments.extend(flags);
        allowed.extend(wanted);
        run = tool.run(file, output, &arguments)?;
    }
    if !summary.has_memory {
        notes.push("with a memory for the frames".into());
    }
    row.outcome = match run.status {
        None => Outcome::Wrong(format!("not done after {} s", tool.limit.as_secs())),
        Some(status) if status.success() => {
            let without = tool.run(file, &output.with_extension("plain"), &plain)?;
            let _ = fs::remove_file(output.with_extension("plain"));
            judge(&summary, &allowed, output, run, without, notes)?
        }
        Some(status) => match refusal(&run.stderr) {
            Some(why) => Outcome::Refused(why),
            None => {
                let without = tool.run(file, output, &plain)?;
                if without.status.is_some_and(|status| status.success()) {
                    Outcome::Wrong(format!("{status}: {}", last_lines(&run.stderr)))
                } else {
                    Outcome::Refused(format!("by Binaryen without the pass: {}", last_lines(&without.stderr)))
                }
            }
        },
    };
    Ok(row)
}

/// Features that an error asks for, as `--enable-…`.
fn features_to_enable(why: &str) -> Vec<&'static str> {
    module::FEATURES.iter().map(|f| f.flag).filter(|flag| why.contains(&format!("--enable-{flag}"))).collect()
}

/// Checks the output. `without` is a run that only reads and writes the module; `notes` go before the pass's warnings.
fn judge(
    before: &Summary,
    features: &[&'static str],
    output: &Path,
    run: Run,
    without: Run,
    notes: Vec<String>,
) -> Result<Outcome> {
    let wasm = fs::read(output).with_context(|| format!("cannot read {}", output.display()))?;
    let mut allowed = features.to_vec();
    allowed.extend(module::FEATURES.iter().map(|f| f.flag).filter(|f| before.target_features.iter().any(|t| t == f)));
    // Declared element segments came with reference types, but wasmparser counts them to bulk memory, on which these build.
    if allowed.contains(&"reference-types") {
        allowed.push("bulk-memory");
    }
    if let Err(error) = module::validate_with(&wasm, &allowed) {
        let what = if module::validate(&wasm).is_ok() { "uses features that the input does not" } else { "is invalid" };
        return Ok(Outcome::Wrong(format!("the output {what}: {error}")));
    }
    let after = module::summarize(&wasm)?;
    if let Some((name, _)) = before.imports.difference(&after.imports).next() {
        return Ok(Outcome::Wrong(format!("the import {name} is lost")));
    }
    if let Some((name, _)) = after.imports.difference(&before.imports).next() {
        return Ok(Outcome::Wrong(format!("the import {name} is new")));
    }
    if let Some((name, _)) = before.exports.iter().find(|&(name, kind)| after.exports.get(name) != Some(kind)) {
        return Ok(Outcome::Wrong(format!("the export {name} is lost")));
    }
    let is_path_line = |line: &&str| line.starts_with("[fork-instrument] ");
    let warnings =
        run.stderr.lines().filter_map(|line| line.strip_prefix("warning: --fork-instrument: ")).map(str::to_owned);
    Ok(Outcome::Ok(Instrumented {
        size: wasm.len() as u64,
        cpu: run.cpu,
        peak: run.peak,
        plain_cpu: without.cpu,
        plain_peak: without.peak,
        on_path: run.stderr.lines().filter(is_path_line).count(),
        warnings: notes.into_iter().chain(warnings).collect(),
    }))
}

/// The pass's error, if that is why the tool failed.
fn refusal(stderr: &str) -> Option<String> {
    stderr.lines().find_map(|line| {
        let (before, why) = line.split_once("--fork-instrument: ")?;
        (!before.contains("warning")).then(|| why.to_owned())
    })
}

fn last_lines(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.lines().filter(|line| !line.starts_with("[fork-instrument] ")).collect();
    lines[lines.len().saturating_sub(3)..].join(" / ")
}
