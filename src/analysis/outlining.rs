//! Decides which code of resume functions becomes functions of its own.
//!
//! Compilers inline functions, and a program's code is full of copies of what they inlined. The program itself keeps them,
//! for they make it fast; a resume function runs once for each frame of a fork, and is to be small.
//!
//! ```text
//! (i32.store offset=8 (local.get $p) (i32.const 0))       (local.set $n (call $outlined (local.get $p) (local.get $n)))
//! (local.set $n (i32.add (local.get $n) (i32.const 1)))
//! (i32.store (local.get $p) (local.get $n))
//! ```
//!
//! A *fragment* is a statement, or an expression with a value, that is executed from its start to its end: there are no
//! branches and labels in it. A *stretch* is a fragment, or several neighbours in a block. Stretches of the same form, which
//! are equal but for their *leaves* (`local.get`s and constants) and the locals that they set, can be one function. It takes
//! leaves that are not the same in all stretches, and the locals that a stretch reads before it sets them. Of those that
//! a stretch sets, one may be read behind it.
//!
//! A call in a stretch can be suspended, without a frame for the new function. The code does the same as before it moved, and
//! what is behind such a call, up to the test of the state, which is a branch, can be done while the program unwinds.
//!
//! Stretches that occur again are found by their length: one of several fragments can only occur again if both of those that
//! are one fragment shorter do. What spares most is chosen first, for as long as something is spared.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::Mutex;

use crate::ir::{Code, CodeRow, Expr, Function, Kind, LiveAfter, LivenessPoint, Module, Name, Node, Pass, Type};

/// What places of code in functions become calls of a new one.
pub struct Outlined<'m> {
    /// Types of its locals: first those whose values it takes.
    pub locals: Vec<Type>,
    pub params: usize,
    /// Types of the parameters that stand for leaves, behind the others.
    pub leaf_params: Vec<Type>,
    /// For each leaf of its code, in order of execution, which of these stands for it, if one does.
    pub leaves: Vec<Option<u32>>,
    pub gives: Gives,
    /// The first is the one whose code it gets.
    pub places: Vec<Place<'m>>,
}

/// What a new function returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gives {
    Nothing,
    /// The value of its code, which is a single expression.
    Value(Type),
    /// One of its locals.
    Local(u32),
}

/// Code that becomes a call.
pub struct Place<'m> {
    pub function: Function<'m>,
    /// What the code is part of: a block, or else the expression of which it is this child, in order of execution.
    pub parent: Expr<'m>,
    pub child: u32,
    /// Neighbours, in order.
    pub code: Vec<Expr<'m>>,
    /// The locals of the place that the new function's locals stand for.
    pub locals: Vec<u32>,
    /// What it passes for leaves.
    pub leaves: Vec<Expr<'m>>,
    /// Whether the local that the new function gives is read afterwards.
    pub reads_result: bool,
}

/// What of the locals that a stretch sets is taken for read behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Results {
    /// What Binaryen's liveness says.
    Read,
    /// All, which takes less time.
    All,
}

/// Bytes of a call without its operands, of a `local.get` or `local.set`, of a `drop`, and of a function without its code.
const CALL: i64 = 3;
const LOCAL: i64 = 2;
const DROP: i64 = 1;
const FUNCTION: i64 = 7;

/// Bytes that a new function is to spare at least.
const LEAST: i64 = 4;

/// Bytes of a stretch in a hot loop that calls nothing.
const LEAST_IN_HOT_LOOPS: i64 = 32;

/// Parameters at most.
const PARAMS: usize = 12;

/// Fragments of a stretch at most.
const FRAGMENTS: u8 = 64;

/// Bytes of an expression that is worth looking at by itself.
const SMALLEST: u32 = 5;

/// Finds what is worth it in these functions, which have no code that cannot be reached by its types.
pub fn find<'m>(
    pass: Pass<'m>,
    module: Module<'m>,
    functions: &[Function<'m>],
    results: Results,
) -> Vec<Outlined<'m>> {
    let texts = map(pass, functions, |_, function| Text::of(module, function));
    let mut groups = find_repeated(&texts);
    match results {
        Results::Read => find_results(pass, module, functions, &texts, &mut groups),
        Results::All => groups.iter_mut().for_each(|group| {
            let all_set = |stretch: &Stretch| Locals::of(&texts[stretch.text as usize], stretch);
            // They all set as many.
            match all_set(&group[0]).map_or(0, |locals| locals.locals.len()) {
                0 => {}
                1 => group.iter_mut().for_each(|stretch| stretch.result = Some(0)),
                _ => group.clear(),
            }
        }),
    }
    let chosen = choose(&texts, groups);
    find_places(functions, &texts, &chosen)
}

/// Does work for each function, on all threads.
fn map<'m, T: Send>(
    pass: Pass<'m>,
    functions: &[Function<'m>],
    work: impl Fn(usize, Function<'m>) -> T + Sync,
) -> Vec<T> {
    let results: Vec<Mutex<Option<T>>> = functions.iter().map(|_| Mutex::new(None)).collect();
    pass.for_each_function(functions, &|i, function| {
        *results[i].lock().expect("no thread panicked") = Some(work(i, function));
    });
    let result = |slot: Mutex<Option<T>>| slot.into_inner().expect("no thread panicked").expect("all were looked at");
    results.into_iter().map(result).collect()
}

/// The fragments of a function.
struct Text {
    fragments: Vec<Fragment>,
    /// Neighbours in a block, or single expressions: ranges of fragments.
    runs: Vec<Range<u32>>,
    uses: Vec<Use>,
    rows: usize,
    /// Whether the function has exception handlers.
    has_handlers: bool,
}

/// There are many of them.
struct Fragment {
    /// Of its form.
    hash: u64,
    rows: Range<u32>,
    uses: Range<u32>,
    bytes: u32,
    /// Arms of `if`s around it.
    arms: u16,
    has_value: bool,
    calls: Calls,
    is_hot: bool,
}

/// A use of a local, or a constant, in order of execution.
#[derive(Clone, Copy)]
struct Use {
    kind: UseKind,
    /// The local, or the constant's bits.
    what: u64,
    row: u32,
    /// Arms of `if`s around it.
    arms: u16,
    bytes: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum UseKind {
    Get,
    Set,
    I32,
    I64,
    F32,
    F64,
}

impl UseKind {
    fn of(row: &CodeRow) -> Option<UseKind> {
        Some(match (row.kind(), row.type_()) {
            (Kind::LocalGet, _) => UseKind::Get,
            (Kind::LocalSet, _) => UseKind::Set,
            (Kind::Const, Type::I32) => UseKind::I32,
            (Kind::Const, Type::I64) => UseKind::I64,
            (Kind::Const, Type::F32) => UseKind::F32,
            (Kind::Const, Type::F64) => UseKind::F64,
            _ => return None,
        })
    }
}

impl Use {
    fn is_constant(&self) -> bool {
        !matches!(self.kind, UseKind::Get | UseKind::Set)
    }
}

impl Text {
    fn of<'m>(module: Module<'m>, function: Function<'m>) -> Text {
        let code = function.code();
        let arms = count_arms(&code.rows);
        let contents = Contents::of(module, &code, &function.local_types());
        let (depths, hot) = (depths(&code.rows), in_hot_loops(&code.rows, &contents.calls));
        let mut text = Text {
            fragments: Vec::new(),
            runs: Vec::new(),
            uses: Vec::new(),
            rows: code.rows.len(),
            has_handlers: contents.has_handlers,
        };
        // Uses in front of each row.
        let mut in_front = Vec::with_capacity(code.rows.len() + 1);
        for (i, (row, &arms)) in code.rows.iter().zip(&arms).enumerate() {
            in_front.push(text.uses.len() as u32);
            let use_ = |kind| Use { kind, what: row.value, arms, row: i as u32, bytes: bytes(row, 0) as u8 };
            text.uses.extend(UseKind::of(row).map(use_));
        }
        in_front.push(text.uses.len() as u32);
        let fragment = |i: usize| {
            let row = &code.rows[i];
            let fragment = Fragment {
                hash: contents.hashes[i]?,
                rows: row.first..i as u32 + 1,
                uses: in_front[row.first as usize]..in_front[i + 1],
                bytes: contents.bytes[i],
                arms: arms[i],
                has_value: row.type_().is_concrete(),
                calls: contents.calls[i],
                is_hot: hot[i],
            };
            let is_leaf = matches!(row.kind(), Kind::LocalGet | Kind::Const);
            let ends = row.type_() != Type::UNREACHABLE && contents.outermost[i] >= depths[i];
            (ends && (!fragment.has_value || fragment.bytes >= SMALLEST && !is_leaf)).then_some(fragment)
        };
        for (i, row) in code.rows.iter().enumerate() {
            let mut start = text.fragments.len() as u32;
            for child in children(&code.rows, i) {
                let found = fragment(child);
                let is_alone = |fragment: &Fragment| row.kind() != Kind::Block || fragment.has_value;
                if found.as_ref().is_none_or(is_alone) {
                    text.end_run(&mut start);
                }
                let ends_run = found.as_ref().is_some_and(is_alone);
                text.fragments.extend(found);
                if ends_run {
                    text.end_run(&mut start);
                }
            }
            text.end_run(&mut start);
        }
        text
    }

    /// Notes the fragments from `start` on as neighbours.
    fn end_run(&mut self, start: &mut u32) {
        let end = self.fragments.len() as u32;
        if end > *start {
            self.runs.push(*start..end);
        }
        *start = end;
    }

    fn fragments(&self, stretch: &Stretch) -> &[Fragment] {
        &self.fragments[stretch.first as usize..][..stretch.count as usize]
    }

    fn rows(&self, stretch: &Stretch) -> Range<usize> {
        let fragments = self.fragments(stretch);
        fragments[0].rows.start as usize..fragments[fragments.len() - 1].rows.end as usize
    }

    fn uses(&self, stretch: &Stretch) -> &[Use] {
        let fragments = self.fragments(stretch);
        &self.uses[fragments[0].uses.start as usize..fragments[fragments.len() - 1].uses.end as usize]
    }

    fn bytes(&self, stretch: &Stretch) -> i64 {
        self.fragments(stretch).iter().map(|f| i64::from(f.bytes)).sum()
    }

    /// Whether a call would be a small part of what the stretch takes: it calls something anyway, it is large, or it is not
    /// executed again and again.
    fn may_be_called(&self, stretch: &Stretch) -> bool {
        let fragments = self.fragments(stretch);
        let calls = || fragments.iter().any(|fragment| fragment.calls == Calls::Always);
        !fragments[0].is_hot || self.bytes(stretch) >= LEAST_IN_HOT_LOOPS || calls()
    }

    /// Hashes that stretches of the same form have in common; none for a stretch that cannot be a function.
    fn keys(&self, stretch: &Stretch) -> Option<Keys> {
        let fragments = self.fragments(stretch);
        let locals = Locals::of(self, stretch)?;
        // What a handler reads must be set when a call throws.
        if self.has_handlers && !locals.locals.is_empty() && fragments.iter().any(|fragment| fragment.calls != Calls::Never) {
            return None;
        }
        let (mut form, mut locals_only, mut all) = (DefaultHasher::new(), DefaultHasher::new(), DefaultHasher::new());
        fragments.iter().for_each(|fragment| fragment.hash.hash(&mut form));
        let mut free: Vec<u64> = Vec::new();
        for use_ in self.uses(stretch) {
            let number = locals.number(use_);
            number.hash(&mut form);
            if number.is_some() {
                continue;
            }
            use_.is_constant().hash(&mut locals_only);
            if use_.is_constant() {
                use_.what.hash(&mut all);
                continue;
            }
            let number = free.iter().position(|&local| local == use_.what).unwrap_or_else(|| {
                free.push(use_.what);
                free.len() - 1
            });
            number.hash(&mut locals_only);
        }
        Some(Keys { form: form.finish(), locals: locals_only.finish(), all: all.finish() })
    }
}

/// Hashes by which stretches are grouped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Keys {
    form: u64,
    /// Which leaves are locals, and which of these are the same.
    locals: u64,
    /// Constants.
    all: u64,
}

/// Rows of the children of an expression, in order of execution.
fn children(rows: &[CodeRow], row: usize) -> Vec<usize> {
    let mut children = Vec::new();
    let mut end = row;
    while end > rows[row].first as usize {
        children.push(end - 1);
        end = rows[end - 1].first as usize;
    }
    children.reverse();
    children
}

/// Arms of `if`s, blocks with labels and loops around each row: what is in them need not be executed.
fn count_arms(rows: &[CodeRow]) -> Vec<u16> {
    let mut arms = vec![0u16; rows.len()];
    for (i, row) in rows.iter().enumerate().rev() {
        if let Some(parent) = row.parent_row() {
            let is_arm = match rows[parent].kind() {
                Kind::If => row.child > 0,
                Kind::Block | Kind::Loop => rows[parent].named().is_some(),
                _ => false,
            };
            arms[i] = arms[parent].saturating_add(u16::from(is_arm));
        }
    }
    arms
}

/// What there is in each expression, by row.
struct Contents {
    /// Of the form, if all of it could be in another function; branches that leave it, and go to a label in front of `Whole`,
    /// are compared as they are.
    hashes: Vec<Option<u64>>,
    /// How deep the outermost label is that it branches to, in expressions.
    outermost: Vec<u32>,
    calls: Vec<Calls>,
    bytes: Vec<u32>,
    /// Whether the function has exception handlers.
    has_handlers: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Calls {
    Never,
    Sometimes,
    Always,
}

impl Contents {
    fn of(module: Module<'_>, code: &Code, local_types: &[Type]) -> Contents {
        let rows = &code.rows;
        let mut contents = Contents {
            hashes: Vec::with_capacity(rows.len()),
            outermost: Vec::with_capacity(rows.len()),
            calls: Vec::with_capacity(rows.len()),
            bytes: Vec::with_capacity(rows.len()),
            has_handlers: rows.iter().any(|row| matches!(row.kind(), Kind::Try | Kind::TryTable)),
        };
        let depths = depths(rows);
        for (i, row) in rows.iter().enumerate() {
            let children = children(rows, i);
            let inner = children.iter().map(|&child| contents.bytes[child]);
            let bytes = inner.fold(bytes(row, children.len()), u32::saturating_add);
            let mut hasher = DefaultHasher::new();
            // A leaf can be another's place.
            let id = (!matches!(row.kind(), Kind::Const | Kind::LocalGet)).then_some(row.id);
            (id, row.type_id).hash(&mut hasher);
            let mut outermost = children.iter().map(|&child| contents.outermost[child]).min().unwrap_or(u32::MAX);
            let can_move = match row.kind() {
                Kind::LocalGet | Kind::If => true,
                Kind::LocalSet => local_types[row.value as usize].is_numeric(),
                Kind::Const => row.has_value,
                Kind::Block | Kind::Loop => {
                    row.named().is_some().hash(&mut hasher);
                    true
                }
                Kind::Break | Kind::Switch => {
                    (row.has_value, row.has_condition).hash(&mut hasher);
                    for label in row.named().into_iter().chain(code.labels(row)) {
                        let depth = label_depth(rows, &depths, i, label);
                        outermost = outermost.min(depth);
                        (depths[i] - depth).hash(&mut hasher);
                    }
                    true
                }
                _ => {
                    row.operation.hash(&mut hasher);
                    !row.is_return && row.operation != 0 && (is_call(row) || runs_to_its_end(module, row))
                }
            };
            let is_numeric = row.type_().is_numeric() || !row.type_().is_concrete();
            let hashes: Option<Vec<u64>> = children.iter().map(|&child| contents.hashes[child]).collect();
            let hash = hashes.filter(|_| can_move && is_numeric).map(|hashes| {
                hashes.hash(&mut hasher);
                hasher.finish()
            });
            let calls = contents.calls(row, &children);
            contents.hashes.push(hash);
            contents.outermost.push(outermost);
            contents.calls.push(calls);
            contents.bytes.push(bytes);
        }
        contents
    }

    fn calls(&self, row: &CodeRow, children: &[usize]) -> Calls {
        let of = |&child: &usize| self.calls[child];
        let most = children.iter().map(of).max().unwrap_or(Calls::Never);
        let always = match (row.kind(), children) {
            (Kind::If, [condition, arms @ ..]) => {
                of(condition) == Calls::Always || arms.len() == 2 && arms.iter().all(|arm| of(arm) == Calls::Always)
            }
            // What is behind a branch need not be executed.
            (Kind::Block | Kind::Loop, [first, ..]) => of(first) == Calls::Always,
            _ => is_call(row) || most == Calls::Always,
        };
        if always { Calls::Always } else { most.min(Calls::Sometimes) }
    }
}

fn is_call(row: &CodeRow) -> bool {
    matches!(row.kind(), Kind::Call | Kind::CallIndirect | Kind::CallRef)
}

/// The number of expressions around each row.
fn depths(rows: &[CodeRow]) -> Vec<u32> {
    let mut depths = vec![0; rows.len()];
    for (i, row) in rows.iter().enumerate().rev() {
        depths[i] = row.parent_row().map_or(0, |parent| depths[parent] + 1);
    }
    depths
}

/// How deep the block or loop is whose label a row names.
fn label_depth(rows: &[CodeRow], depths: &[u32], row: usize, label: Name) -> u32 {
    let mut around = rows[row].parent_row();
    while let Some(current) = around {
        if matches!(rows[current].kind(), Kind::Block | Kind::Loop) && rows[current].named() == Some(label) {
            return depths[current];
        }
        around = rows[current].parent_row();
    }
    // A label of a `try`, which is not the function's own.
    0
}

/// Whether each row is in a loop of which a turn need not call anything, and no neighbour in its block does so.
fn in_hot_loops(rows: &[CodeRow], calls: &[Calls]) -> Vec<bool> {
    let mut hot = vec![false; rows.len()];
    // Blocks of which a child always calls.
    let mut with_call = vec![false; rows.len()];
    for (i, row) in rows.iter().enumerate().rev() {
        let parent = row.parent_row();
        hot[i] = row.kind() == Kind::Loop && calls[i] != Calls::Always || parent.is_some_and(|p| hot[p]);
        if let Some(parent) = parent.filter(|&p| rows[p].kind() == Kind::Block) {
            with_call[parent] |= calls[i] == Calls::Always;
        }
    }
    let is_hot = |(i, row): (usize, &CodeRow)| hot[i] && !row.parent_row().is_some_and(|p| with_call[p]);
    rows.iter().enumerate().map(is_hot).collect()
}

/// Whether an expression that names no label, and whose children do so, is executed to its end, in any function.
fn runs_to_its_end(module: Module<'_>, row: &CodeRow) -> bool {
    match row.kind() {
        Kind::GlobalGet
        | Kind::GlobalSet
        | Kind::Load
        | Kind::Store
        | Kind::Drop
        | Kind::Unary
        | Kind::Binary
        | Kind::Select
        | Kind::Nop => true,
        Kind::Return | Kind::Pop => false,
        _ => !module.shallow_effects(row.expr()).leaves,
    }
}

/// About how many bytes an expression takes, without its children.
fn bytes(row: &CodeRow, children: usize) -> u32 {
    match row.kind() {
        Kind::Block | Kind::Loop if row.named().is_some() => 3,
        Kind::Block | Kind::Loop => 0,
        Kind::Break => 2,
        Kind::Call => CALL as u32,
        Kind::CallIndirect => 4,
        Kind::CallRef => 2,
        Kind::Switch => 3 + row.targets,
        Kind::If => 1 + children as u32,
        Kind::LocalGet | Kind::LocalSet | Kind::GlobalGet | Kind::GlobalSet => 2,
        Kind::Load | Kind::Store => 2 + leb128(row.value),
        Kind::Const => match row.type_() {
            Type::I32 => 1 + signed_leb128(i64::from(row.value as u32 as i32)),
            Type::I64 => 1 + signed_leb128(row.value as i64),
            type_ => 1 + type_.size(),
        },
        Kind::Other => 3,
        _ => 1,
    }
}

fn leb128(value: u64) -> u32 {
    (u64::BITS - value.leading_zeros()).div_ceil(7).max(1)
}

fn signed_leb128(value: i64) -> u32 {
    let bits = i64::BITS - (value ^ (value >> 63)).leading_zeros() + 1;
    bits.div_ceil(7)
}

/// The locals that a stretch sets, in the order in which it first uses them.
#[derive(Default)]
struct Locals {
    locals: Vec<u64>,
    /// Those whose value from before may be needed: read before they are set, or first set where it need not be.
    params: u64,
}

impl Locals {
    /// None if there are too many.
    fn of(text: &Text, stretch: &Stretch) -> Option<Locals> {
        let uses = text.uses(stretch);
        let mut set: Vec<u64> = uses.iter().filter(|u| u.kind == UseKind::Set).map(|u| u.what).collect();
        let mut locals = Locals::default();
        if set.is_empty() {
            return Some(locals);
        }
        set.sort_unstable();
        set.dedup();
        // Fragments of a stretch are in the same arms.
        let arms = text.fragments(stretch)[0].arms;
        for use_ in uses.iter().filter(|u| !u.is_constant() && set.binary_search(&u.what).is_ok()) {
            if locals.locals.contains(&use_.what) {
                continue;
            }
            let bit = 1u64.checked_shl(locals.locals.len() as u32)?;
            locals.locals.push(use_.what);
            if use_.kind == UseKind::Get || use_.arms > arms {
                locals.params |= bit;
            }
        }
        Some(locals)
    }

    /// Their numbers, those first whose value from before may be needed.
    fn in_order(&self) -> impl Iterator<Item = usize> {
        let is_param = |&number: &usize| self.params >> number & 1 == 1;
        let all = 0..self.locals.len();
        all.clone().filter(is_param).chain(all.filter(move |number| !is_param(number)))
    }

    /// The number of the local that is used; none for a constant, and for a local that the stretch does not set.
    fn number(&self, use_: &Use) -> Option<usize> {
        self.locals.iter().position(|&local| local == use_.what).filter(|_| !use_.is_constant())
    }
}

/// Neighbouring fragments of a function. There are very many of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Stretch {
    text: u32,
    first: u32,
    count: u8,
    /// The local, by its number, that it sets and that is read behind it, if one is.
    result: Option<u8>,
}

/// Stretches of the same form.
type Group = Vec<Stretch>;

/// Finds stretches that occur more than once, if something could be spared.
fn find_repeated(texts: &[Text]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    // By text and fragment, whether the stretch of the last length that starts there occurs again.
    let mut repeated: Vec<Vec<bool>> = texts.iter().map(|text| vec![true; text.fragments.len() + 1]).collect();
    for count in 1..=FRAGMENTS {
        let mut keyed: Vec<(Keys, Stretch)> = Vec::new();
        for (number, (text, repeated)) in texts.iter().zip(&repeated).enumerate() {
            for run in &text.runs {
                for first in run.start..(run.end + 1).saturating_sub(u32::from(count)) {
                    let both = repeated[first as usize] && (count == 1 || repeated[first as usize + 1]);
                    let stretch = Stretch { text: number as u32, first, count, result: None };
                    if let Some(keys) = both.then(|| text.keys(&stretch)).flatten() {
                        keyed.push((keys, stretch));
                    }
                }
            }
        }
        repeated.iter_mut().for_each(|repeated| repeated.fill(false));
        keyed.sort_unstable();
        let mut is_over = true;
        for group in keyed.chunk_by(|a, b| a.0.form == b.0.form).filter(|group| group.len() > 1) {
            is_over = false;
            for (_, stretch) in group {
                repeated[stretch.text as usize][stretch.first as usize] = true;
            }
            let mut add = |part: &[(Keys, Stretch)], whole: usize| {
                let may_be_called = |stretch: &Stretch| texts[stretch.text as usize].may_be_called(stretch);
                let part: Group = part.iter().map(|&(_, stretch)| stretch).filter(may_be_called).collect();
                if (2..whole).contains(&part.len()) && spared_at_most(texts, &part) >= LEAST {
                    groups.push(part);
                }
            };
            add(group, usize::MAX);
            // Leaves that are the same need not be taken, or not twice.
            for part in group.chunk_by(|a, b| a.0.locals == b.0.locals) {
                add(part, group.len());
                part.chunk_by(|a, b| a.0.all == b.0.all).for_each(|same| add(same, part.len()));
            }
        }
        if is_over {
            break;
        }
    }
    groups
}

/// Bytes that a function for a group spares if it has to take no leaves and to give nothing.
fn spared_at_most(texts: &[Text], group: &[Stretch]) -> i64 {
    let text = &texts[group[0].text as usize];
    let params = Locals::of(text, &group[0]).map_or(0, |locals| locals.params.count_ones());
    let each = |stretch: &Stretch| texts[stretch.text as usize].bytes(stretch) - CALL - LOCAL * i64::from(params);
    group.iter().map(each).sum::<i64>() - text.bytes(&group[0]) - FUNCTION
}

/// Finds what is read behind stretches, and takes those away that cannot be reached, or behind which several locals are read.
fn find_results<'m>(
    pass: Pass<'m>,
    module: Module<'m>,
    functions: &[Function<'m>],
    texts: &[Text],
    groups: &mut [Group],
) {
    // By text, places in groups.
    let mut by_text: Vec<Vec<(u32, u32)>> = texts.iter().map(|_| Vec::new()).collect();
    for (i, group) in groups.iter().enumerate() {
        for (j, stretch) in group.iter().enumerate() {
            by_text[stretch.text as usize].push((i as u32, j as u32));
        }
    }
    let stretch = |&(i, j): &(u32, u32)| groups[i as usize][j as usize];
    let results = map(pass, functions, |number, function| {
        results_of(module, function, &texts[number], by_text[number].iter().map(stretch))
    });
    let mut unusable: Vec<(u32, u32)> = Vec::new();
    for (here, results) in by_text.iter().zip(results) {
        for (&(i, j), result) in here.iter().zip(results) {
            match result {
                Some(result) => groups[i as usize][j as usize].result = result,
                None => unusable.push((i, j)),
            }
        }
    }
    unusable.sort_unstable_by_key(|&place| Reverse(place));
    for (i, j) in unusable {
        groups[i as usize].swap_remove(j as usize);
    }
}

/// For each stretch of a function, which of the locals that it sets is read behind it, if one is; none if control cannot get
/// there, or if several are.
fn results_of<'m>(
    module: Module<'m>,
    function: Function<'m>,
    text: &Text,
    stretches: impl Iterator<Item = Stretch> + Clone,
) -> Vec<Option<Option<u8>>> {
    let nodes = function.nodes();
    let mut all = points(text, &nodes, stretches.clone());
    if all.is_empty() {
        return stretches.map(|_| Some(None)).collect();
    }
    all.sort_unstable();
    let answers = function.live_after(module, &all);
    let now = function.nodes();
    if now.len() != nodes.len() || now.iter().zip(&nodes).any(|(now, before)| now.expression != before.expression) {
        // Code that cannot be reached has been replaced: the rows are others.
        return stretches.map(|_| None).collect();
    }
    let result = |stretch: Stretch| {
        let expression = nodes[text.rows(&stretch).end - 1].expression;
        let mut result = None;
        for (number, &local) in Locals::of(text, &stretch)?.locals.iter().enumerate() {
            let point = LivenessPoint { expression, local: local as u32 };
            match answers[all.binary_search(&point).expect("it was asked for")] {
                LiveAfter::Dead => {}
                LiveAfter::Live if result.is_none() => result = Some(number as u8),
                _ => return None,
            }
        }
        Some(result)
    };
    stretches.map(result).collect()
}

/// Locals that are set in stretches of a function, each behind the ends of all stretches that set it.
fn points(text: &Text, nodes: &[Node], stretches: impl Iterator<Item = Stretch>) -> Vec<LivenessPoint> {
    // By the last fragment, the longest: what others set that end there, it sets, too.
    let mut longest: Vec<Option<Stretch>> = vec![None; text.fragments.len()];
    for stretch in stretches {
        let last = &mut longest[stretch.first as usize + stretch.count as usize - 1];
        *last = last.filter(|longest| longest.count >= stretch.count).or(Some(stretch));
    }
    let mut points = Vec::new();
    for stretch in longest.into_iter().flatten() {
        let expression = nodes[text.rows(&stretch).end - 1].expression;
        let first = points.len();
        for use_ in text.uses(&stretch).iter().filter(|u| u.kind == UseKind::Set) {
            let point = LivenessPoint { expression, local: use_.what as u32 };
            if !points[first..].contains(&point) {
                points.push(point);
            }
        }
    }
    points
}

/// What a function for some of a group would be.
struct Candidate {
    stretches: Vec<Stretch>,
    /// The local that it gives, by its number in the stretch.
    result: Option<u8>,
    /// For each use of a stretch, the first one that is always the same, if it is a leaf that is taken.
    taken: Vec<Option<usize>>,
    spared: i64,
}

impl Candidate {
    /// The best for what is left of a group.
    fn of(texts: &[Text], group: &[Stretch], taken: &[Vec<bool>]) -> Option<Candidate> {
        let mut free: Vec<Stretch> = Vec::new();
        for stretch in group {
            let rows = texts[stretch.text as usize].rows(stretch);
            let overlaps = |other: &Stretch| {
                other.text == stretch.text && texts[other.text as usize].rows(other).end > rows.start
            };
            let is_taken = taken[stretch.text as usize][rows.clone()].iter().any(|&taken| taken);
            if !is_taken && !free.last().is_some_and(overlaps) {
                free.push(*stretch);
            }
        }
        let has_value = texts[free.first()?.text as usize].fragments(&free[0])[0].has_value;
        let mut results: Vec<Option<u8>> = free.iter().map(|s| s.result).filter(|_| !has_value).collect();
        results.push(None);
        results.sort_unstable();
        results.dedup();
        let with_result = |&result: &Option<u8>| {
            let is_possible = |stretch: &Stretch| stretch.result.is_none() || stretch.result == result;
            Candidate::with_result(texts, free.iter().copied().filter(is_possible).collect(), result)
        };
        let best = results.iter().filter_map(with_result);
        best.max_by_key(|candidate| (candidate.spared, Reverse(candidate.result)))
    }

    fn with_result(texts: &[Text], stretches: Vec<Stretch>, result: Option<u8>) -> Option<Candidate> {
        let first = stretches.first().filter(|_| stretches.len() > 1)?;
        let text = &texts[first.text as usize];
        let locals = Locals::of(text, first)?;
        let taken = compare_leaves(texts, &stretches, &locals);
        let passed = distinct(&taken);
        let params = locals.params.count_ones() as usize;
        if params + passed.len() > PARAMS {
            return None;
        }
        let mut spared = -text.bytes(first) - FUNCTION - result.map_or(0, |_| LOCAL);
        for stretch in &stretches {
            let text = &texts[stretch.text as usize];
            let uses = text.uses(stretch);
            let operands: i64 = passed.iter().map(|&number| i64::from(uses[number].bytes)).sum();
            let result = match result {
                None => 0,
                Some(_) if stretch.result.is_none() => DROP,
                Some(_) => LOCAL,
            };
            spared += text.bytes(stretch) - CALL - LOCAL * params as i64 - operands - result;
        }
        (spared >= LEAST).then_some(Candidate { stretches, result, taken, spared })
    }
}

fn distinct(taken: &[Option<usize>]) -> Vec<usize> {
    let mut distinct: Vec<usize> = taken.iter().flatten().copied().collect();
    distinct.sort_unstable();
    distinct.dedup();
    distinct
}

/// For each use of stretches of the same form, the first one that is the same in each of them, if it is a leaf, and not the
/// same constant in all.
fn compare_leaves(texts: &[Text], stretches: &[Stretch], locals: &Locals) -> Vec<Option<usize>> {
    let uses: Vec<&[Use]> = stretches.iter().map(|stretch| texts[stretch.text as usize].uses(stretch)).collect();
    let leaf = |use_: &Use| (use_.kind, use_.what);
    let mut first_of: HashMap<u64, Vec<usize>> = HashMap::new();
    let mut first = |number: usize| {
        let mut hasher = DefaultHasher::new();
        uses.iter().for_each(|uses| leaf(&uses[number]).hash(&mut hasher));
        let others = first_of.entry(hasher.finish()).or_default();
        let same = others.iter().find(|&&other| uses.iter().all(|uses| leaf(&uses[other]) == leaf(&uses[number])));
        let same = same.copied();
        if same.is_none() {
            others.push(number);
        }
        same.unwrap_or(number)
    };
    let is_constant = |number: usize| {
        uses[0][number].is_constant() && uses.iter().all(|u| leaf(&u[number]) == leaf(&uses[0][number]))
    };
    let is_free = |number: usize| uses[0][number].kind != UseKind::Set && locals.number(&uses[0][number]).is_none();
    (0..uses[0].len()).map(|number| (is_free(number) && !is_constant(number)).then(|| first(number))).collect()
}

/// Chooses functions that spare most, one after the other.
fn choose(texts: &[Text], mut groups: Vec<Group>) -> Vec<Candidate> {
    groups.iter_mut().for_each(|group| group.sort_unstable());
    groups.retain(|group| group.len() > 1);
    // Keys are not the same in each run of the tool.
    groups.sort_unstable();
    let mut taken: Vec<Vec<bool>> = texts.iter().map(|text| vec![false; text.rows]).collect();
    let mut open: BinaryHeap<(i64, Reverse<usize>)> = BinaryHeap::new();
    for (number, group) in groups.iter().enumerate() {
        open.extend(Candidate::of(texts, group, &taken).map(|candidate| (candidate.spared, Reverse(number))));
    }
    let mut chosen = Vec::new();
    while let Some((spared, Reverse(number))) = open.pop() {
        let Some(candidate) = Candidate::of(texts, &groups[number], &taken) else { continue };
        if candidate.spared < spared {
            open.push((candidate.spared, Reverse(number)));
            continue;
        }
        for stretch in &candidate.stretches {
            let text = &texts[stretch.text as usize];
            taken[stretch.text as usize][text.rows(stretch)].fill(true);
        }
        chosen.push(candidate);
    }
    chosen
}

/// Turns rows into expressions.
fn find_places<'m>(functions: &[Function<'m>], texts: &[Text], chosen: &[Candidate]) -> Vec<Outlined<'m>> {
    let mut by_text: Vec<Vec<(usize, &Stretch)>> = texts.iter().map(|_| Vec::new()).collect();
    for (number, candidate) in chosen.iter().enumerate() {
        candidate.stretches.iter().for_each(|stretch| by_text[stretch.text as usize].push((number, stretch)));
    }
    // In order of the functions, as a group's stretches are.
    let mut places: Vec<Vec<Place<'m>>> = chosen.iter().map(|_| Vec::new()).collect();
    for ((&function, text), stretches) in functions.iter().zip(texts).zip(by_text) {
        let nodes = if stretches.is_empty() { Vec::new() } else { function.nodes() };
        for (number, stretch) in stretches {
            let row = |fragment: &Fragment| &nodes[fragment.rows.end as usize - 1];
            let (fragments, uses) = (text.fragments(stretch), text.uses(stretch));
            let first = row(&fragments[0]);
            let locals = Locals::of(text, stretch).expect("it has keys");
            places[number].push(Place {
                function,
                parent: nodes[first.parent as usize].expr(),
                child: first.child,
                code: fragments.iter().map(|fragment| row(fragment).expr()).collect(),
                locals: locals.in_order().map(|number| locals.locals[number] as u32).collect(),
                leaves: distinct(&chosen[number].taken).iter().map(|&i| nodes[uses[i].row as usize].expr()).collect(),
                reads_result: stretch.result.is_some(),
            });
        }
    }
    let outlined = chosen.iter().zip(places).map(|(candidate, places)| outline(texts, candidate, places));
    outlined.collect()
}

fn outline<'m>(texts: &[Text], candidate: &Candidate, mut places: Vec<Place<'m>>) -> Outlined<'m> {
    let form = |stretch: &Stretch| -> Vec<(bool, Option<usize>)> {
        let text = &texts[stretch.text as usize];
        let locals = Locals::of(text, stretch).expect("it has keys");
        text.uses(stretch).iter().map(|use_| (use_.kind == UseKind::Set, locals.number(use_))).collect()
    };
    // Hashes can be equal by chance.
    let first = &candidate.stretches[0];
    let (first_form, code) = (form(first), places[0].code.clone());
    let mut stretches = candidate.stretches.iter();
    places.retain(|place| {
        let stretch = stretches.next().expect("there is a place for each");
        form(stretch) == first_form && code.iter().zip(&place.code).all(|(a, b)| a.same_in_form(*b))
    });
    let text = &texts[first.text as usize];
    let locals = Locals::of(text, first).expect("it has keys");
    let place = &places[0];
    let types = place.function.local_types();
    let value = place.code[0].type_();
    let position = |result: u8| locals.in_order().position(|number| number == result as usize);
    let gives = match candidate.result {
        Some(result) => Gives::Local(position(result).expect("it is one of the locals") as u32),
        None if value.is_concrete() => Gives::Value(value),
        None => Gives::Nothing,
    };
    let passed = distinct(&candidate.taken);
    let param_of = |number: usize| passed.binary_search(&number).expect("it is taken") as u32;
    Outlined {
        locals: place.locals.iter().map(|&local| types[local as usize]).collect(),
        params: locals.params.count_ones() as usize,
        leaf_params: place.leaves.iter().map(|leaf| leaf.type_()).collect(),
        leaves: candidate.taken.iter().map(|number| number.map(param_of)).collect(),
        gives,
        places,
    }
}
