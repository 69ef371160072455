//! Counts the instructions that programs execute in wasmtime, by function, with valgrind's `callgrind`: `fork-bench
//! instructions ENTRY KIND=FILE... -- ARGUMENT...`; or those to unwind and to rewind (`fork-instructions`, `KIND=FILE[,RESUME]`).
//!
//! These counts are the same in each run, where times differ by more than most changes of the pass make. They leave out
//! what helpers of the host and wasmtime itself execute.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use wasmtime::error::Context;
use wasmtime::{Result, bail, ensure, format_err};

use crate::tools::output_of;

/// Functions that are listed.
const LISTED: usize = 20;

/// Executed instructions by the name of the function, or its index.
type Counts = BTreeMap<String, u64>;

/// Where the code of a function is: first address, the one behind the last, and the name.
type Place = (u64, u64, String);

pub fn main(arguments: &[String]) -> Result<()> {
    let (entry, programs, arguments) = words(arguments)?;
    let mut all = Vec::new();
    for program in programs {
        all.push(count(entry, program, arguments)?);
    }
    let Some((first, others)) = all.split_first() else { bail!("there is no program") };
    let total = |counts: &Counts| counts.values().sum::<u64>();
    println!("{:>14} instructions  {}", total(first), programs[0]);
    for (counts, program) in others.iter().zip(&programs[1..]) {
        println!("{:>14} instructions  {program} ({:.4})", total(counts), total(counts) as f64 / total(first) as f64);
        let mut more: Vec<(i64, &str)> = Vec::new();
        for (name, &own) in counts {
            more.push((own as i64 - first.get(name).copied().unwrap_or(0) as i64, name));
        }
        more.sort_unstable_by(|a, b| b.cmp(a));
        for (difference, name) in more.iter().take(LISTED) {
            println!("{difference:>+14}   {name}");
        }
    }
    Ok(())
}

/// `fork-bench fork-instructions`, with the same words: what a fork at each call of the entry takes, on average.
pub fn of_forks(arguments: &[String]) -> Result<()> {
    let (entry, programs, arguments) = words(arguments)?;
    for program in programs {
        let [unwind, rewind] = count_forks(entry, program, arguments)?;
        println!("{unwind:>8.1} instructions to unwind, {rewind:>8.1} to rewind  {program}");
    }
    Ok(())
}

/// The entry, the programs and the arguments.
fn words(arguments: &[String]) -> Result<(&str, &[String], &[String])> {
    let at = arguments.iter().position(|word| word == "--").context("no -- before the arguments")?;
    let [entry, programs @ ..] = &arguments[..at] else { bail!("the entry is missing") };
    Ok((entry, programs, &arguments[at + 1..]))
}

/// A command that runs a worker under valgrind, which writes to `out` and ends a count at marks.
fn counted(out: &Path, marks: &[&str], worker: &[&str], arguments: &[String]) -> Result<Command> {
    let mut command = Command::new("valgrind");
    command.arg("--tool=callgrind").arg("--dump-instr=yes").arg(format!("--callgrind-out-file={}", out.display()));
    command.args(marks.iter().map(|mark| format!("--dump-before=*guest::mark::{mark}*")));
    command.arg(std::env::current_exe()?).arg("worker").args(worker).arg("--").args(arguments);
    Ok(command)
}

/// Runs one program once under valgrind.
fn count(entry: &str, program: &str, arguments: &[String]) -> Result<Counts> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("callgrind");
    let value = output_of(counted(&out, &[], &["run", "1", "0", entry, program], arguments)?)
        .context("valgrind is needed to count instructions")?;
    let places = places(&value["code"][0])?;
    Ok(attribute(&fs::read_to_string(&out)?, &places))
}

/// Unwinding and rewinding once, on average.
fn count_forks(entry: &str, program: &str, arguments: &[String]) -> Result<[f64; 2]> {
    const MARKS: [&str; 4] = ["forked", "unwound", "resumed", "rewound"];
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("callgrind");
    let value = output_of(counted(&out, &MARKS, &["fork", entry, program], arguments)?)
        .context("valgrind is needed to count instructions")?;
    let forks = value["unwind"].as_array().map_or(0, Vec::len);
    let mut code: Vec<Place> = Vec::new();
    for module in value["code"].as_array().into_iter().flatten() {
        code.extend(places(module)?);
    }
    code.sort_unstable();
    let mut totals = [0, 0];
    for entry in fs::read_dir(folder.path())? {
        let file = fs::read_to_string(entry?.path())?;
        // Each file is about what came before the mark.
        let trigger = file.lines().find(|line| line.starts_with("desc: Trigger:")).unwrap_or_default();
        let step = ["mark::unwound", "mark::rewound"].iter().position(|mark| trigger.contains(mark));
        if let Some(step) = step {
            totals[step] += attribute(&file, &code).values().sum::<u64>();
        }
    }
    ensure!(forks > 0 && totals.iter().all(|&total| total > 0), "{program}: no forks were counted");
    Ok(totals.map(|total| total as f64 / forks as f64))
}

/// The functions of a program, ascending by address.
fn places(code: &Value) -> Result<Vec<Place>> {
    let start = code["start"].as_u64().context("the worker does not tell where the code is")?;
    let mut places = Vec::new();
    for function in code["functions"].as_array().into_iter().flatten() {
        let number = |key| function[key].as_u64().ok_or_else(|| format_err!("{function} has no {key}"));
        let (offset, length) = (number("offset")?, number("length")?);
        let name = function["name"].as_str().map_or_else(|| function["index"].to_string(), str::to_owned);
        places.push((start + offset, start + offset + length, name));
    }
    places.sort_unstable();
    Ok(places)
}

/// Sums up what callgrind counted at the addresses of each function.
///
/// A line of its file has an address, a line number and the count. Addresses are relative to the last (`+3`, `-8`, `*`)
/// or absolute (`0x…`). The line after one with `calls=` counts what was called, and is no instruction's own.
fn attribute(file: &str, places: &[Place]) -> Counts {
    let mut counts = Counts::new();
    let mut address = 0u64;
    let mut is_of_call = false;
    for line in file.lines() {
        if line.starts_with("calls=") {
            is_of_call = true;
            continue;
        }
        let mut words = line.split(' ');
        let Some(next) = words.next().and_then(|word| moved(address, word)) else { continue };
        address = next;
        let own = words.nth(1).and_then(|word| word.parse::<u64>().ok());
        if !std::mem::take(&mut is_of_call)
            && let Some(own) = own
            && let Some((_, end, name)) = places[..places.partition_point(|place| place.0 <= address)].last()
            && address < *end
        {
            *counts.entry(name.clone()).or_default() += own;
        }
    }
    counts
}

/// The address that a line's first word means; `None` if the line is another kind of line.
fn moved(address: u64, word: &str) -> Option<u64> {
    if word == "*" {
        return Some(address);
    }
    let (sign, rest) = word.split_at_checked(1)?;
    match sign {
        "+" => Some(address.wrapping_add(rest.parse().ok()?)),
        "-" => Some(address.wrapping_sub(rest.parse().ok()?)),
        "0" => u64::from_str_radix(rest.strip_prefix('x')?, 16).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_go_to_the_function_at_the_address_and_calls_do_not_count_twice() {
        let file = "positions: instr line\nevents: Ir\nfn=(1)\n0x1000 0 5\n+4 0 7\ncalls=1 0x2000 0\n* 0 1000\n\
                    fn=(2)\n0x2000 0 11\n-1 0 13\n+3000 0 17\n";
        let places = vec![(0x1000, 0x1010, "f".to_owned()), (0x1fff, 0x2001, "g".to_owned())];
        assert_eq!(attribute(file, &places), Counts::from([("f".into(), 12), ("g".into(), 24)]));
    }
}
