//! Checks an output against the plans that it was made from, knowing nothing of how it was made.
//!
//! Instrumented functions and their resume functions are executed on values that are known in part ([`machine`]): the
//! state, frames and function numbers are concrete, locals are symbols. Helpers are executed like any code, so that
//! shapes do not matter, only what happens. For each landing:
//!
//! ```text
//! function            start after the call, the state UNWINDING        → returns, with the planned frame in memory
//!                     start after a call that comes to a join     → arrives there, and nowhere else
//! resume function     start at its top, REWINDING, nothing known       → arrives where the callee is resumed, the frame
//!                     but that frame and the callee's below it           popped, its locals the same symbols as before
//!                     go on after it, UNWINDING                        → returns, with the same frame again
//! both                start after the call, NORMAL                     → do the same, on the same values ([`onward`])
//! resume function     start after calls that it makes then, UNWINDING  → returns, with the planned frame, or arrives
//! ```
//!
//! On all these ways the function may do nothing that can be noticed, and nothing that could trap: a lead-in that is
//! executed while rewinding shows. With the state NORMAL, whatever can be reached in the function and after the
//! landings of the resume function uses no frames ([`normal`]). Further: a frame that does not fit leads back through
//! the resume table ([`check`]), exports resume the frame on top ([`roots`]), instrumented functions have the
//! operations that they had, in their order, and all other functions the same bodies.
//!
//! Before that, where values are put into other locals, each read must find what it found ([`locals`]).
//!
//! It runs after the rewriting and before Binaryen's clean-up passes, which number locals anew; these are trusted. Not
//! checked are what the transitions do beyond where they leave state and position, frames' references beyond that their
//! numbers come back, and the split into two modules.
//!
//! A run takes as many steps as its frame has slots, and as there is code on the way to a landing, less what only
//! chooses among landings: that is executed once for all of them ([`ways`]). So the whole grows with the code and the
//! frames.

pub mod body;
pub mod check;
pub mod locals;
pub mod machine;
pub mod memory;
pub mod normal;
pub mod onward;
pub mod operations;
pub mod roots;
pub mod violation;
pub mod ways;
pub mod world;

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, OnceLock};

use crate::error::Error;
use crate::frame::FrameLayout;
use crate::ir::{Expr, Function, Kind, Module, Name, Pass};
use crate::plan::{FunctionPlan, LocalIndex, Site};
use check::{Checker, Failure, Output, operations};
use normal::Normal;
use violation::{Problem, Violation};
use world::World;

/// Changes the output before it is verified: for tests of the verifier.
#[doc(hidden)]
pub static TAMPER: OnceLock<fn(Module<'_>)> = OnceLock::new();

/// Puts values into other locals than were chosen, likewise.
#[doc(hidden)]
pub static TAMPER_LOCALS: OnceLock<fn(&mut [LocalIndex])> = OnceLock::new();

/// What the functions were like before they were rewritten.
pub struct Before {
    pub functions: HashSet<Name>,
    pub globals: HashSet<String>,
    /// Exported functions, by the export's name.
    pub exports: HashMap<String, String>,
    /// Hashes of the bodies of functions that have no landings.
    bodies: HashMap<String, u64>,
    /// For each plan with landings.
    landings: Vec<Landings>,
}

/// A function's landings in its original body.
pub struct Landings {
    /// Addresses of the calls, by site. Rewriting leaves them where they are.
    pub calls: Vec<usize>,
    /// What they call, if that is one function; else empty.
    pub entries: Vec<String>,
    /// Addresses of calls that come to a join instead of being landings, with the join's site.
    pub joined: Vec<(usize, Site)>,
    /// Addresses of the numbers that references are made again of, with the local that keeps each.
    pub captures: Vec<(usize, LocalIndex)>,
    /// A hash of the function's own operations.
    pub operations: u64,
}

impl Before {
    /// Looks at the module once it is planned.
    pub fn of<'m>(pass: Pass<'m>, module: Module<'m>, plans: &[FunctionPlan]) -> Before {
        let rows = module.functions();
        let plans: Vec<&FunctionPlan> = plans.iter().filter(|p| p.is_resumable()).collect();
        let planned: HashSet<Name> = plans.iter().map(|p| Name::of(&p.function)).collect();
        let others = rows.iter().filter(|f| !f.imported && !planned.contains(&f.name()));
        let others: Vec<String> = others.map(|f| f.name().text()).collect();
        let hashes = for_each(pass, module, &others, |_, function| function.body().hash());
        let names: Vec<String> = plans.iter().map(|p| p.function.clone()).collect();
        let landings = for_each(pass, module, &names, |i, function| Landings::of(function, plans[i]));
        let exports = module.exports().into_iter().filter(|e| e.kind == 0).map(|e| (e.name, e.item)).collect();
        Before {
            functions: rows.iter().map(|f| f.name()).collect(),
            globals: module.globals().into_iter().map(|g| g.name).collect(),
            exports,
            bodies: others.into_iter().zip(hashes).collect(),
            landings,
        }
    }
}

impl Landings {
    fn of(function: Function<'_>, plan: &FunctionPlan) -> Landings {
        let mut calls = vec![0; plan.landings.len()];
        let mut entries = vec![String::new(); plan.landings.len()];
        let mut open: Vec<_> = plan.root.iter().map(|&root| (root, function.body())).collect();
        while let Some((id, expr)) = open.pop() {
            let region = plan.region(id);
            if let Some(site) = region.landing {
                calls[site.0 as usize] = expr.address();
                if let Some(call) = expr.describe_call().filter(|_| expr.kind() == Kind::Call) {
                    entries[site.0 as usize] = call.target().map_or(String::new(), Name::text);
                }
            }
            open.extend(region.parts.iter().map(|&(child, part)| (part, expr.child(child))));
        }
        let rows = function.code().rows;
        let joined = plan.joined.iter().map(|&(row, site)| (rows[row as usize].expression, site)).collect();
        let captures = plan.captures.iter().map(|c| (rows[c.row as usize].expression, c.local)).collect();
        Landings { calls, entries, joined, captures, operations: operations(&rows, 0, |_| false) }
    }
}

/// What was decided, and what it was made into.
pub struct Made<'a> {
    /// Of all functions of the fork path.
    pub plans: &'a [FunctionPlan],
    /// Names of the resume functions, by number.
    pub resume_names: &'a [String],
    /// Whether frames are shared with other modules.
    pub shares_frames: bool,
    /// Whether all functions that calls can unwind, but entries, are the module's own.
    pub is_closed: bool,
}

/// Checks the whole module.
pub fn verify<'m>(pass: Pass<'m>, module: Module<'m>, before: &Before, made: &Made<'_>) -> Result<(), Error> {
    let resumable: Vec<&FunctionPlan> = made.plans.iter().filter(|p| p.is_resumable()).collect();
    let count = if made.shares_frames { usize::MAX } else { made.resume_names.len() };
    let bytes = FrameLayout::for_functions(count).function_bytes;
    let of_module = |problem| violation(module, "of the module", None, problem);
    let world = World::read(module, before, made.resume_names, bytes).map_err(of_module)?;
    let normal = Normal::new(&world, made.resume_names);
    let mut output = Output {
        world: &world,
        normal: &normal,
        plans: &resumable,
        resume_names: made.resume_names,
        limit: None,
        is_closed: made.is_closed,
    };
    let limit = find_limit(module, before, &output);
    output.limit = limit.and_then(|(_, limit)| limit);

    check_others(pass, module, before, made)?;
    let names: Vec<String> = resumable.iter().map(|p| p.function.clone()).collect();
    let failures = for_each(pass, module, &names, |i, function| {
        let resume = module.function(output.resume_name(resumable[i]));
        Checker::new(&output, resumable[i], &before.landings[i], function, resume).and_then(|c| c.check()).err()
    });
    if let Some((i, Failure { site, problem })) = failures.into_iter().enumerate().find_map(|(i, f)| Some((i, f?))) {
        let landing = site.map(|site| (site, before.landings[i].calls[site.0 as usize]));
        return Err(violation(module, &names[i], landing, problem));
    }
    if let Some((plan, None)) = limit {
        return Err(violation(module, &plan.function, None, Problem::NoAbort));
    }
    let on_path = made.plans.iter().map(|p| p.function.as_str()).collect();
    roots::check(module, &output, before, &on_path)
        .map_err(|(function, problem)| violation(module, &function, None, problem))
}

pub fn violation(module: Module<'_>, function: &str, landing: Option<(Site, usize)>, problem: Problem) -> Error {
    let print = |address| module.print_expression(Expr::from_address(address));
    Error::Violation(Box::new(Violation {
        function: function.into(),
        landing: landing.map(|(site, call)| (site, print(call))),
        expression: problem.address().map(print),
        problem,
    }))
}

/// The first function with a landing that can be resumed, and the global below which frames must stay: with it at zero,
/// that function behaves as when a frame does not fit.
fn find_limit<'p>(
    module: Module<'_>,
    before: &Before,
    output: &Output<'p, '_>,
) -> Option<(&'p FunctionPlan, Option<Name>)> {
    let world = output.world;
    let mut candidates: Vec<Name> =
        world.unwinding.globals.keys().copied().filter(|&g| g != world.state && g != world.position).collect();
    candidates.sort_unstable();
    output.plans.iter().zip(&before.landings).find_map(|(&plan, landings)| {
        let (function, resume) = (module.function(&plan.function), module.function(output.resume_name(plan)));
        let checker = Checker::new(output, plan, landings, function, resume).ok()?;
        let site = checker.resumed_site()?;
        Some((plan, candidates.iter().copied().find(|&global| checker.is_limit(site, global))))
    })
}

/// Functions without landings: unchanged, but that some do something before.
fn check_others<'m>(pass: Pass<'m>, module: Module<'m>, before: &Before, made: &Made<'_>) -> Result<(), Error> {
    let mut names: Vec<String> = before.bodies.keys().cloned().collect();
    names.sort_unstable();
    let start = module.facts().start;
    let on_path: HashSet<&str> = made.plans.iter().map(|p| p.function.as_str()).collect();
    let changed = for_each(pass, module, &names, |i, function| {
        let (name, body) = (&names[i], function.body());
        let hash = before.bodies[name];
        let may_start_otherwise = *name == start || on_path.contains(name.as_str());
        let rest = || match body.kind() {
            Kind::Block => body.block_children().last().copied().filter(|_| body.block_children().len() == 2),
            _ => None,
        };
        body.hash() != hash && !(may_start_otherwise && rest().is_some_and(|rest| rest.hash() == hash))
    });
    match names.into_iter().zip(changed).find(|(_, changed)| *changed) {
        Some((name, _)) => Err(violation(module, &name, None, Problem::Changed)),
        None => Ok(()),
    }
}

/// What comes of some work for each of the functions, on Binaryen's threads.
fn for_each<'m, T: Send>(
    pass: Pass<'m>,
    module: Module<'m>,
    names: &[String],
    work: impl Fn(usize, Function<'m>) -> T + Sync,
) -> Vec<T> {
    let functions: Vec<Function> = names.iter().map(|name| module.function(name)).collect();
    let results: Vec<Mutex<Option<T>>> = names.iter().map(|_| Mutex::new(None)).collect();
    pass.for_each_function(&functions, &|i, function| {
        *results[i].lock().expect("no thread panicked") = Some(work(i, function));
    });
    let results = results.into_iter().map(|r| r.into_inner().expect("no thread panicked"));
    results.map(|r| r.expect("every function was visited")).collect()
}
