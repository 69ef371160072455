//! What the bytes that the pass adds are for, by counting the constructs that it writes.

use std::collections::{BTreeMap, BTreeSet};

use wasmparser::{FunctionBody, KnownCustom, Name, Operator, Parser, Payload, TypeRef};
use wasmtime::Result;

use crate::columns::{Column, Variant};
use crate::modules::{Module, SQLITE};
use crate::results::Results;
use crate::wasm;

/// Bytes by cause.
type Causes = BTreeMap<String, f64>;

/// The names of a module that matter here.
struct Names {
    functions: BTreeMap<u32, String>,
    /// The global that holds the state.
    state: Option<u32>,
    /// The globals that pop helpers leave values in.
    popped: BTreeSet<u32>,
    /// What frames in line are stored at, and with, and loaded from.
    in_line: BTreeSet<u32>,
    imported: u32,
}

/// Analyses the separate column of the largest module. `path` names the functions on the fork path.
pub fn measure(module: &Module, variants: &[Variant], path: &BTreeSet<String>, results: &mut Results) -> Result<()> {
    if module.name != SQLITE {
        return Ok(());
    }
    let find = |column| variants.iter().find(|variant| variant.column == column).expect("all columns are built");
    let (plain, separate) = (find(Column::Plain), find(Column::Separate));
    let plain = std::fs::read(&plain.named)?;
    let (_, resume) = separate.resume.as_ref().expect("it has two files");
    let parts = results.causes.entry(module.name.to_owned()).or_default();
    let (instrumented, resume) = (std::fs::read(&separate.named)?, std::fs::read(resume)?);
    parts.insert("first".to_owned(), first(&plain, &instrumented)?);
    parts.insert("resume".to_owned(), second(&resume)?);
    let on_path = |name: &str| path.contains(name);
    parts.insert("classes.plain".to_owned(), classes(&plain, on_path)?);
    parts.insert("classes.first".to_owned(), classes(&instrumented, on_path)?);
    parts.insert("classes.resume".to_owned(), classes(&resume, |name| name.ends_with(".resume"))?);
    Ok(())
}

/// What the first module has more than the uninstrumented one.
fn first(plain: &[u8], instrumented: &[u8]) -> Result<Causes> {
    let names = names(instrumented)?;
    let before: BTreeMap<String, usize> = wasm::functions(plain)?.into_iter().map(|f| (f.name, f.size)).collect();
    let mut causes = Causes::new();
    let mut add = |cause: &str, bytes: f64| *causes.entry(cause.to_owned()).or_default() += bytes;
    let mut bodies = 0.0;
    for (name, size, body) in bodies_of(instrumented, &names)? {
        bodies += size as f64;
        match before.get(&name) {
            Some(&old) => {
                let constructs = constructs(&body, &names)?;
                let mut rest = size as f64 - old as f64;
                for (construct, bytes) in constructs {
                    rest -= bytes;
                    add(construct, bytes);
                }
                add("other changes in functions: blocks for the epilogue, kept operands", rest);
            }
            None if name.starts_with("fork.root.") => add("root wrappers", size as f64),
            None => add("helpers", size as f64),
        }
    }
    add("code section, its header", -bodies);
    for (section, bytes) in sections_more(plain, instrumented) {
        match section.as_str() {
            "code" => {
                let old: usize = before.values().sum();
                add("code section, its header", bytes + old as f64);
            }
            "name" => {}
            section => add(&format!("section: {section}"), bytes),
        }
    }
    Ok(causes)
}

/// What the resume module consists of.
fn second(resume: &[u8]) -> Result<Causes> {
    let names = names(resume)?;
    let mut causes = Causes::new();
    let mut add = |cause: &str, bytes: f64| *causes.entry(cause.to_owned()).or_default() += bytes;
    for (name, size, body) in bodies_of(resume, &names)? {
        if !name.ends_with(".resume") {
            let cause = match name.strip_prefix("fork.").unwrap_or("") {
                name if name.starts_with("masks.") => "masks by site",
                name if name.starts_with("outlined.") => "code that occurs again, in functions of its own",
                _ => "helpers",
            };
            add(cause, size as f64);
            continue;
        }
        let mut rest = size as f64;
        for (construct, bytes) in constructs(&body, &names)? {
            rest -= bytes;
            add(construct, bytes);
        }
        add("the program's own code again, and blocks around it", rest);
    }
    for (section, bytes) in sections_more(&resume[..8], resume) {
        if section != "code" && section != "name" {
            add(&format!("section: {section}"), bytes);
        }
    }
    Ok(causes)
}

/// Sizes of sections, less those of another module.
fn sections_more(before: &[u8], after: &[u8]) -> BTreeMap<String, f64> {
    let mut more: BTreeMap<String, f64> = BTreeMap::new();
    for (name, size) in wasm::sections(after) {
        *more.entry(name).or_default() += size as f64;
    }
    for (name, size) in wasm::sections(before) {
        *more.entry(name).or_default() -= size as f64;
    }
    more
}

fn names(bytes: &[u8]) -> Result<Names> {
    let (functions, imported) = wasm::function_names(bytes)?;
    let (mut state, mut popped, mut in_line) = (None, BTreeSet::new(), BTreeSet::new());
    for payload in Parser::new(0).parse_all(bytes) {
        let Payload::CustomSection(section) = payload? else { continue };
        let KnownCustom::Name(section) = section.as_known() else { continue };
        for subsection in section {
            let Name::Global(map) = subsection? else { continue };
            for naming in map {
                let naming = naming?;
                match naming.name {
                    "fork.state" => state = Some(naming.index),
                    "fork.popped_mask" => {}
                    "fork.position" | "fork.left_site" => drop(in_line.insert(naming.index)),
                    name if name.starts_with("fork.popped_") => drop(popped.insert(naming.index)),
                    _ => {}
                }
            }
        }
    }
    Ok(Names { functions, state: state.or(state_by_export(bytes)?), popped, in_line, imported })
}

/// Names of globals may be missing: the state is what the function behind `wpk_fork_state` reads.
fn state_by_export(bytes: &[u8]) -> Result<Option<u32>> {
    let (mut index, mut wanted) = (0, None);
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    index += u32::from(matches!(import?.ty, TypeRef::Func(_)));
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export?;
                    if export.name == "wpk_fork_state" {
                        wanted = Some(export.index);
                    }
                }
            }
            Payload::CodeSectionEntry(body) => {
                if wanted == Some(index)
                    && let Operator::GlobalGet { global_index } = body.get_operators_reader()?.read()?
                {
                    return Ok(Some(global_index));
                }
                index += 1;
            }
            _ => {}
        }
    }
    Ok(None)
}

fn bodies_of<'a>(bytes: &'a [u8], names: &Names) -> Result<Vec<(String, usize, FunctionBody<'a>)>> {
    let mut bodies = Vec::new();
    let mut index = names.imported;
    for payload in Parser::new(0).parse_all(bytes) {
        let Payload::CodeSectionEntry(body) = payload? else { continue };
        let length = body.range().len();
        let name = names.functions.get(&index).cloned().unwrap_or_else(|| index.to_string());
        bodies.push((name, length + wasm::leb_size(length), body));
        index += 1;
    }
    Ok(bodies)
}

const TESTS: &str = "tests of the state after landings";
const CHOICES: &str = "choices between a callee and its resume function, chunks skipped";
const DISPATCH: &str = "dispatch to the site";
const EPILOGUES: &str = "epilogues: locals pushed";
const POPS: &str = "locals popped";

/// An operator and where it is.
struct Op<'a> {
    operator: Operator<'a>,
    start: usize,
    end: usize,
}

/// Bytes of a function by the construct that they belong to; what belongs to none is not in it.
fn constructs(body: &FunctionBody<'_>, names: &Names) -> Result<BTreeMap<&'static str, f64>> {
    let mut ops: Vec<Op<'_>> = Vec::new();
    for item in body.get_operators_reader()?.into_iter_with_offsets() {
        let (operator, start) = item?;
        if let Some(last) = ops.last_mut() {
            last.end = start;
        }
        ops.push(Op { operator, start, end: body.range().end });
    }
    let mut taken: BTreeMap<usize, &'static str> = BTreeMap::new();
    let mut sites = BTreeSet::new();
    // Locals with an address in the buffer, and whether the function has come to storing its frame.
    let (mut places, mut is_storing) = (BTreeSet::new(), false);
    let is_place = |operator: &Operator<'_>, places: &BTreeSet<u32>| match operator {
        Operator::GlobalGet { global_index } => names.in_line.contains(global_index),
        Operator::LocalGet { local_index } => places.contains(local_index),
        _ => false,
    };
    let is_set = |operator: &Operator<'_>| match operator {
        Operator::GlobalSet { global_index } => names.in_line.contains(global_index),
        _ => false,
    };
    // For every open block, whether it is an `if` on the state.
    let mut open = Vec::new();
    for at in 0..ops.len() {
        match &ops[at].operator {
            Operator::GlobalGet { global_index } if Some(*global_index) == names.state => {
                let mut next = at + 1;
                let mut is_factor = false;
                loop {
                    match &ops[next].operator {
                        Operator::I32Eqz
                        | Operator::I32Eq
                        | Operator::I32Const { .. }
                        | Operator::I32GeU
                        | Operator::I32And => {}
                        Operator::I32Mul => is_factor = true,
                        Operator::LocalGet { local_index } if sites.contains(local_index) => {}
                        _ => break,
                    }
                    next += 1;
                }
                let cause = match ops[next].operator {
                    Operator::BrIf { .. } if is_factor => DISPATCH,
                    Operator::If { .. } => CHOICES,
                    Operator::BrIf { .. } if at > 0 && matches!(ops[at - 1].operator, Operator::I32Const { .. }) => {
                        take(&mut taken, at - 1, TESTS);
                        TESTS
                    }
                    _ => TESTS,
                };
                (at..=next).for_each(|at| take(&mut taken, at, cause));
                if matches!(ops.get(next + 1), Some(Op { operator: Operator::Drop, .. })) {
                    take(&mut taken, next + 1, cause);
                }
            }
            Operator::GlobalGet { global_index } if names.popped.contains(global_index) => {
                (at..=at + 1).for_each(|at| take(&mut taken, at, POPS));
            }
            // A value or the site that is loaded, and what chooses by it.
            operator if is_place(operator, &places) && ops.get(at + 1).is_some_and(|next| is_load(&next.operator)) => {
                (at..=at + 2).for_each(|at| take(&mut taken, at, POPS));
                if matches!(ops[at + 3].operator, Operator::BrTable { .. }) {
                    take(&mut taken, at + 3, POPS);
                }
                if let Operator::LocalSet { local_index } | Operator::LocalTee { local_index } = ops[at + 2].operator
                    && matches!(ops[at + 1].operator, Operator::I32Load8U { .. })
                {
                    sites.insert(local_index);
                }
            }
            // A value, the site or the header, the place that moves, or whether it is beyond the limit.
            operator if is_place(operator, &places) || is_set(operator) => {
                let end = (at..ops.len().min(at + 6)).find(|&next| ends_access(&ops[next].operator)).unwrap_or(at);
                let is_back =
                    end > at && matches!(ops.get(at + 1), Some(Op { operator: Operator::I32Const { value: ..0 }, .. }));
                let is_moved = matches!(ops[end].operator, Operator::LocalSet { .. } | Operator::GlobalSet { .. });
                is_storing |= is_store(&ops[end].operator);
                if let Operator::GlobalGet { .. } = operator {
                    places.extend(ops[at..=end].iter().filter_map(|op| match op.operator {
                        Operator::LocalSet { local_index } | Operator::LocalTee { local_index } => Some(local_index),
                        _ => None,
                    }));
                }
                // What moves back otherwise reads the header of the frame on top.
                if is_moved || !is_back {
                    let is_popped = is_back || is_moved && end > at && !is_storing && !places.is_empty();
                    let cause = if is_popped { POPS } else { EPILOGUES };
                    (at..=end).for_each(|at| take(&mut taken, at, cause));
                }
            }
            Operator::Call { function_index } => {
                let name = names.functions.get(function_index).map_or("", String::as_str);
                let base = name.strip_prefix("fork.").unwrap_or("");
                let popped_site = popped_site(&ops, at, names);
                if base.starts_with("pop") || popped_site.is_some() {
                    (popped_site.unwrap_or(at)..=at).for_each(|at| take(&mut taken, at, POPS));
                    match ops[at + 1].operator {
                        Operator::LocalSet { local_index } | Operator::LocalTee { local_index } => {
                            if base == "pop_header" || popped_site.is_some() {
                                sites.insert(local_index);
                            }
                            take(&mut taken, at + 1, POPS);
                        }
                        Operator::Drop => take(&mut taken, at + 1, POPS),
                        _ => {}
                    }
                } else if ["push", "finish", "abort", "select_mask", "unpack_mask"]
                    .iter()
                    .any(|kind| base.starts_with(kind))
                {
                    take(&mut taken, at, EPILOGUES);
                    let mut before = at;
                    while before > 0
                        && matches!(
                            ops[before - 1].operator,
                            Operator::LocalGet { .. } | Operator::I32Const { .. } | Operator::I64Const { .. }
                        )
                    {
                        before -= 1;
                        take(&mut taken, before, EPILOGUES);
                    }
                } else if name.ends_with(".resume") || base == "next_function" {
                    take(&mut taken, at, CHOICES);
                    if matches!(ops[at + 1].operator, Operator::CallIndirect { .. }) {
                        take(&mut taken, at + 1, CHOICES);
                    }
                }
            }
            Operator::LocalGet { local_index } if sites.contains(local_index) => {
                let end = (at + 1..ops.len().min(at + 5)).find(|&next| {
                    matches!(ops[next].operator, Operator::BrIf { .. } | Operator::BrTable { .. } | Operator::If { .. })
                });
                if let Some(end) = end {
                    (at..=end).for_each(|at| take(&mut taken, at, DISPATCH));
                }
            }
            _ => {}
        }
        match ops[at].operator {
            Operator::Block { .. } | Operator::Loop { .. } | Operator::Try { .. } | Operator::TryTable { .. } => {
                open.push(None);
            }
            Operator::If { .. } => open.push(taken.get(&at).copied()),
            Operator::Else => {
                if let Some(Some(cause)) = open.last() {
                    taken.entry(at).or_insert(cause);
                }
            }
            Operator::End => {
                if let Some(Some(cause)) = open.pop() {
                    taken.entry(at).or_insert(cause);
                }
            }
            _ => {}
        }
    }
    let mut causes = BTreeMap::new();
    for (at, cause) in taken {
        *causes.entry(cause).or_insert(0.0) += (ops[at].end - ops[at].start) as f64;
    }
    Ok(causes)
}

fn is_load(op: &Operator<'_>) -> bool {
    matches!(
        op,
        Operator::I32Load { .. }
            | Operator::I32Load8U { .. }
            | Operator::I64Load { .. }
            | Operator::F32Load { .. }
            | Operator::F64Load { .. }
            | Operator::V128Load { .. }
    )
}

/// Whether it is the last operator of what begins with an address in the buffer.
fn ends_access(op: &Operator<'_>) -> bool {
    let is_set = matches!(op, Operator::GlobalSet { .. } | Operator::LocalSet { .. });
    is_set || is_store(op) || matches!(op, Operator::If { .. } | Operator::Block { .. })
}

fn is_store(op: &Operator<'_>) -> bool {
    matches!(
        op,
        Operator::I32Store { .. }
            | Operator::I32Store8 { .. }
            | Operator::I32Store16 { .. }
            | Operator::I64Store { .. }
            | Operator::F32Store { .. }
            | Operator::F64Store { .. }
            | Operator::V128Store { .. }
    )
}

/// Where the site was popped that a call turns into the mask of its locals, and returns.
fn popped_site(ops: &[Op<'_>], at: usize, names: &Names) -> Option<usize> {
    let called = |at: usize| {
        let Operator::Call { function_index } = ops[at].operator else { return None };
        names.functions.get(&function_index).map(String::as_str)
    };
    let popped = match called(at)? {
        "fork.select_mask" => at.checked_sub(2)?,
        "fork.unpack_mask" => at.checked_sub(3)?,
        _ => return None,
    };
    (called(popped) == Some("fork.pop_header")).then_some(popped)
}

/// Bytes of operators by what they do, over the functions that `wanted` names.
fn classes(bytes: &[u8], wanted: impl Fn(&str) -> bool) -> Result<Causes> {
    let names = names(bytes)?;
    let mut classes = Causes::new();
    for (name, _, body) in bodies_of(bytes, &names)? {
        if !wanted(&name) {
            continue;
        }
        let mut last = None;
        for item in body.get_operators_reader()?.into_iter_with_offsets() {
            let (operator, start) = item?;
            if let Some((class, from)) = last.replace((class(&operator), start)) {
                *classes.entry(class.to_owned()).or_default() += (start - from) as f64;
            }
        }
        if let Some((class, from)) = last {
            *classes.entry(class.to_owned()).or_default() += (body.range().end - from) as f64;
        }
    }
    Ok(classes)
}

fn class(operator: &Operator<'_>) -> &'static str {
    match operator {
        Operator::LocalGet { .. } => "local.get",
        Operator::LocalSet { .. } | Operator::LocalTee { .. } => "local.set, local.tee",
        Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } | Operator::Else | Operator::End => {
            "block, loop, if, else, end"
        }
        Operator::Br { .. } | Operator::BrIf { .. } | Operator::BrTable { .. } | Operator::Return => "branches",
        Operator::Call { .. } | Operator::CallIndirect { .. } => "calls",
        Operator::I32Const { .. } | Operator::I64Const { .. } | Operator::F64Const { .. } => "constants",
        Operator::GlobalGet { .. } | Operator::GlobalSet { .. } => "globals",
        _ => "loads, stores, arithmetic, the rest",
    }
}

/// What belongs to a construct already stays there.
fn take(taken: &mut BTreeMap<usize, &'static str>, at: usize, cause: &'static str) {
    taken.entry(at).or_insert(cause);
}
