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
//! A *fragment* is a statement, or an expression with a value, that control leaves only at its end. A *stretch* is a fragment, or
//! several neighbours in a block. Stretches of the same form, which
//! are equal but for their *leaves* (`local.get`s and constants) and the locals that they set, can be one function. It takes
//! leaves that are not the same in all stretches, and the locals that a stretch reads before it sets them. Of those that
//! a stretch sets, one may be read behind it.
//!
//! A call in a stretch can be suspended, without a frame for the new function. The code does the same as before it moved, and
//! what is behind such a call, up to the test of the state, which is a branch, can be done while the program unwinds.
//!
//! A function that was on the stack at a fork goes on in its resume function, and may be in a loop there. In loops that need not
//! call anything, only large stretches move, and those that call something themselves.
//!
//! Stretches that occur again are found by their length: one of several fragments can only occur again if both of those that
//! are one fragment shorter do. What spares most is chosen first, for as long as something is spared.

mod candidates;
mod contents;
mod text;

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Mutex;

use crate::ir::{Expr, Function, LiveAfter, LivenessPoint, Module, Name, Pass, Type};
use candidates::{Candidate, Group, choose, find_repeated};
use text::{Locals, Stretch, Text, UseKind};

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

/// Which stretches are looked at.
pub enum Search {
    /// All.
    Everything,
    /// Only those that are in these functions, or call them. Here all locals that a stretch sets are taken for read behind it,
    /// which takes less time.
    Around(HashSet<Name>),
}

impl Search {
    fn is_searched(&self, name: Name) -> bool {
        match self {
            Search::Everything => true,
            Search::Around(names) => names.contains(&name),
        }
    }
}

/// Bytes of a call without its operands.
const CALL: i64 = 3;

/// Bytes of a `local.get` or `local.set`.
const LOCAL: i64 = 2;

/// Expressions in a function that is searched at most: each may take some hundred bytes of memory.
const LARGEST_FUNCTION: usize = 300_000;

/// Whether a function is small enough to be searched.
pub fn can_be_searched(function: Function<'_>) -> bool {
    function.count_expressions() <= LARGEST_FUNCTION
}

/// Finds what is worth it in these functions, which can be searched, and have no code that cannot be reached by its types.
/// Code that uses the global `fixed`, or a local with an address that is taken from it, stays where it is.
pub fn find<'m>(
    pass: Pass<'m>,
    module: Module<'m>,
    functions: &[Function<'m>],
    fixed: Name,
    search: &Search,
) -> Vec<Outlined<'m>> {
    let texts = map(pass, functions, |_, function| Text::of(module, function, fixed, search));
    let mut groups = find_repeated(&texts);
    match search {
        Search::Everything => find_results(pass, module, functions, &texts, &mut groups),
        Search::Around(_) => groups.iter_mut().for_each(|group| {
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
    let expressions = function.expressions();
    let mut all = points(text, &expressions, stretches.clone());
    if all.is_empty() {
        return stretches.map(|_| Some(None)).collect();
    }
    all.sort_unstable();
    let answers = function.live_after(module, &all);
    let result = |stretch: Stretch| {
        let expression = expressions[text.rows(&stretch).end - 1];
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
fn points(text: &Text, expressions: &[usize], stretches: impl Iterator<Item = Stretch>) -> Vec<LivenessPoint> {
    // By the last fragment, the longest: what others set that end there, it sets, too.
    let mut longest: Vec<Option<Stretch>> = vec![None; text.fragments.len()];
    for stretch in stretches {
        let last = &mut longest[stretch.first as usize + stretch.count as usize - 1];
        *last = last.filter(|longest| longest.count >= stretch.count).or(Some(stretch));
    }
    let mut points = Vec::new();
    for stretch in longest.into_iter().flatten() {
        let expression = expressions[text.rows(&stretch).end - 1];
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

/// Turns rows into expressions.
fn find_places<'m>(functions: &[Function<'m>], texts: &[Text], chosen: &[Candidate]) -> Vec<Outlined<'m>> {
    let mut by_text: Vec<Vec<(usize, &Stretch)>> = texts.iter().map(|_| Vec::new()).collect();
    for (number, candidate) in chosen.iter().enumerate() {
        candidate.stretches.iter().for_each(|stretch| by_text[stretch.text as usize].push((number, stretch)));
    }
    // In order of the functions, as a group's stretches are.
    let mut places: Vec<Vec<Place<'m>>> = chosen.iter().map(|_| Vec::new()).collect();
    for ((&function, text), stretches) in functions.iter().zip(texts).zip(by_text) {
        let expressions = if stretches.is_empty() { Vec::new() } else { function.expressions() };
        let at = |row: u32| Expr::from_address(expressions[row as usize]);
        for (number, stretch) in stretches {
            let (run, uses) = (text.run(stretch), text.uses(stretch));
            let locals = Locals::of(text, stretch).expect("it has a form");
            places[number].push(Place {
                function,
                parent: at(run.parent),
                child: run.child,
                code: text.fragments(stretch).iter().map(|fragment| at(fragment.rows.end - 1)).collect(),
                locals: locals.in_order().map(|number| locals.locals[number] as u32).collect(),
                leaves: chosen[number].passed().iter().map(|&i| at(uses[i].row)).collect(),
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
        let locals = Locals::of(text, stretch).expect("it has a form");
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
    let locals = Locals::of(text, first).expect("it has a form");
    let place = &places[0];
    let types = place.function.local_types();
    let value = place.code[0].type_();
    let position = |result: u8| locals.in_order().position(|number| number == result as usize);
    let gives = match candidate.result {
        Some(result) => Gives::Local(position(result).expect("it is one of the locals") as u32),
        None if value.is_concrete() => Gives::Value(value),
        None => Gives::Nothing,
    };
    let passed = candidate.passed();
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
