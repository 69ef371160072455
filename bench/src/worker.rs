//! Processes that measure one thing and print it as JSON: `fork-bench worker NAME ARGUMENT...`.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wasmtime::{Module, Result, bail, ensure, format_err};

use crate::cpu;
use crate::guest::{Forks, Guest, Program, engine};

/// A function with arguments is over too soon to be timed: it is called this often.
const CALLS: u32 = 20_000;
/// How often a program forks before it is not run again, and how long that may take.
const ENOUGH_FORKS: usize = 2_000;
const ENOUGH_TIME: Duration = Duration::from_secs(2);

pub fn main(arguments: &[String]) -> Result<()> {
    let Some((name, rest)) = arguments.split_first() else { bail!("a worker has a name") };
    let value = match name.as_str() {
        "spawn" => spawn(rest)?,
        "compile" => compile(rest)?,
        "compile-times" => compile_times(rest)?,
        "run" => run(rest)?,
        "fork" => fork(rest)?,
        "depth" => depth(rest)?,
        _ => bail!("there is no worker {name}"),
    };
    println!("{value}");
    Ok(())
}

/// Runs a command; what it took.
fn spawn(arguments: &[String]) -> Result<Value> {
    let Some((program, rest)) = arguments.split_first() else { bail!("spawn what?") };
    let begun = Instant::now();
    let status = Command::new(program).args(rest).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    let wall = begun.elapsed().as_secs_f64();
    ensure!(status.success(), "{arguments:?}: {status}");
    let (cpu, peak) = cpu::children()?;
    Ok(json!({ "cpu": cpu, "wall": wall, "peak": peak }))
}

/// Compiles files.
fn compile(files: &[String]) -> Result<Value> {
    let engine = engine()?;
    let modules = files.iter().map(|file| Module::from_file(&engine, file)).collect::<Result<Vec<_>>>()?;
    Ok(json!({ "peak": cpu::peak()?, "modules": modules.len() }))
}

/// `ROUNDS FILE[,FILE]...`: compiles groups of files round by round.
fn compile_times(arguments: &[String]) -> Result<Value> {
    let [rounds, groups @ ..] = arguments else { bail!("too few words") };
    let engine = engine()?;
    let mut seconds = vec![Vec::new(); groups.len()];
    for _ in 0..rounds.parse::<usize>()? {
        for (group, seconds) in groups.iter().zip(&mut seconds) {
            let before = cpu::process()?;
            let modules = group.split(',').map(|file| Module::from_file(&engine, file)).collect::<Result<Vec<_>>>()?;
            seconds.push(cpu::process()? - before);
            drop(modules);
        }
    }
    Ok(json!({ "cpu": seconds }))
}

/// `WORD... -- ARGUMENT...`, with those arguments that are numbers (`=N`) apart.
fn split(arguments: &[String]) -> Result<(&[String], &[String], Vec<i32>)> {
    let at = arguments.iter().position(|word| word == "--").ok_or_else(|| format_err!("no -- before the arguments"))?;
    let rest = &arguments[at + 1..];
    let numbers = rest.iter().filter_map(|word| word.strip_prefix('=')).map(|word| Ok(word.parse()?));
    Ok((&arguments[..at], rest, numbers.collect::<Result<_>>()?))
}

/// Where a module's machine code is, and its functions in it.
fn place_of_code(module: &Module) -> Value {
    let functions = module.functions().map(|function| {
        let (index, name) = (function.index.as_u32(), function.name);
        json!({ "index": index, "name": name, "offset": function.offset, "length": function.len })
    });
    json!({ "start": module.text().as_ptr() as usize, "functions": functions.collect::<Vec<_>>() })
}

/// `ROUNDS ROTATION ENTRY KIND=FILE... -- ARGUMENT...`: runs the programs in turn.
fn run(arguments: &[String]) -> Result<Value> {
    let (words, args, numbers) = split(arguments)?;
    let [rounds, rotation, entry, programs @ ..] = words else { bail!("too few words") };
    let (rounds, rotation): (usize, usize) = (rounds.parse()?, rotation.parse()?);
    let engine = engine()?;
    let programs = programs.iter().map(|text| Program::compile(&engine, text)).collect::<Result<Vec<_>>>()?;
    let mut seconds = vec![Vec::new(); programs.len()];
    let mut written = None;
    for _ in 0..rounds {
        for index in 0..programs.len() {
            let at = (index + rotation) % programs.len();
            let mut guest = Guest::new(&engine, &programs[at], args, entry)?;
            let before = cpu::thread()?;
            for _ in 0..if numbers.is_empty() { 1 } else { CALLS } {
                ensure!(guest.run(&numbers, &mut Forks::default())?.is_some(), "out of stack");
            }
            seconds[at].push(cpu::thread()? - before);
            let expected = *written.get_or_insert(guest.written());
            ensure!(guest.written() == expected, "program {at} wrote {} bytes, not {expected}", guest.written());
        }
    }
    let code: Vec<Value> = programs.iter().map(|program| place_of_code(&program.module)).collect();
    Ok(json!({ "seconds": seconds, "code": code }))
}

/// `ENTRY KIND=FILE[,RESUME] -- ARGUMENT...`: forks in place at every call of the entry. What few forks take is chance: the
/// program runs again until it has forked often.
fn fork(arguments: &[String]) -> Result<Value> {
    let (words, args, numbers) = split(arguments)?;
    let [entry, program] = words else { bail!("an entry and a program") };
    let engine = engine()?;
    let program = Program::compile(&engine, program)?;
    let mut forks = Forks::default();
    let mut written = None;
    let start = || -> Result<Guest> {
        let mut guest = Guest::new(&engine, &program, args, entry)?;
        guest.prepare(&program, 1 << 20)?;
        Ok(guest)
    };
    let mut guest = start()?;
    let begun = Instant::now();
    while forks.unwinds.len() < ENOUGH_FORKS && begun.elapsed() < ENOUGH_TIME {
        // A function with arguments can be called again, a program cannot.
        if numbers.is_empty() && !forks.unwinds.is_empty() {
            guest = start()?;
        }
        ensure!(guest.run(&numbers, &mut forks)?.is_some(), "out of stack");
        let bytes = *written.get_or_insert(guest.written());
        ensure!(bytes == guest.written(), "another run wrote {} bytes, not {bytes}", guest.written());
    }
    let code: Vec<Value> =
        [Some(&program.module), program.resume.as_ref()].into_iter().flatten().map(place_of_code).collect();
    Ok(json!({ "unwind": forks.unwinds, "rewind": forks.rewinds, "written": written, "code": code }))
}

/// `KIND=FILE[,RESUME] recurse|rewind`: the deepest recursion that returns, or that can be unwound and rewound.
fn depth(arguments: &[String]) -> Result<Value> {
    let [text, mode] = arguments else { bail!("a program and a mode") };
    let engine = engine()?;
    let program = Program::compile(&engine, text)?;
    let attempt = |depth: u64| -> Result<bool> {
        let mut guest = Guest::new(&engine, &program, &[], "kernel.kernel_fork")?;
        if mode == "rewind" {
            guest.prepare(&program, depth * 256 + 65536)?;
        }
        // The second call of the import comes from the rewound stack.
        let number = i32::try_from(depth)?;
        let Some(result) = run_once_forked(&mut guest, number)? else { return Ok(false) };
        let mut plain = Guest::new(&engine, &program, &[], "kernel.kernel_fork")?;
        ensure!(plain.run(&[number], &mut Forks::default())? == Some(result), "depth {depth}: another result");
        Ok(true)
    };
    Ok(json!({ "depth": deepest(attempt)? }))
}

fn run_once_forked(guest: &mut Guest, depth: i32) -> Result<Option<i64>> {
    guest.run(&[depth], &mut Forks::default())
}

/// The greatest depth, to within a thousandth, for which `attempt` holds.
pub fn deepest(mut attempt: impl FnMut(u64) -> Result<bool>) -> Result<u64> {
    let (mut low, mut high) = (0, 1024);
    while attempt(high)? {
        (low, high) = (high, high * 2);
        ensure!(high < 1 << 28, "no end of the stack in sight");
    }
    while high - low > 1 + low / 2000 {
        let middle = low + (high - low) / 2;
        if attempt(middle)? { low = middle } else { high = middle }
    }
    Ok(low)
}
