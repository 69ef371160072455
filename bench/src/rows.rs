//! The measurements. Those of time go round by round over all columns, so that a slow moment of the machine meets all.

use std::collections::BTreeSet;

use clap::ValueEnum;
use serde_json::Value;
use wasmtime::{Result, ensure, format_err};

use crate::columns::{self, Column, Variant};
use crate::modules::{self, Module};
use crate::results::{Results, median, quantile};
use crate::tools::Tools;
use crate::worker::deepest;
use crate::{Cli, causes, node, scaling, wasm};

/// A group of figures.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Row {
    /// Bytes of the module, raw and compressed.
    Size,
    /// Declared locals of the functions on the fork path.
    Locals,
    /// Bytes that a fork saves, and the time to unwind and to rewind.
    Forks,
    /// Time and memory to compile.
    Compile,
    /// Time of a program that does not fork.
    Run,
    /// Time and memory of a process whose program does little.
    Start,
    /// Deepest recursion.
    Depth,
    /// Time and memory of wasm-opt.
    Pass,
    /// What the bytes are for.
    Causes,
    /// Time of the pass by the number of functions.
    Scaling,
}

/// One module in all columns.
struct Subject<'a> {
    tools: &'a Tools,
    module: &'a Module,
    variants: Vec<Variant>,
    rounds: usize,
}

/// Measures what the command line names.
pub fn measure(tools: &Tools, cli: &Cli, results: &mut Results) -> Result<()> {
    for name in &cli.only {
        ensure!(modules::ALL.iter().any(|module| module.name == name), "there is no module {name}: see --list");
    }
    let wanted = |row: Row| cli.rows.is_empty() || cli.rows.contains(&row);
    describe(tools, results)?;
    for module in modules::ALL {
        if !cli.only.is_empty() && !cli.only.iter().any(|name| name == module.name) {
            continue;
        }
        let variants = columns::ALL.iter().map(|&column| columns::build(tools, module, column));
        let subject = Subject { tools, module, variants: variants.collect::<Result<_>>()?, rounds: cli.rounds };
        for &row in Row::value_variants() {
            if wanted(row) && row != Row::Scaling {
                eprintln!("fork-bench: {}, {row:?}", module.name);
                subject.row(row, results)?;
                results.write(&tools.docs())?;
            }
        }
    }
    if wanted(Row::Scaling) && cli.only.is_empty() {
        eprintln!("fork-bench: scaling");
        scaling::measure(tools, results)?;
        results.write(&tools.docs())?;
    }
    Ok(())
}

/// Writes down versions and the kind of machine.
fn describe(tools: &Tools, results: &mut Results) -> Result<()> {
    let first_line = |program: &std::path::Path, arguments: &[&str]| -> Result<String> {
        let run = std::process::Command::new(program).args(arguments).output()?;
        Ok(String::from_utf8_lossy(&run.stdout).lines().next().unwrap_or_default().to_owned())
    };
    let mut version = |name: &str, text: String| results.versions.insert(name.to_owned(), text);
    version("wasm-opt", first_line(&tools.wasm_opt, &["--version"])?);
    version("node", first_line(&tools.node, &["--version"])?);
    version("v8", first_line(&tools.node, &["-p", "process.versions.v8"])?);
    version("wasmtime", "48".to_owned());
    let cores = std::thread::available_parallelism()?.get();
    results.machine.insert("architecture".to_owned(), std::env::consts::ARCH.to_owned());
    results.machine.insert("system".to_owned(), std::env::consts::OS.to_owned());
    results.machine.insert("cores".to_owned(), cores.to_string());
    Ok(())
}

fn words(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

fn number(value: &Value, key: &str) -> Result<f64> {
    value[key].as_f64().ok_or_else(|| format_err!("no number {key} in {value}"))
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().map(|list| list.iter().filter_map(Value::as_f64).collect()).unwrap_or_default()
}

/// What comes after engines have compiled and optimised.
fn last_quarter(numbers: &[f64]) -> &[f64] {
    &numbers[numbers.len() - numbers.len().div_ceil(4)..]
}

fn first_hundred(numbers: &[f64]) -> &[f64] {
    &numbers[..numbers.len().min(100)]
}

impl Subject<'_> {
    fn row(&self, row: Row, results: &mut Results) -> Result<()> {
        match row {
            Row::Size => self.size(results),
            Row::Locals => self.locals(results),
            Row::Forks => self.forks(results),
            Row::Compile => self.compile(results),
            Row::Run => self.run(results),
            Row::Start => self.start(results),
            Row::Depth if self.module.name == modules::WALK => self.depth(results),
            Row::Pass => self.pass(results),
            Row::Causes => causes::measure(self.module, &self.variants, &self.fork_path()?, results),
            Row::Depth | Row::Scaling => Ok(()),
        }
    }

    fn set(&self, results: &mut Results, column: Column, metric: &str, value: f64) {
        results.set(self.module.name, column, metric, value);
    }

    fn size(&self, results: &mut Results) -> Result<()> {
        for variant in &self.variants {
            let first = std::fs::read(&variant.file)?;
            let mut sizes = (first.len(), wasm::gzip_size(&first)?);
            self.set(results, variant.column, "size", sizes.0 as f64);
            self.set(results, variant.column, "gzip", sizes.1 as f64);
            if let Some((resume, _)) = &variant.resume {
                let bytes = std::fs::read(resume)?;
                sizes = (sizes.0 + bytes.len(), sizes.1 + wasm::gzip_size(&bytes)?);
            }
            self.set(results, variant.column, "size.both", sizes.0 as f64);
            self.set(results, variant.column, "gzip.both", sizes.1 as f64);
        }
        Ok(())
    }

    /// Names of the functions on the fork path: those with a resume function, before equal ones are merged.
    fn fork_path(&self) -> Result<BTreeSet<String>> {
        let (_, input) = columns::input(self.tools, self.module)?;
        let output = self.tools.out.join("fork-path.wasm");
        let options = Column::Effects.options(self.module, &output);
        let mut options: Vec<&str> = options.iter().map(String::as_str).collect();
        options.push("--pass-arg=fork-instrument-verbose");
        let arguments = self.tools.arguments(&input, &options, &[], &output);
        let run = std::process::Command::new(&self.tools.wasm_opt).args(arguments).output()?;
        ensure!(run.status.success(), "wasm-opt failed");
        let text = String::from_utf8_lossy(&run.stderr).into_owned();
        let lines = text.lines().filter_map(|line| line.strip_prefix("[fork-instrument] "));
        Ok(lines.filter_map(|line| Some(line.split_once(" calls ")?.0.to_owned())).collect())
    }

    fn locals(&self, results: &mut Results) -> Result<()> {
        let path = self.fork_path()?;
        self.set(results, Column::Plain, "path.functions", path.len() as f64);
        for variant in &self.variants {
            let functions = wasm::functions(&std::fs::read(&variant.named)?)?;
            let on_path = functions.iter().filter(|function| path.contains(&function.name));
            let (mut sum, mut most, mut found) = (0, 0, 0);
            for function in on_path {
                sum += function.locals;
                most = most.max(function.locals);
                found += 1;
            }
            self.set(results, variant.column, "locals", sum as f64);
            self.set(results, variant.column, "locals.most", most as f64);
            self.set(results, variant.column, "locals.functions", found as f64);
            let named = variant.resume.as_ref().map_or(&variant.named, |(_, named)| named);
            let resume = wasm::functions(&std::fs::read(named)?)?;
            let resume = resume.iter().filter(|function| function.name.ends_with(".resume"));
            self.set(results, variant.column, "locals.resume", resume.map(|f| f.locals).sum::<usize>() as f64);
        }
        Ok(())
    }

    /// Medians of the medians of some processes each.
    fn forks(&self, results: &mut Results) -> Result<()> {
        type Part = fn(&[f64]) -> &[f64];
        const STEPS: [(&str, &str, Part); 6] = [
            ("v8", "unwind", last_quarter),
            ("v8", "rewind", last_quarter),
            ("v8-first", "unwind", first_hundred),
            ("v8-first", "rewind", first_hundred),
            ("wasmtime", "unwind", last_quarter),
            ("wasmtime", "rewind", last_quarter),
        ];
        let mut written = None;
        let instrumented = || self.variants.iter().filter(|variant| variant.column != Column::Plain);
        let mut taken: Vec<[Vec<f64>; STEPS.len()]> = instrumented().map(|_| Default::default()).collect();
        for _ in 0..self.rounds.clamp(1, 5) {
            for (variant, taken) in instrumented().zip(&mut taken) {
                let mut arguments = vec![self.module.entry.to_owned(), variant.argument(), "--".to_owned()];
                arguments.extend(words(self.module.small));
                let v8 = node::run(self.tools, &[], "fork.mjs", &arguments)?;
                arguments.insert(0, "fork".to_owned());
                let wasmtime = self.tools.worker(&arguments)?;
                let count = number(&v8, "forks")?;
                ensure!(count > 0.0, "{} never forks", self.module.name);
                for value in [&v8, &wasmtime] {
                    let bytes = number(value, "written")?;
                    let expected = *written.get_or_insert(bytes);
                    ensure!(bytes == expected, "{}: {bytes} bytes written, not {expected}", variant.column.key());
                }
                self.set(results, variant.column, "bytes", number(&v8, "bytes")? / count);
                self.set(results, variant.column, "bytes.most", number(&v8, "most")?);
                for ((engine, step, part), taken) in STEPS.iter().zip(taken) {
                    let value = if *engine == "wasmtime" { &wasmtime } else { &v8 };
                    taken.push(median(part(&numbers(&value[step]))));
                }
            }
        }
        for (variant, taken) in instrumented().zip(&taken) {
            for ((engine, step, _), taken) in STEPS.iter().zip(taken) {
                self.set(results, variant.column, &format!("{step}.{engine}"), median(taken));
            }
        }
        Ok(())
    }

    /// Every column, and the separate one with its second module, too.
    fn compiled(&self) -> Vec<(Column, &'static str, Vec<String>)> {
        let mut list = Vec::new();
        for variant in &self.variants {
            let mut files = vec![variant.file.display().to_string()];
            list.push((variant.column, "", files.clone()));
            if let Some((resume, _)) = &variant.resume {
                files.push(resume.display().to_string());
                list.push((variant.column, ".both", files));
            }
        }
        list
    }

    fn compile(&self, results: &mut Results) -> Result<()> {
        // What threads have in memory at the same time is chance: more rounds for SQLite, whose figures are to be reached.
        let (liftoff, turbofan) = if self.module.name == modules::SQLITE { (40, 2) } else { (7, 1) };
        for (name, repeats, compiler) in
            [("liftoff", liftoff, "--liftoff-only"), ("turbofan", turbofan, "--no-liftoff")]
        {
            let compile = |script: &str, words: &[String]| {
                // Peaks are others with this flag: of SQLite's first module 1.27 of the uninstrumented one's, not 1.12.
                let gc: &[&str] = if script == "compile-times" { &["--expose-gc"] } else { &[] };
                let flags = [gc, &["--no-wasm-lazy-compilation", compiler]].concat();
                node::run(self.tools, &flags, &format!("{script}.mjs"), words)
            };
            self.compile_with(results, name, repeats, compile)?;
        }
        self.compile_with(results, "wasmtime", 1, |script, words| {
            let arguments: Vec<String> = std::iter::once(script.to_owned()).chain(words.iter().cloned()).collect();
            self.tools.worker(&arguments)
        })
    }

    /// Time in one process, round by round; peak memory in a process for each.
    fn compile_with(
        &self,
        results: &mut Results,
        name: &str,
        repeats: usize,
        compile: impl Fn(&str, &[String]) -> Result<Value>,
    ) -> Result<()> {
        let list = self.compiled();
        let rounds = self.rounds.clamp(1, 3) * repeats;
        let mut words = vec![rounds.to_string()];
        words.extend(list.iter().map(|(_, _, files)| files.join(",")));
        let times = compile("compile-times", &words)?;
        let times: Vec<Vec<f64>> = (0..list.len()).map(|index| numbers(&times["cpu"][index])).collect();
        let mut empty = Vec::new();
        let mut peaks = vec![Vec::new(); list.len()];
        for _ in 0..rounds {
            empty.push(number(&compile("compile", &[])?, "peak")?);
            for ((_, _, files), peaks) in list.iter().zip(&mut peaks) {
                peaks.push(number(&compile("compile", files)?, "peak")?);
            }
        }
        for (((column, both, _), times), peaks) in list.iter().zip(&times).zip(&peaks) {
            let peak = (median(peaks) - median(&empty)).max(0.0);
            self.set(results, *column, &format!("compile.{name}.cpu{both}"), median(times));
            self.set(results, *column, &format!("compile.{name}.peak{both}"), peak);
        }
        Ok(())
    }

    /// Medians of the time, and of its ratio to the uninstrumented module's in the same round.
    fn run(&self, results: &mut Results) -> Result<()> {
        // The first rounds warm up: V8 optimises in the background.
        let processes = if self.module.name == modules::SQLITE { 2 } else { 1 };
        let warm_up = 2;
        for engine in ["v8", "wasmtime"] {
            let mut seconds = vec![Vec::new(); self.variants.len()];
            for process in 0..processes {
                let rounds = (warm_up + self.rounds).to_string();
                let mut arguments = vec![rounds, (process * 3).to_string()];
                if engine == "wasmtime" {
                    arguments.insert(0, "run".to_owned());
                    arguments.push(self.module.entry.to_owned());
                }
                arguments.extend(self.variants.iter().map(Variant::argument_without_resume));
                arguments.push("--".to_owned());
                arguments.extend(words(self.module.large));
                let value = match engine {
                    "v8" => node::run(self.tools, &[], "run.mjs", &arguments)?,
                    _ => self.tools.worker(&arguments)?,
                };
                for (index, seconds) in seconds.iter_mut().enumerate() {
                    seconds.extend(numbers(&value["seconds"][index]).into_iter().skip(warm_up));
                }
            }
            for (variant, own) in self.variants.iter().zip(&seconds) {
                let ratios: Vec<f64> = own.iter().zip(&seconds[0]).map(|(own, plain)| own / plain).collect();
                let metric = |end: &str| format!("run.{engine}{end}");
                self.set(results, variant.column, &metric(""), median(own));
                self.set(results, variant.column, &metric(".ratio"), median(&ratios));
                self.set(results, variant.column, &metric(".ratio.low"), quantile(&ratios, 0.25));
                self.set(results, variant.column, &metric(".ratio.high"), quantile(&ratios, 0.75));
            }
        }
        Ok(())
    }

    /// A process with default options, most of whose time is V8's compilation of what it happens to call.
    fn start(&self, results: &mut Results) -> Result<()> {
        let mut taken = vec![(Vec::new(), Vec::new()); self.variants.len()];
        for _ in 0..(4 * self.rounds).clamp(1, 36) {
            for (variant, taken) in self.variants.iter().zip(&mut taken) {
                let mut arguments = words(&["1", "0"]);
                arguments.extend([variant.argument_without_resume(), "--".to_owned()]);
                arguments.extend(words(self.module.small));
                let value = node::run(self.tools, &[], "run.mjs", &arguments)?;
                taken.0.push(number(&value, "cpu")?);
                taken.1.push(number(&value, "peak")?);
            }
        }
        for (variant, (cpu, peak)) in self.variants.iter().zip(&taken) {
            self.set(results, variant.column, "start.cpu", median(cpu));
            self.set(results, variant.column, "start.peak", median(peak));
        }
        Ok(())
    }

    fn depth(&self, results: &mut Results) -> Result<()> {
        let ways: [(&str, &[&str]); 3] =
            [("v8", &[]), ("v8-baseline", &["--liftoff-only"]), ("v8-optimized", &["--no-liftoff"])];
        for variant in &self.variants {
            for mode in ["recurse", "rewind"] {
                if mode == "rewind" && variant.column == Column::Plain {
                    continue;
                }
                for (name, flags) in ways {
                    let depth = deepest(|depth| {
                        let arguments = [variant.argument(), depth.to_string(), mode.to_owned()];
                        Ok(node::run(self.tools, flags, "depth.mjs", &arguments)?["ok"] == true)
                    })?;
                    self.set(results, variant.column, &format!("deepest.{mode}.{name}"), depth as f64);
                }
                let arguments = ["depth".to_owned(), variant.argument(), mode.to_owned()];
                let depth = number(&self.tools.worker(&arguments)?, "depth")?;
                self.set(results, variant.column, &format!("deepest.{mode}.wasmtime"), depth);
            }
        }
        Ok(())
    }

    fn pass(&self, results: &mut Results) -> Result<()> {
        let (input, _) = columns::input(self.tools, self.module)?;
        let output = self.tools.out.join("pass.wasm");
        let resume = self.tools.out.join("pass.resume.wasm");
        let mut taken = vec![(Vec::new(), Vec::new(), Vec::new()); self.variants.len()];
        for _ in 0..self.rounds.clamp(1, 3) {
            for (variant, taken) in self.variants.iter().zip(&mut taken) {
                let mut options = variant.column.options(self.module, &resume);
                if variant.column == Column::Plain {
                    options.push("-O0".to_owned());
                }
                let options: Vec<&str> = options.iter().map(String::as_str).collect();
                let mut arguments = vec!["spawn".to_owned(), self.tools.wasm_opt.display().to_string()];
                arguments.extend(self.tools.arguments(&input, &options, &[], &output));
                let value = self.tools.worker(&arguments)?;
                taken.0.push(number(&value, "cpu")?);
                taken.1.push(number(&value, "wall")?);
                taken.2.push(number(&value, "peak")?);
            }
        }
        for (variant, (cpu, wall, peak)) in self.variants.iter().zip(&taken) {
            self.set(results, variant.column, "pass.cpu", median(cpu));
            self.set(results, variant.column, "pass.wall", median(wall));
            self.set(results, variant.column, "pass.peak", median(peak));
        }
        Ok(())
    }
}
