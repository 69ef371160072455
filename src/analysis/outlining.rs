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
//! A *fragment* is a statement, or an expression with a value, that is executed from its start to its end: there are no calls,
//! branches or labels in it. A *stretch* is a fragment, or several neighbours in a block. Stretches that are equal but for
//! the locals that they use can be one function, whose parameters are the locals that a stretch reads before it sets them.
//! Of those that it sets, one may be read behind it.
//!
//! Stretches that occur again are found by their length: one of several fragments can only occur again if both of those that
//! are one fragment shorter do. What spares most is chosen first, for as long as something is spared.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::Mutex;

use crate::ir::{Code, CodeRow, Expr, Function, Kind, Module, Pass, Type};

/// What places of code in functions become calls of a new one.
pub struct Outlined<'m> {
    /// Types of its locals, those of its parameters first.
    pub locals: Vec<Type>,
    pub params: usize,
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
    /// Whether the local that the new function gives is read afterwards.
    pub reads_result: bool,
}

/// Bytes of a call without its operands, of a `local.get` or `local.set`, of a `drop`, and of a function without its code.
const CALL: i64 = 3;
const LOCAL: i64 = 2;
const DROP: i64 = 1;
const FUNCTION: i64 = 10;

/// Bytes that a new function is to spare at least.
const LEAST: i64 = 4;

/// Locals of a stretch at most: bits of a mask.
const LOCALS: usize = 64;

/// Parameters at most.
const PARAMS: usize = 12;

/// Fragments of a stretch at most.
const FRAGMENTS: u32 = 64;

/// Bytes of an expression that is worth looking at by itself.
const SMALLEST: u32 = 6;

/// Finds what is worth it in these functions, which have no code that cannot be reached by its types.
pub fn find<'m>(pass: Pass<'m>, module: Module<'m>, functions: &[Function<'m>]) -> Vec<Outlined<'m>> {
    let texts = map(pass, functions, |_, function| Text::of(module, function));
    let mut groups = find_repeated(&texts);
    find_results(pass, module, functions, &texts, &mut groups);
    choose(&texts, groups)
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
struct Text<'m> {
    function: Function<'m>,
    local_types: Vec<Type>,
    fragments: Vec<Fragment<'m>>,
    /// Neighbours in a block, or single expressions: ranges of fragments.
    runs: Vec<Range<u32>>,
    accesses: Vec<Access>,
    rows: usize,
}

struct Fragment<'m> {
    root: Expr<'m>,
    parent: Expr<'m>,
    child: u32,
    /// Of all but which locals it uses.
    hash: u64,
    bytes: u32,
    rows: Range<u32>,
    accesses: Range<u32>,
    /// Arms of `if`s around it.
    arms: u32,
    value: Type,
}

/// A use of a local, in order of execution.
#[derive(Clone, Copy)]
struct Access {
    local: u32,
    is_set: bool,
    /// Arms of `if`s around it.
    arms: u32,
}

impl<'m> Text<'m> {
    fn of(module: Module<'m>, function: Function<'m>) -> Text<'m> {
        let code = function.code();
        let local_types = function.local_types();
        let arms = count_arms(&code.rows);
        let whole = Whole::of(module, &code, &local_types);
        let mut text = Text {
            function,
            local_types,
            fragments: Vec::new(),
            runs: Vec::new(),
            accesses: Vec::new(),
            rows: code.rows.len(),
        };
        // The first access of each row or a later one.
        let mut first_access = Vec::with_capacity(code.rows.len() + 1);
        for (row, arms) in code.rows.iter().zip(&arms) {
            first_access.push(text.accesses.len() as u32);
            if let Kind::LocalGet | Kind::LocalSet = row.kind() {
                let is_set = row.kind() == Kind::LocalSet;
                text.accesses.push(Access { local: row.value as u32, is_set, arms: *arms });
            }
        }
        first_access.push(text.accesses.len() as u32);
        let fragment = |i: usize| {
            let row = &code.rows[i];
            let parent = row.parent_row()?;
            let hash = whole.hashes[i]?;
            Some(Fragment {
                root: row.expr(),
                parent: code.rows[parent].expr(),
                child: row.child,
                hash,
                bytes: whole.bytes[i],
                rows: row.first..i as u32 + 1,
                accesses: first_access[row.first as usize]..first_access[i + 1],
                arms: arms[i],
                value: row.type_(),
            })
        };
        for (i, row) in code.rows.iter().enumerate() {
            let is_block = row.kind() == Kind::Block;
            let mut start = text.fragments.len() as u32;
            for child in children(&code.rows, i) {
                let has_value = code.rows[child].type_().is_concrete();
                let is_alone = !is_block || has_value;
                let found = fragment(child).filter(|f| !has_value || f.bytes >= SMALLEST);
                let ends_run = is_alone || found.is_none();
                if ends_run && text.fragments.len() as u32 > start {
                    text.runs.push(start..text.fragments.len() as u32);
                }
                text.fragments.extend(found);
                if ends_run {
                    let end = text.fragments.len() as u32;
                    if is_alone && end > 0 && text.fragments[end as usize - 1].root == code.rows[child].expr() {
                        text.runs.push(end - 1..end);
                    }
                    start = end;
                }
            }
            if text.fragments.len() as u32 > start {
                text.runs.push(start..text.fragments.len() as u32);
            }
        }
        text
    }

    fn fragments(&self, stretch: &Stretch) -> &[Fragment<'m>] {
        &self.fragments[stretch.first as usize..(stretch.first + stretch.count) as usize]
    }

    fn rows(&self, stretch: &Stretch) -> Range<usize> {
        let fragments = self.fragments(stretch);
        fragments[0].rows.start as usize..fragments[fragments.len() - 1].rows.end as usize
    }

    fn bytes(&self, stretch: &Stretch) -> i64 {
        self.fragments(stretch).iter().map(|f| i64::from(f.bytes)).sum()
    }

    /// A hash that stretches have in common that are equal but for the locals that they use; none if these are too many.
    fn key(&self, stretch: &Stretch) -> Option<u64> {
        let mut hasher = DefaultHasher::new();
        let mut locals = Locals::default();
        for fragment in self.fragments(stretch) {
            fragment.hash.hash(&mut hasher);
            for access in &self.accesses[fragment.accesses.start as usize..fragment.accesses.end as usize] {
                locals.add(access, fragment.arms)?.hash(&mut hasher);
            }
        }
        Some(hasher.finish())
    }

    fn locals(&self, stretch: &Stretch) -> Locals {
        let mut locals = Locals::default();
        for fragment in self.fragments(stretch) {
            for access in &self.accesses[fragment.accesses.start as usize..fragment.accesses.end as usize] {
                locals.add(access, fragment.arms).expect("a stretch that has a key has few locals");
            }
        }
        locals
    }
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

/// Arms of `if`s around each row.
fn count_arms(rows: &[CodeRow]) -> Vec<u32> {
    let mut arms = vec![0; rows.len()];
    for (i, row) in rows.iter().enumerate().rev() {
        if let Some(parent) = row.parent_row() {
            let is_arm = rows[parent].kind() == Kind::If && row.child > 0;
            arms[i] = arms[parent] + u32::from(is_arm);
        }
    }
    arms
}

/// Expressions that are executed from their start to their end, by row.
struct Whole {
    /// Of all but which locals they use; none for other expressions.
    hashes: Vec<Option<u64>>,
    bytes: Vec<u32>,
}

impl Whole {
    fn of(module: Module<'_>, code: &Code, local_types: &[Type]) -> Whole {
        let rows = &code.rows;
        let mut whole = Whole { hashes: Vec::with_capacity(rows.len()), bytes: Vec::with_capacity(rows.len()) };
        for (i, row) in rows.iter().enumerate() {
            let children = children(rows, i);
            let inner: u32 = children.iter().map(|&child| whole.bytes[child]).fold(0, u32::saturating_add);
            whole.bytes.push(inner.saturating_add(bytes(row, children.len())));
            let mut hasher = DefaultHasher::new();
            (row.id, row.type_id).hash(&mut hasher);
            let is_whole = match row.kind() {
                Kind::LocalGet | Kind::LocalSet => local_types[row.value as usize].is_numeric(),
                Kind::Block => row.named().is_none(),
                Kind::If => true,
                _ => {
                    row.operation.hash(&mut hasher);
                    row.operation != 0 && runs_to_its_end(module, row)
                }
            };
            let has_plain_type = row.type_() == Type::NONE || row.type_().is_numeric();
            let hashes: Option<Vec<u64>> = children.iter().map(|&child| whole.hashes[child]).collect();
            let hash = hashes.filter(|_| is_whole && has_plain_type).map(|hashes| {
                hashes.hash(&mut hasher);
                hasher.finish()
            });
            whole.hashes.push(hash);
        }
        whole
    }
}

/// Whether an expression that names no label, and whose children do so, is executed to its end, in any function.
fn runs_to_its_end(module: Module<'_>, row: &CodeRow) -> bool {
    match row.kind() {
        Kind::GlobalGet
        | Kind::GlobalSet
        | Kind::Load
        | Kind::Store
        | Kind::Drop
        | Kind::Const
        | Kind::Unary
        | Kind::Binary
        | Kind::Select
        | Kind::Nop => true,
        Kind::Call | Kind::CallIndirect | Kind::CallRef | Kind::Return | Kind::Pop => false,
        _ => !module.shallow_effects(row.expr()).leaves,
    }
}

/// About how many bytes an expression takes, without its children.
fn bytes(row: &CodeRow, children: usize) -> u32 {
    match row.kind() {
        Kind::Block => 0,
        Kind::If => 1 + children as u32,
        Kind::LocalGet | Kind::LocalSet | Kind::GlobalGet | Kind::GlobalSet => 2,
        Kind::Load | Kind::Store => 2 + leb128(row.value),
        Kind::Const => match row.type_() {
            Type::I32 => 1 + signed_leb128(i64::from(row.value as u32 as i32)),
            Type::I64 => 1 + signed_leb128(row.value as i64),
            Type::V128 => 18,
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

/// The locals of a stretch, in the order in which it first uses them.
#[derive(Default)]
struct Locals {
    locals: Vec<u32>,
    /// Those whose value from before may be needed: read before they are set, or only set in an arm of an `if`.
    params: u64,
    set: u64,
}

impl Locals {
    /// Adds an access of a fragment that is in so many arms. Gives the local's number in the stretch.
    fn add(&mut self, access: &Access, arms: u32) -> Option<usize> {
        let number = self.locals.iter().position(|&local| local == access.local).unwrap_or(self.locals.len());
        let bit = 1u64.checked_shl(number as u32)?;
        if number == self.locals.len() {
            self.locals.push(access.local);
            if !access.is_set || access.arms > arms {
                self.params |= bit;
            }
        }
        if access.is_set {
            self.set |= bit;
        }
        Some(number)
    }
}

/// Neighbouring fragments of a function.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Stretch {
    text: u32,
    first: u32,
    count: u32,
    /// The locals, by their numbers in the stretch, that it sets and that are read behind it.
    results: u64,
}

/// Stretches that are equal but for the locals that they use.
type Group = Vec<Stretch>;

/// Finds stretches that occur more than once, if something could be spared.
fn find_repeated(texts: &[Text<'_>]) -> Vec<Group> {
    let mut groups = Vec::new();
    // By text and fragment, whether the stretch of the last length that starts there occurs again.
    let mut repeated: Vec<Vec<bool>> = texts.iter().map(|text| vec![true; text.fragments.len() + 1]).collect();
    for count in 1..=FRAGMENTS {
        let mut keyed: Vec<(u64, Stretch)> = Vec::new();
        for (number, (text, repeated)) in texts.iter().zip(&repeated).enumerate() {
            for run in &text.runs {
                for first in run.start..(run.end + 1).saturating_sub(count) {
                    let both = repeated[first as usize] && (count == 1 || repeated[first as usize + 1]);
                    let stretch = Stretch { text: number as u32, first, count, results: 0 };
                    if let Some(key) = both.then(|| text.key(&stretch)).flatten() {
                        keyed.push((key, stretch));
                    }
                }
            }
        }
        repeated.iter_mut().for_each(|repeated| repeated.fill(false));
        keyed.sort_unstable();
        let mut is_over = true;
        for group in keyed.chunk_by(|a, b| a.0 == b.0).filter(|group| group.len() > 1) {
            is_over = false;
            for (_, stretch) in group {
                repeated[stretch.text as usize][stretch.first as usize] = true;
            }
            let group: Group = group.iter().map(|&(_, stretch)| stretch).collect();
            if spared_at_most(texts, &group) >= LEAST {
                groups.push(group);
            }
        }
        if is_over {
            break;
        }
    }
    groups
}

/// Bytes that a function for a group spares if it has to give nothing.
fn spared_at_most(texts: &[Text<'_>], group: &[Stretch]) -> i64 {
    let text = &texts[group[0].text as usize];
    let params = text.locals(&group[0]).params.count_ones();
    if params as usize > PARAMS {
        return 0;
    }
    let bytes = text.bytes(&group[0]);
    group.len() as i64 * (bytes - CALL - LOCAL * i64::from(params)) - bytes - FUNCTION
}

/// Finds what is read behind stretches, and takes those away that cannot be reached.
fn find_results<'m>(
    pass: Pass<'m>,
    module: Module<'m>,
    functions: &[Function<'m>],
    texts: &[Text<'m>],
    groups: &mut [Group],
) {
    let mut by_text: Vec<Vec<(usize, usize)>> = texts.iter().map(|_| Vec::new()).collect();
    for (i, group) in groups.iter().enumerate() {
        for (j, stretch) in group.iter().enumerate() {
            by_text[stretch.text as usize].push((i, j));
        }
    }
    let results = map(pass, functions, |number, function| {
        let (text, here) = (&texts[number], &by_text[number]);
        if here.is_empty() {
            return Vec::new();
        }
        let last = |&(i, j): &(usize, usize)| text.fragments(&groups[i][j]).last().expect("it has fragments").root;
        let mut ends: Vec<Expr<'_>> = here.iter().map(last).collect();
        ends.sort_unstable_by_key(|end| end.address());
        ends.dedup();
        let liveness = function.liveness_after(module, &ends);
        let result = |place: &(usize, usize)| {
            let end = last(place);
            if !liveness.is_reachable(end) {
                return None;
            }
            let live = liveness.after(end);
            let locals = text.locals(&groups[place.0][place.1]);
            let is_read = |number: &usize| live.binary_search(&locals.locals[*number]).is_ok();
            let read = (0..locals.locals.len()).filter(is_read).fold(0, |mask, number| mask | 1u64 << number);
            Some(read & locals.set)
        };
        here.iter().map(result).collect()
    });
    let mut unreachable: Vec<(usize, usize)> = Vec::new();
    for (here, results) in by_text.iter().zip(results) {
        for (&(i, j), result) in here.iter().zip(results) {
            match result {
                Some(result) => groups[i][j].results = result,
                None => unreachable.push((i, j)),
            }
        }
    }
    unreachable.sort_unstable_by_key(|&place| Reverse(place));
    for (i, j) in unreachable {
        groups[i].remove(j);
    }
}

/// What a function for some of a group would be.
struct Candidate {
    stretches: Vec<Stretch>,
    /// The local that it gives, by its number in the stretch.
    result: Option<u32>,
    spared: i64,
}

impl Candidate {
    /// The best for what is left of a group.
    fn of(texts: &[Text<'_>], group: &[Stretch], taken: &[Vec<bool>]) -> Option<Candidate> {
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
        let first = free.first()?;
        let text = &texts[first.text as usize];
        let value = text.fragments(first)[0].value;
        let (bytes, params) = (text.bytes(first), text.locals(first).params.count_ones());
        let each = bytes - CALL - LOCAL * i64::from(params);
        let spared = |result: Option<u32>| {
            let allowed = result.map_or(0, |result| 1u64 << result);
            let (mut spared, mut count) = (-bytes - FUNCTION - result.map_or(0, |_| LOCAL), 0);
            for stretch in free.iter().filter(|stretch| stretch.results & !allowed == 0) {
                count += 1;
                spared += each - if result.is_none() { 0 } else if stretch.results == 0 { DROP } else { LOCAL };
            }
            if count < 2 { 0 } else { spared }
        };
        let all = free.iter().fold(0, |all, stretch| all | stretch.results);
        let results = (0..u64::BITS).filter(|number| !value.is_concrete() && all >> number & 1 == 1).map(Some);
        let result = std::iter::once(None).chain(results).max_by_key(|&result| (spared(result), Reverse(result)))?;
        let (spared, allowed) = (spared(result), result.map_or(0, |result| 1u64 << result));
        free.retain(|stretch| stretch.results & !allowed == 0);
        (spared >= LEAST).then_some(Candidate { stretches: free, result, spared })
    }
}

/// Chooses functions that spare most, one after the other.
fn choose<'m>(texts: &[Text<'m>], mut groups: Vec<Group>) -> Vec<Outlined<'m>> {
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
        let Some(mut candidate) = Candidate::of(texts, &groups[number], &taken) else { continue };
        if candidate.spared < spared {
            open.push((candidate.spared, Reverse(number)));
            continue;
        }
        keep_equal(texts, &mut candidate.stretches);
        if candidate.stretches.len() < 2 {
            continue;
        }
        for stretch in &candidate.stretches {
            let text = &texts[stretch.text as usize];
            taken[stretch.text as usize][text.rows(stretch)].fill(true);
        }
        chosen.push(outline(texts, &candidate));
    }
    chosen
}

/// Takes those away that are not equal to the first, though their keys are.
fn keep_equal(texts: &[Text<'_>], stretches: &mut Vec<Stretch>) {
    let first = stretches[0];
    stretches.retain(|stretch| {
        let mut pairs = Vec::new();
        let left = texts[first.text as usize].fragments(&first);
        let right = texts[stretch.text as usize].fragments(stretch);
        left.iter().zip(right).all(|(left, right)| left.root.same_but_for_locals(right.root, &mut pairs))
    });
}

fn outline<'m>(texts: &[Text<'m>], candidate: &Candidate) -> Outlined<'m> {
    let first = &candidate.stretches[0];
    let text = &texts[first.text as usize];
    let Locals { locals, params, .. } = text.locals(first);
    let is_param = |&number: &usize| params >> number & 1 == 1;
    let mut order: Vec<usize> = (0..locals.len()).filter(is_param).collect();
    order.extend((0..locals.len()).filter(|number| !is_param(number)));
    let value = text.fragments(first)[0].value;
    let gives = match candidate.result {
        Some(result) => Gives::Local(order.iter().position(|&n| n == result as usize).expect("it is a local") as u32),
        None if value.is_concrete() => Gives::Value(value),
        None => Gives::Nothing,
    };
    let place = |stretch: &Stretch| {
        let text = &texts[stretch.text as usize];
        let fragments = text.fragments(stretch);
        let locals = text.locals(stretch).locals;
        Place {
            function: text.function,
            parent: fragments[0].parent,
            child: fragments[0].child,
            code: fragments.iter().map(|fragment| fragment.root).collect(),
            locals: order.iter().map(|&number| locals[number]).collect(),
            reads_result: stretch.results != 0,
        }
    };
    Outlined {
        locals: order.iter().map(|&number| text.local_types[locals[number] as usize]).collect(),
        params: params.count_ones() as usize,
        gives,
        places: candidate.stretches.iter().map(place).collect(),
    }
}
