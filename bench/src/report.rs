//! The documents: tables for `docs/benchmarks.md` and for the README, from the numbers alone.

use std::fmt::Write as _;
use std::path::Path;

use wasmtime::Result;

use crate::chart;
use crate::columns::{self, Column};
use crate::modules::{self, Module, SQLITE, WALK};
use crate::results::Results;

/// How a figure is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Count,
    Bytes,
    Megabytes,
    Seconds,
    Microseconds,
}

/// A line of the tables.
struct Line {
    title: &'static str,
    metric: &'static str,
    unit: Unit,
    /// Whether more is better.
    more: bool,
}

const fn line(title: &'static str, metric: &'static str, unit: Unit) -> Line {
    Line { title, metric, unit, more: false }
}

const fn depth(title: &'static str, metric: &'static str) -> Line {
    Line { title, metric, unit: Unit::Count, more: true }
}

/// Where a module of two files counts with both, the metric ends in `.both`: the other columns repeat the one they have.
const LINES: &[Line] = &[
    line("size", "size", Unit::Bytes),
    line("size, resume module included", "size.both", Unit::Bytes),
    line("size, gzip", "gzip", Unit::Bytes),
    line("size, gzip, resume module included", "gzip.both", Unit::Bytes),
    line("declared locals over the fork path", "locals", Unit::Count),
    line("declared locals of resume functions", "locals.resume", Unit::Count),
    line("bytes per fork, mean", "bytes", Unit::Bytes),
    line("bytes per fork, most", "bytes.most", Unit::Bytes),
    line("run time, V8", "run.v8", Unit::Seconds),
    line("run time, wasmtime", "run.wasmtime", Unit::Seconds),
    line("short process, Node: time", "start.cpu", Unit::Seconds),
    line("short process, Node: memory", "start.peak", Unit::Megabytes),
    line("compilation, V8 baseline: time", "compile.liftoff.cpu", Unit::Seconds),
    line("compilation, V8 baseline: memory", "compile.liftoff.peak", Unit::Megabytes),
    line("compilation, V8 optimizing: time", "compile.turbofan.cpu", Unit::Seconds),
    line("compilation, V8 optimizing: memory", "compile.turbofan.peak", Unit::Megabytes),
    line("compilation, wasmtime: time", "compile.wasmtime.cpu", Unit::Seconds),
    line("compilation, wasmtime: memory", "compile.wasmtime.peak", Unit::Megabytes),
    line("unwind, V8", "unwind.v8", Unit::Microseconds),
    line("rewind, V8", "rewind.v8", Unit::Microseconds),
    line("unwind, V8, first hundred", "unwind.v8-first", Unit::Microseconds),
    line("rewind, V8, first hundred", "rewind.v8-first", Unit::Microseconds),
    line("unwind, wasmtime", "unwind.wasmtime", Unit::Microseconds),
    line("rewind, wasmtime", "rewind.wasmtime", Unit::Microseconds),
    depth("deepest recursion, V8", "deepest.recurse.v8"),
    depth("deepest recursion, V8 baseline only", "deepest.recurse.v8-baseline"),
    depth("deepest recursion, V8 optimizing only", "deepest.recurse.v8-optimized"),
    depth("deepest recursion, wasmtime", "deepest.recurse.wasmtime"),
    depth("deepest fork, V8", "deepest.rewind.v8"),
    depth("deepest fork, V8 baseline only", "deepest.rewind.v8-baseline"),
    depth("deepest fork, V8 optimizing only", "deepest.rewind.v8-optimized"),
    depth("deepest fork, wasmtime", "deepest.rewind.wasmtime"),
    line("wasm-opt: time", "pass.cpu", Unit::Seconds),
    line("wasm-opt: memory", "pass.peak", Unit::Megabytes),
];

/// A line of a compact table: title, metric, unit.
const COMPACT: &[&str] = &[
    "size",
    "size.both",
    "locals",
    "bytes",
    "run.v8",
    "run.wasmtime",
    "compile.turbofan.cpu",
    "compile.turbofan.peak",
    "start.cpu",
    "pass.cpu",
];

const README_COLUMNS: [Column; 4] = [Column::Plain, Column::Asyncify, Column::Effects, Column::Separate];

/// Writes the tables and the chart.
pub fn write(docs: &Path, results: &Results) -> Result<()> {
    let mut text = String::from(INTRODUCTION);
    about(&mut text, results);
    text += "\n## Targets\n\n";
    text += &targets(results);
    text += "\n## Real programs together\n\nGeometric means of the ratios to the uninstrumented module.\n\n";
    text += &means(results);
    for module in modules::ALL.iter().filter(|module| results.modules.contains_key(module.name)) {
        writeln!(text, "\n## {}: {}\n", module.name, module.about)?;
        text += &table(results, module.name, LINES.iter(), columns::ALL);
    }
    text += &causes(results);
    text += &scaling(results);
    std::fs::write(docs.join("benchmarks.md"), text)?;
    chart::write(&docs.join("benchmarks.svg"), results)
}

const INTRODUCTION: &str = "# Benchmarks

`make bench` writes this file, `benchmarks.json` (all numbers) and `benchmarks.svg`; parts of it can be measured again by
themselves (`fork-bench --only sqlite --rows size,locals`). The numbers of one row come from one run, round by round over
all columns.

![Ratios to the uninstrumented modules](benchmarks.svg)

## How to read it

Each cell has the figure and, in parentheses, its ratio to the uninstrumented module. *Uninstrumented* is the module after
`wasm-opt -O2` (`benchmark_walk` as it is written), read and written once more; all other columns start from the same
file. *Asyncify* is `--asyncify` with the fork import as its list of imports, and `-O2` after it. *Ours* is
`--fork-instrument` alone, with `replay@effects`, the default; *none* and *scalar* are the other values of that option.
*Separate* has the resume functions in a module of their own, which hosts need only once a program forks: its figures are
those of the first module unless a row says otherwise.

* *Declared locals*: without parameters, over the functions on the fork path; those of resume functions, which are on the
  stack only while a fork's stack is, are apart.
* *Bytes per fork*: what is in the buffer, its header included, at each call of the entry in a small run.
* *Run time*: CPU time of the thread inside of the program, after a warm-up, in a fresh instance each; medians. The ratio is
  the median of the ratios to the uninstrumented module in the same round.
* *Short process*: CPU time and peak memory of Node as a whole, for a run so short that most of it is start-up and
  compilation of what is called.
* *Compilation*: of the whole module at once; medians of the CPU time of all threads, in one process that compiles all
  columns in turn; and the peak memory of a process that compiles one, less that of one that does not.
* *Unwind, rewind*: in place, without copying memory; microseconds of real time. The program runs again and again, in
  instances of one compiled module, until it has forked 200,000 times or 5 seconds are over (wasmtime, which has compiled all
  before: 2,000 times or 2 seconds). The median of the last quarter, when V8 has optimised most of what runs, and of
  the *first hundred*, when it has not; medians of five processes that take turns with the other columns'. For SQLite an
  average stack, for `benchmark_walk` one of 100 activations.
* *Deepest recursion*: of `benchmark_walk` without a fork, and *deepest fork*, where it is unwound at the bottom and rewound
  to it and runs to its end.
* *wasm-opt*: CPU time and peak memory of the whole command, beside `wasm-opt -O0`, which only reads and writes.
";

fn about(text: &mut String, results: &Results) {
    let list = |map: &std::collections::BTreeMap<String, String>| {
        map.iter().map(|(key, value)| format!("{key}: {value}")).collect::<Vec<_>>().join(", ")
    };
    let _ = writeln!(text, "\nMeasured with {}, on {}.", list(&results.versions), list(&results.machine));
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn show(value: f64, unit: Unit) -> String {
    let decimals = |value: f64| match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v if v >= 1.0 => format!("{v:.2}"),
        v => format!("{v:.3}"),
    };
    match unit {
        Unit::Count | Unit::Bytes => grouped(value.round() as u64),
        Unit::Megabytes => format!("{} MB", decimals(value / 1e6)),
        Unit::Seconds if value < 0.001 => format!("{} ms", decimals(value * 1000.0)),
        Unit::Seconds => format!("{} s", decimals(value)),
        Unit::Microseconds => format!("{} µs", decimals(value)),
    }
}

fn show_ratio(ratio: f64) -> String {
    if ratio < 10.0 { format!("{ratio:.3}") } else { format!("{ratio:.1}") }
}

/// The ratio of a metric to the uninstrumented module's; that of run times is measured round by round.
pub fn ratio(results: &Results, module: &str, column: Column, metric: &str) -> Option<f64> {
    results.get(module, column, &format!("{metric}.ratio")).or_else(|| results.ratio(module, column, metric))
}

fn cell(results: &Results, module: &str, column: Column, line: &Line) -> String {
    let Some(value) = results.get(module, column, line.metric) else { return String::new() };
    let shown = show(value, line.unit);
    match ratio(results, module, column, line.metric) {
        Some(ratio) if column != Column::Plain => format!("{shown} ({})", show_ratio(ratio)),
        _ => shown,
    }
}

fn head(columns: &[Column]) -> String {
    let titles: Vec<&str> = columns.iter().map(|column| column.title()).collect();
    format!("| | {} |\n| --- |{}\n", titles.join(" | "), " ---: |".repeat(columns.len()))
}

fn table<'a>(results: &Results, module: &str, lines: impl Iterator<Item = &'a Line>, columns: &[Column]) -> String {
    let mut text = head(columns);
    for line in lines {
        let cells: Vec<String> = columns.iter().map(|&column| cell(results, module, column, line)).collect();
        if cells.iter().any(|cell| !cell.is_empty()) {
            let _ = writeln!(text, "| {} | {} |", line.title, cells.join(" | "));
        }
    }
    text
}

fn programs(results: &Results) -> impl Iterator<Item = &'static Module> {
    modules::ALL.iter().filter(|module| !module.example && results.modules.contains_key(module.name))
}

/// The geometric mean of a metric's ratios over the real programs that have it.
pub fn mean(results: &Results, column: Column, metric: &str) -> Option<f64> {
    let ratios: Vec<f64> = programs(results).filter_map(|module| ratio(results, module.name, column, metric)).collect();
    let sum: f64 = ratios.iter().map(|ratio| ratio.ln()).sum();
    (!ratios.is_empty()).then(|| (sum / ratios.len() as f64).exp())
}

fn means(results: &Results) -> String {
    let mut text = head(columns::ALL);
    for line in LINES.iter().filter(|line| mean(results, Column::Separate, line.metric).is_some()) {
        let cells =
            columns::ALL.iter().map(|&column| mean(results, column, line.metric).map_or(String::new(), show_ratio));
        let _ = writeln!(text, "| {} | {} |", line.title, cells.collect::<Vec<_>>().join(" | "));
    }
    text
}

/// A figure to reach.
struct Target {
    what: &'static str,
    module: &'static str,
    metric: &'static str,
    /// Relative to the uninstrumented module.
    relative: bool,
    limit: f64,
    /// Whether the limit is a lower one.
    least: bool,
}

const fn most(what: &'static str, module: &'static str, metric: &'static str, relative: bool, limit: f64) -> Target {
    Target { what, module, metric, relative, limit, least: false }
}

const TARGETS: &[Target] = &[
    most("`benchmark_walk`, declared locals", WALK, "locals", true, 1.0),
    Target { least: true, ..most("`benchmark_walk`, depth in V8", WALK, "deepest.recurse.v8", true, 0.99) },
    Target {
        least: true,
        ..most("`benchmark_walk`, depth in V8, baseline", WALK, "deepest.recurse.v8-baseline", true, 0.99)
    },
    most("SQLite, run time in V8", SQLITE, "run.v8", true, 1.03),
    most("SQLite, run time in wasmtime", SQLITE, "run.wasmtime", true, 1.03),
    most("SQLite, compilation in V8, baseline: time", SQLITE, "compile.liftoff.cpu", true, 1.15),
    most("SQLite, compilation in V8, baseline: memory", SQLITE, "compile.liftoff.peak", true, 1.15),
    most("SQLite, compilation in V8, optimizing: time", SQLITE, "compile.turbofan.cpu", true, 1.15),
    most("SQLite, compilation in V8, optimizing: memory", SQLITE, "compile.turbofan.peak", true, 1.15),
    most("SQLite, size of the first module", SQLITE, "size", true, 1.13),
    most("SQLite, size of both modules", SQLITE, "size.both", true, 2.1),
    most("SQLite, bytes per fork", SQLITE, "bytes", false, 150.0),
    most("SQLite, declared locals over the fork path", SQLITE, "locals", true, 1.03),
    most("SQLite, CPU seconds of wasm-opt with the pass", SQLITE, "pass.cpu", false, 3.0),
    most("SQLite, memory of wasm-opt with the pass, beside -O0", SQLITE, "pass.peak", true, 3.0),
];

fn targets(results: &Results) -> String {
    let mut text = String::from(
        "With the separate resume module.\n\n| | to reach | measured | Asyncify | |\n| --- | ---: | ---: | ---: | --- |\n",
    );
    for target in TARGETS {
        let value = |column| match target.relative {
            true => ratio(results, target.module, column, target.metric),
            false => results.get(target.module, column, target.metric),
        };
        let Some(measured) = value(Column::Separate) else { continue };
        let reached = if target.least { measured >= target.limit } else { measured <= target.limit };
        let show = |value: f64| if value < 100.0 { format!("{value:.3}") } else { format!("{value:.1}") };
        let _ = writeln!(
            text,
            "| {} | {} {} | {} | {} | {} |",
            target.what,
            if target.least { "≥" } else { "≤" },
            target.limit,
            show(measured),
            value(Column::Asyncify).map_or(String::new(), show),
            if reached { "reached" } else { "**not reached**" }
        );
    }
    text += "\nEvery module is to be ahead of Asyncify in every row but total size. Rows in which it is not, with the ratio to \
             Asyncify:\n\n";
    let behind = behind(results);
    for (module, rows) in &behind {
        let _ = writeln!(text, "* {module}: {}", rows.join("; "));
    }
    if behind.is_empty() {
        text += "none.\n";
    }
    text + "\n" + include_str!("limits.md").trim_end() + "\n"
}

/// Where Asyncify is ahead: by module, the rows.
fn behind(results: &Results) -> Vec<(&'static str, Vec<String>)> {
    let mut list = Vec::new();
    for module in modules::ALL {
        let mut rows = Vec::new();
        for line in LINES.iter().filter(|line| !line.metric.ends_with(".both") && line.metric != "locals.resume") {
            let value = |column| {
                let paired = format!("{}.ratio", line.metric);
                results.get(module.name, column, &paired).or_else(|| results.get(module.name, column, line.metric))
            };
            let (Some(ours), Some(theirs)) = (value(Column::Separate), value(Column::Asyncify)) else { continue };
            if (line.more && ours < theirs) || (!line.more && ours > theirs) {
                rows.push(format!("{} ({})", line.title, show_ratio(ours / theirs)));
            }
        }
        if !rows.is_empty() {
            list.push((module.name, rows));
        }
    }
    list
}

fn causes(results: &Results) -> String {
    let mut text = String::new();
    for (module, parts) in &results.causes {
        let Some(input) = results.get(module, Column::Plain, "size") else { continue };
        let _ = writeln!(text, "\n## What the bytes are for: {module}\n");
        for (part, title) in [("first", "What the first module has more"), ("resume", "The resume module")] {
            let Some(causes) = parts.get(part) else { continue };
            let total: f64 = causes.values().sum();
            let mut sorted: Vec<_> = causes.iter().filter(|(_, bytes)| **bytes != 0.0).collect();
            sorted.sort_by(|left, right| right.1.total_cmp(left.1));
            let _ = writeln!(text, "| {title} | bytes | of the uninstrumented size |\n| --- | ---: | ---: |");
            for (cause, bytes) in sorted {
                let _ = writeln!(text, "| {cause} | {} | {:.2} % |", signed(*bytes), bytes / input * 100.0);
            }
            let _ = writeln!(text, "| total | {} | {:.2} % |\n", signed(total), total / input * 100.0);
        }
        let class = |part: &str, class: &str| parts.get(part).and_then(|part| part.get(class)).copied().unwrap_or(0.0);
        let _ = writeln!(
            text,
            "| Operators of fork-path functions, bytes | uninstrumented | instrumented | resume functions |\n\
             | --- | ---: | ---: | ---: |"
        );
        let columns = ["classes.plain", "classes.first", "classes.resume"];
        for name in parts.get(columns[2]).into_iter().flat_map(|classes| classes.keys()) {
            let cells = columns.map(|column| signed(class(column, name))).join(" | ");
            let _ = writeln!(text, "| {name} | {cells} |");
        }
        let total = |column: &str| signed(parts.get(column).map_or(0.0, |classes| classes.values().sum()));
        let _ = writeln!(text, "| total | {} |", columns.map(total).join(" | "));
    }
    text
}

fn signed(bytes: f64) -> String {
    format!("{}{}", if bytes < 0.0 { "-" } else { "" }, grouped(bytes.abs().round() as u64))
}

fn scaling(results: &Results) -> String {
    if results.scaling.is_empty() {
        return String::new();
    }
    let mut text = String::from(
        "\n## Ten times the functions\n\nA generated program, all of whose functions are on the fork path.\n\n\
         | functions | `wasm-opt -O0` | with the pass | the pass | memory | the pass, separate | memory |\n\
         | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for (count, numbers) in &results.scaling {
        let get = |key: &str| numbers.get(key).copied().unwrap_or(f64::NAN);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} |",
            grouped(*count),
            show(get("plain.cpu"), Unit::Seconds),
            show(get("pass.cpu"), Unit::Seconds),
            show(get("pass.cpu") - get("plain.cpu"), Unit::Seconds),
            show(get("pass.peak"), Unit::Megabytes),
            show(get("separate.cpu") - get("plain.cpu"), Unit::Seconds),
            show(get("separate.peak"), Unit::Megabytes)
        );
    }
    text
}

/// The compact table.
pub fn readme(results: &Results) -> String {
    let lines = LINES.iter().filter(|line| COMPACT.contains(&line.metric));
    let mut text = String::from("SQLite, absolute and relative to the uninstrumented module:\n\n");
    text += &table(results, SQLITE, lines, &README_COLUMNS);
    let count = programs(results).count();
    let _ = writeln!(text, "\nGeometric means of the ratios over {count} real programs:\n");
    text += &head(&README_COLUMNS);
    for line in LINES.iter().filter(|line| COMPACT.contains(&line.metric) && line.metric != "pass.cpu") {
        let cells =
            README_COLUMNS.iter().map(|&column| mean(results, column, line.metric).map_or(String::new(), show_ratio));
        let _ = writeln!(text, "| {} | {} |", line.title, cells.collect::<Vec<_>>().join(" | "));
    }
    let depth = LINES.iter().filter(|line| line.more && line.metric.starts_with("deepest.recurse"));
    let _ = writeln!(text, "\nDeepest recursion of `benchmark_walk`:\n");
    text + &table(results, WALK, depth, &README_COLUMNS)
}
