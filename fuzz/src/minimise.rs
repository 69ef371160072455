//! Makes findings smaller.

use std::convert::Infallible;
use std::ops::Range;
use std::path::Path;

use anyhow::{Result, anyhow, bail};
use wasm_encoder::reencode::{self, Reencode};
use wasm_encoder::{CodeSection, Function, Instruction, Module};

use crate::campaign::kind_of_finding;
use crate::check::{Case, Verdict};
use crate::generate::{Limits, Source, generate};
use crate::tool::Tool;
use crate::{case_with, finding};

/// Makes a finding smaller: by its choices if it was generated, and then by what wasm-shrink does to modules.
pub fn minimise(folder: &Path, tool: &Tool, attempts: u32) -> Result<()> {
    let (mut case, mut choices) = finding::load(folder)?;
    let Some(mut problem) = finds(&case, tool, "") else { bail!("nothing is wrong with it (any more)") };
    let kind = kind_of_finding(&problem);
    simplify_pipeline(&mut case, tool, &mut problem, &kind);
    let before = case.wasm.len();
    if !choices.is_empty() {
        shrink_choices(&mut case, &mut choices, tool, &mut problem, &kind);
    }
    println!("{before} bytes, by choices {}", case.wasm.len());
    stub_functions(&mut case, tool, &mut problem, &kind)?;
    println!("{} bytes with functions left out", case.wasm.len());
    let shrink = wasm_shrink::WasmShrink::default().attempts(attempts).seed(1);
    let info = shrink.run(case.wasm.clone(), |wasm| {
        let smaller = Case { wasm: wasm.to_vec(), ..case.clone() };
        Ok(Interesting(finds(&smaller, tool, &kind).is_some()))
    });
    match info {
        Ok(info) => case.wasm = info.output,
        Err(error) => println!("wasm-shrink: {error:#}"),
    }
    problem = finds(&case, tool, &kind).unwrap_or(problem);
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned() + "-small";
    let parent = folder.parent().unwrap_or(Path::new("."));
    let saved = finding::save(parent, &name, &case, &choices, &problem)?;
    println!("{} bytes: {}\n{}\n  in {}", case.wasm.len(), case.command(), problem, saved.display());
    Ok(())
}

struct Interesting(bool);

impl std::fmt::Display for Interesting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl wasm_shrink::IsInteresting for Interesting {
    fn is_interesting(&self) -> bool {
        self.0
    }
}

/// The finding of a case, if it has one of this kind.
fn finds(case: &Case, tool: &Tool, kind: &str) -> Option<String> {
    match case.check(tool) {
        Ok(Verdict::Finding(problem)) if kind.is_empty() || similar(&kind_of_finding(&problem), kind) => Some(problem),
        _ => None,
    }
}

/// Whether two findings are about the same: they begin alike, or are both about how a run goes.
fn similar(a: &str, b: &str) -> bool {
    let head = |text: &str| text.chars().take(20).collect::<String>();
    let runs =
        |text: &str| ["event", "ended with", "global", "memory at", "child:"].iter().any(|word| text.starts_with(word));
    head(a) == head(b) || runs(a) && runs(b) && !a.contains("error of the host") && !b.contains("error of the host")
}

/// Leaves out passes and options that do not matter.
fn simplify_pipeline(case: &mut Case, tool: &Tool, problem: &mut String, kind: &str) {
    let mut at = 0;
    while at < case.passes.len() {
        if case.passes[at].contains("fork-instrument") {
            at += 1;
            continue;
        }
        let mut smaller = case.clone();
        smaller.passes.remove(at);
        match finds(&smaller, tool, kind) {
            Some(found) => (*case, *problem) = (smaller, found),
            None => at += 1,
        }
    }
    let replay = |option: &String| option.contains("replay");
    if let Some(at) = case.options.iter().position(replay) {
        let mut smaller = case.clone();
        smaller.options.remove(at);
        if let Some(found) = finds(&smaller, tool, kind) {
            (*case, *problem) = (smaller, found);
        }
    }
}

/// Makes functions trap at once where that does not matter, many at a time at first.
fn stub_functions(case: &mut Case, tool: &Tool, problem: &mut String, kind: &str) -> Result<()> {
    let mut count = 0;
    for payload in wasmparser::Parser::new(0).parse_all(&case.wasm) {
        count += usize::from(matches!(payload?, wasmparser::Payload::CodeSectionEntry(_)));
    }
    let mut stubbed = vec![false; count];
    let mut size = count;
    while size > 0 {
        for at in (0..count).step_by(size) {
            let range = at..(at + size).min(count);
            if stubbed[range.clone()].iter().all(|stubbed| *stubbed) {
                continue;
            }
            let mut stub = Stub { range: range.clone(), next: 0 };
            let mut module = Module::new();
            let parser = wasmparser::Parser::new(0);
            stub.parse_core_module(&mut module, parser, &case.wasm).map_err(|error| anyhow!("{error}"))?;
            let smaller = Case { wasm: module.finish(), ..case.clone() };
            if let Some(found) = finds(&smaller, tool, kind) {
                (*case, *problem) = (smaller, found);
                stubbed[range].fill(true);
            }
        }
        size /= 2;
    }
    Ok(())
}

struct Stub {
    range: Range<usize>,
    next: usize,
}

impl Reencode for Stub {
    type Error = Infallible;

    fn parse_function_body(
        &mut self,
        code: &mut CodeSection,
        body: wasmparser::FunctionBody<'_>,
    ) -> Result<(), reencode::Error<Infallible>> {
        self.next += 1;
        if !self.range.contains(&(self.next - 1)) {
            return reencode::utils::parse_function_body(self, code, body);
        }
        let mut function = Function::new([]);
        function.instruction(&Instruction::Unreachable).instruction(&Instruction::End);
        code.function(&function);
        Ok(())
    }
}

/// Leaves out runs of choices, then makes single ones simple.
fn shrink_choices(case: &mut Case, choices: &mut Vec<u32>, tool: &Tool, problem: &mut String, kind: &str) {
    let limits = Limits { exceptions: case.exceptions(), ..Limits::default() };
    let mut attempt = |smaller: Vec<u32>, case: &mut Case, choices: &mut Vec<u32>| -> bool {
        let program = generate(Source::from_choices(&smaller), limits);
        let less = (program.wasm.len(), program.choices.len()) < (case.wasm.len(), choices.len())
            || (program.wasm.len() <= case.wasm.len() && program.choices < *choices);
        if !less {
            return false;
        }
        let smaller = case_with(&program, case);
        let Some(found) = finds(&smaller, tool, kind) else { return false };
        (*case, *choices, *problem) = (smaller, program.choices, found);
        true
    };
    loop {
        let before = case.wasm.len();
        let mut size = choices.len() / 2;
        while size > 0 {
            let mut at = 0;
            while at < choices.len() {
                let end = (at + size).min(choices.len());
                let mut without = choices.clone();
                without.drain(at..end);
                let mut zeros = choices.clone();
                zeros[at..end].fill(0);
                if !attempt(without, case, choices) && !attempt(zeros, case, choices) {
                    at += size;
                }
            }
            size /= 2;
        }
        for at in 0..choices.len() {
            if at < choices.len() && choices[at] > 1 {
                let mut less = choices.clone();
                less[at] /= 2;
                attempt(less, case, choices);
            }
        }
        if case.wasm.len() >= before {
            return;
        }
    }
}
