//! The helpers that instrumented code calls, the transitions that hosts call, and the names of all of it.
//!
//! They are written as text and parsed by Binaryen. Sizes count more than speed here: nothing of it runs unless the
//! program forks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::abi::{self, BufferLayout};
use crate::error::Error;
use crate::frame::{FrameLayout, MaskFunctions, WIDE_SITE};
use crate::ir::{Builder, Expr, GlobalRow, Module, Type};
use crate::options::Sharing;
use crate::plan::{Callee, FunctionNumber, FunctionPlan, Masks, Retry};
use crate::transform::epilogue::{
    EndKind, GroupKind, PushGroup, end_of, pop_groups, push_groups_of, push_groups_of_resume,
};
use crate::transform::references::ReferenceNeeds;
use crate::transform::retry;

mod text;

use text::Text;
pub(super) use text::default_value;

/// How code calls the function whose frame is on top.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ResumeTable {
    /// Resume functions are in a table at this index and up, by function number.
    Table { name: String, base: u64, is64: bool },
    /// The module can have no table of ours: a `br_table` chooses.
    Switch,
}

/// The memory that holds the frames.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FrameMemory {
    pub name: String,
    pub is64: bool,
    pub shared: bool,
}

/// Names of what the pass adds to the module.
pub struct Runtime {
    /// In front of all internal names.
    prefix: String,
    pub memory: FrameMemory,
    pub table: ResumeTable,
    /// Names of the resume functions, by number.
    pub resume_names: Vec<String>,
    /// Whether the resume functions go to a module of their own.
    pub separate: bool,
    pub sharing: Sharing,
    pub asserts: bool,
    /// Whether `rewind_begin` drops segments again.
    pub has_drops: bool,
    /// How many functions that give masks are in the resume table.
    masks_in_table: usize,
    /// What only passes values from call to call within one function's way in or out.
    pub scratch: Vec<Scratch>,
    /// Helpers of which each module has its own if there are two: those that functions call on their ways in and out.
    pub on_the_way: Vec<String>,
    /// Functions of code that several resume functions have.
    pub outlined: Vec<String>,
    /// Results with references in them; their position is in the names of the helpers for them.
    reference_results: Vec<Type>,
    state: String,
}

impl Runtime {
    pub fn new(module: Module<'_>, memory: FrameMemory) -> Runtime {
        let mut prefix = String::from("fork.");
        while module.has_name_with_prefix(&prefix) {
            prefix.insert(prefix.len() - 1, '_');
        }
        let state = format!("{prefix}state");
        Runtime {
            prefix,
            memory,
            table: ResumeTable::Switch,
            resume_names: Vec::new(),
            separate: false,
            sharing: Sharing::None,
            asserts: false,
            has_drops: false,
            masks_in_table: 0,
            scratch: Vec::new(),
            on_the_way: Vec::new(),
            outlined: Vec::new(),
            reference_results: Vec::new(),
            state,
        }
    }

    pub fn state_global(&self) -> &str {
        &self.state
    }

    /// An internal name that no item of the input has.
    pub fn name(&self, base: &str) -> String {
        format!("{}{base}", self.prefix)
    }

    pub fn resume_name(&self, number: FunctionNumber) -> &str {
        &self.resume_names[number.0 as usize]
    }

    /// Pushes some values of a type; if `masked`, those that the current mask holds.
    pub fn push_helper(&self, (type_, masked, count): GroupKind) -> String {
        self.name(&format!("push_{}{}x{count}", masked_infix(masked), keyword(type_)))
    }

    /// Pops a value and returns it, or several and leaves them in globals; if `masked`, those that the current mask
    /// holds: a single one that it does not hold is zero.
    pub fn pop_helper(&self, (type_, masked, count): GroupKind) -> String {
        let count = if count == 1 { String::new() } else { format!("x{count}") };
        self.name(&format!("pop_{}{}{count}", masked_infix(masked), keyword(type_)))
    }

    /// Where pop helpers leave a value, by its place among them.
    pub fn popped_global(&self, type_: Type, index: usize) -> String {
        self.name(&format!("popped_{}.{index}", keyword(type_)))
    }

    /// Makes a site's mask the current one for pushing.
    pub fn select_mask_helper(&self, masks: Masks) -> String {
        match masks {
            Masks::Packed(..) => self.name("unpack_mask"),
            Masks::Function(..) => self.name("select_mask"),
        }
    }

    /// A function of code that occurs again and again.
    pub fn outlined_name(&self, number: usize) -> String {
        self.name(&format!("outlined.{number}"))
    }

    /// Gives masks by site.
    pub fn mask_function(&self, number: u32) -> String {
        self.name(&format!("masks.{number}"))
    }

    /// The functions that give masks to functions on the fork path. In the resume table they come behind the resume
    /// functions, which call theirs themselves.
    pub fn mask_functions_in_table(&self) -> impl Iterator<Item = String> {
        (0..self.masks_in_table as u32).map(|number| self.mask_function(number))
    }

    /// The mask by which values are pushed: its highest bit is that of the next one.
    pub fn pushed_mask(&self) -> String {
        self.name("pushed_mask")
    }

    /// The mask by which values are popped: its lowest bit is that of the next one.
    pub fn popped_mask(&self) -> String {
        self.name("popped_mask")
    }

    /// The function that markers of joins call, by what the joined calls return.
    pub fn join_marker(&self, result: Type) -> String {
        self.name(&format!("joined{}", self.suffix(result)))
    }

    /// Where the next value is stored.
    pub fn position_global(&self) -> String {
        self.name("position")
    }

    /// Where the last frame may end that fits.
    pub fn limit_global(&self) -> String {
        self.name("limit")
    }

    /// Keeps the site that a test has brought to an epilogue in line.
    pub fn left_site_global(&self) -> String {
        self.name("left_site")
    }

    /// Goes back to the frames inside of one that does not fit; gives what the function returns.
    pub fn abort_helper(&self, results: Type) -> String {
        self.name(&format!("abort{}", self.suffix(results)))
    }

    /// Whether an internal name is one of ours.
    pub fn is_ours(&self, name: &str) -> bool {
        name.starts_with(&self.prefix)
    }

    /// Functions of the resume table, in order.
    pub fn table_functions(&self) -> Vec<String> {
        self.resume_names.iter().cloned().chain(self.mask_functions_in_table()).collect()
    }

    /// Pops function number and site; gives the site.
    pub fn pop_header_helper(&self) -> String {
        self.name("pop_header")
    }

    /// Pops function number and site; gives the site, and makes its mask the current one for popping.
    pub fn pop_packed_helper(&self) -> String {
        self.name("pop_packed")
    }

    /// Pops the function number of a frame without a site.
    pub fn pop_function_helper(&self) -> String {
        self.name("pop_function")
    }

    /// Ends a frame and returns a default.
    pub fn finish_helper(&self, results: Type) -> String {
        self.name(&format!("finish{}", self.suffix(results)))
    }

    /// Checks that the next frame is the function's, for `asserts`.
    pub fn check_frame_helper(&self) -> String {
        self.name("check_frame")
    }

    /// Drops the segments that the program dropped.
    pub fn drop_again_helper(&self) -> String {
        self.name("drop_again")
    }

    /// Ends a frame that a resume function pushes.
    pub fn finish_again_helper(&self, (last, results): EndKind) -> String {
        let last = last.map(|(type_, _, count)| format!("_{}x{count}", keyword(type_))).unwrap_or_default();
        match results {
            Some(results) => self.name(&format!("finish_or_retry{last}{}", self.suffix(results))),
            None => self.name(&format!("finish_again{last}")),
        }
    }

    /// Resumes a function again whose frame did not fit.
    pub fn retry_helper(&self, results: Type) -> String {
        self.name(&format!("retry{}", self.suffix(results)))
    }

    /// Set by a resume function whose frame does not fit: the call that resumed it is to do so again.
    pub fn retry_global(&self) -> String {
        self.name("retry")
    }

    /// Set while a resume function is entered that tells its caller when its frame does not fit.
    pub fn retried_global(&self) -> String {
        self.name("retried")
    }

    pub fn resume_next_helper(&self, results: Type) -> String {
        self.name(&format!("resume_next{}", self.suffix(results)))
    }

    /// `_i32_f64` for results i32 and f64.
    fn suffix(&self, results: Type) -> String {
        if let Some(number) = self.reference_results.iter().position(|&r| r == results) {
            return format!("_refs{number}");
        }
        results.components().into_iter().fold(String::new(), |mut text, t| {
            text.push('_');
            text += keyword(t);
            text
        })
    }

    /// A value for the results of a function that is being unwound: a default, or whatever `default_helper` makes.
    pub fn default_results<'m>(&self, build: Builder<'m>, results: Type) -> Expr<'m> {
        match build.zero(results) {
            Some(zero) => zero,
            None => build.call(&self.default_helper(results), &[], results),
        }
    }

    fn default_helper(&self, results: Type) -> String {
        self.name(&format!("default{}", self.suffix(results)))
    }

    /// Whether functions of ours are in a table of the program's. Its code can call them there with a wrong index: then
    /// they must trap, as that call did before.
    fn is_in_programs_table(&self) -> bool {
        matches!(&self.table, ResumeTable::Table { name, .. } if !self.is_ours(name))
    }

    /// The body of a function in the resume table that nothing calls while the state is normal.
    fn guard_in_table<'m>(&self, build: Builder<'m>, body: Expr<'m>) -> Expr<'m> {
        if !self.is_in_programs_table() {
            return body;
        }
        let is_normal = build.i32_eq(build.global_get(&self.state, Type::I32), build.i32(abi::State::Normal as u32));
        let type_ = body.type_();
        build.block(None, &[build.if_(is_normal, build.unreachable(), None), body], Some(type_))
    }

    pub fn pointer(&self) -> Type {
        if self.memory.is64 { Type::I64 } else { Type::I32 }
    }

    fn layout(&self) -> BufferLayout {
        BufferLayout { pointer: self.pointer().size() }
    }

    /// What a resume function does first that takes its header from the frame itself: it traps if the program called it
    /// with a wrong index.
    pub fn guard_resume<'m>(&self, build: Builder<'m>) -> Option<Expr<'m>> {
        let state = build.global_get(&self.state, Type::I32);
        let is_called = || build.i32_lt_u(state, build.i32(abi::State::Rewinding as u32));
        self.is_in_programs_table().then(|| build.if_(is_called(), build.unreachable(), None))
    }

    /// Calls the resume function of the frame on top, which returns these results, references as the tops of their
    /// hierarchies.
    pub fn call_next_frame<'m>(&self, build: Builder<'m>, results: Type) -> Expr<'m> {
        let results = results.top();
        match &self.table {
            ResumeTable::Table { name, is64, .. } => {
                let type_ = if *is64 { Type::I64 } else { Type::I32 };
                let index = build.call(&self.name("next_function"), &[], type_);
                build.call_indirect(name, index, results)
            }
            ResumeTable::Switch => build.call(&self.resume_next_helper(results), &[], results),
        }
    }

    /// The same in what hosts call.
    pub fn call_outermost_frame<'m>(&self, build: Builder<'m>, results: Type) -> Expr<'m> {
        match &self.table {
            ResumeTable::Table { name, .. } if self.reads_function_in_place() => {
                let (pointer, bytes) = (self.pointer(), self.function_bytes());
                let position = build.global_get(&self.position_global(), pointer);
                let at = build.pointer_add(pointer, position, -i64::from(bytes) as u64);
                let index = build.load(&self.memory.name, bytes, 0, at, Type::I32);
                build.call_indirect(name, index, results.top())
            }
            _ => self.call_next_frame(build, results),
        }
    }

    /// Whether the function in the frame on top is read where it is needed: in the first of two modules these are few places,
    /// and a function less to be compiled.
    fn reads_function_in_place(&self) -> bool {
        let is_index = matches!(self.table, ResumeTable::Table { base: 0, is64: false, .. });
        self.separate && is_index && !self.asserts && self.sharing == Sharing::None
    }

    /// The widths of one module's frames depend on how many functions it has.
    pub fn function_bytes(&self) -> u32 {
        FrameLayout::for_functions(self.resume_names.len()).function_bytes
    }
}

/// Globals that helpers set for others, or for what calls them.
pub struct Scratch {
    pub globals: Vec<String>,
    /// Whatever uses one of the globals calls one of these.
    pub helpers: Vec<String>,
}

/// What the helpers depend on besides names.
pub struct RuntimeNeeds {
    /// Mutable globals of the module's own, to save and restore.
    pub globals: Vec<GlobalRow>,
    pub layout: FrameLayout,
    /// Bytes kept free below the buffer's end: the largest frame.
    pub reserve: u64,
    pushes: BTreeSet<GroupKind>,
    /// What ends the frames of resume functions.
    ends: BTreeSet<EndKind>,
    pops: BTreeSet<GroupKind>,
    pub masks: MaskFunctions,
    /// Whether a function has its masks in a number.
    has_packed_masks: bool,
    /// Whether such a function pushes by them.
    unpacks_masks: bool,
    references: ReferenceNeeds,
    sites: SiteNeeds,
    /// Results, numbers only, of functions that can be unwound.
    finishes: BTreeSet<Type>,
    /// Results of functions that store their frames themselves.
    aborted: BTreeSet<Type>,
    /// Whether one of these has several sites.
    keeps_sites: bool,
    /// Whether resume functions call the resume function of whatever frame is on top.
    calls_next_frame: bool,
    /// Results of functions that are resumed again by what ends them.
    retried: BTreeSet<Type>,
    /// Results, numbers only, of whatever is resumed by the next frame.
    resumed_results: BTreeSet<Type>,
    /// Resume functions with their results, by number.
    resumable: Vec<(String, Type)>,
}

/// Which kinds of sites there are in frames that helpers load.
#[derive(Clone, Copy, Default, Debug)]
struct SiteNeeds {
    /// Of functions with one landing, whose frames hold no site.
    single: bool,
    /// Of functions with several.
    several: bool,
    /// That take more than a byte.
    wide: bool,
}

impl SiteNeeds {
    fn of<'a>(plans: impl Iterator<Item = &'a &'a FunctionPlan> + Clone) -> SiteNeeds {
        let has = |is_such: fn(usize) -> bool| plans.clone().any(|p| is_such(p.landings.len()));
        SiteNeeds {
            single: has(|landings| landings == 1),
            several: has(|landings| landings > 1),
            wide: has(|landings| landings > WIDE_SITE as usize),
        }
    }
}

impl RuntimeNeeds {
    /// `more_results`: results of functions that roots and landings resume, besides those of the plans.
    pub fn of(
        plans: &[&FunctionPlan],
        globals: Vec<GlobalRow>,
        references: ReferenceNeeds,
        runtime: &Runtime,
        more_results: &[Type],
    ) -> Self {
        let names = &runtime.resume_names;
        // Modules that share frames agree on the width, and count their functions together.
        let count = if runtime.sharing == Sharing::None { plans.len() } else { usize::MAX };
        let payload_bytes = references.payload_bytes();
        let layout = FrameLayout { payload_bytes, ..FrameLayout::for_functions(count) };
        let mut needs = RuntimeNeeds {
            globals,
            layout,
            reserve: plans.iter().map(|p| layout.largest_frame(p)).max().unwrap_or(0),
            pushes: BTreeSet::new(),
            ends: BTreeSet::new(),
            pops: BTreeSet::new(),
            masks: MaskFunctions::default(),
            has_packed_masks: plans.iter().any(|p| matches!(p.masks, Some(Masks::Packed(..)))),
            unpacks_masks: plans.iter().any(|p| !p.in_line && matches!(p.masks, Some(Masks::Packed(..)))),
            references,
            sites: SiteNeeds::of(plans.iter().filter(|p| !p.loads_in_line)),
            finishes: BTreeSet::new(),
            aborted: BTreeSet::new(),
            keeps_sites: plans.iter().any(|p| p.in_line && p.epilogues.iter().any(|e| e.sites.len() > 1)),
            calls_next_frame: plans.iter().any(|p| {
                let calls = p.landings.iter().any(|landing| landing.callee == Callee::NextFrame);
                calls || p.retry == Retry::Call || p.results.has_reference()
            }),
            retried: plans.iter().filter(|p| p.retry == Retry::Call).map(|p| p.results).collect(),
            resumed_results: more_results.iter().copied().collect(),
            resumable: names.iter().cloned().zip(plans.iter().map(|p| p.results)).collect(),
        };
        for plan in plans {
            needs.resumed_results.insert(plan.results);
            needs.resumed_results.extend(plan.landings.iter().map(|l| l.result));
            needs.add_pushes(plan, runtime);
            for group in pop_groups(plan).into_iter().filter(|_| !plan.loads_in_line) {
                let components = group.slots[0].type_.components();
                needs.pops.extend(components.into_iter().map(|t| (t.in_frame(), group.masked, group.size)));
            }
        }
        needs.resumed_results.retain(|r| !r.has_reference());
        needs
    }

    /// What unwinding a function and its resume function needs.
    fn add_pushes(&mut self, plan: &FunctionPlan, runtime: &Runtime) {
        if plan.in_line {
            self.aborted.insert(plan.results);
            return;
        }
        self.pushes.extend(push_groups_of(plan).iter().map(PushGroup::kind));
        match plan.results.has_reference() {
            // What ends those frames ends them as in a resume function.
            true => self.ends.insert((None, None)),
            false => self.finishes.insert(plan.results),
        };
        let (groups, last) = push_groups_of_resume(plan, runtime.pointer());
        self.pushes.extend(groups.iter().map(PushGroup::kind));
        self.ends.insert(end_of(plan, last.as_ref()));
    }

    fn scratch(&self, runtime: &Runtime) -> Vec<Scratch> {
        let popped = self.popped_globals(runtime).into_iter().map(|(name, _)| name).collect();
        let mut scratch = vec![Scratch { globals: popped, helpers: self.pop_helpers(runtime, |kind| kind.2 > 1) }];
        if self.has_retries() {
            let mut helpers = self.retries(runtime);
            helpers.extend(self.header_helpers(runtime));
            scratch.push(Scratch { globals: vec![runtime.retry_global()], helpers });
        }
        if self.has_masks() {
            if self.pushes_by_mask() {
                let pushing = self.push_helpers(runtime, |kind| kind.1);
                scratch.push(Scratch { globals: vec![runtime.pushed_mask()], helpers: pushing });
            }
            let popping = self.pop_helpers(runtime, |kind| kind.1);
            scratch.push(Scratch { globals: vec![runtime.popped_mask()], helpers: popping });
        }
        scratch
    }

    fn on_the_way(&self, runtime: &Runtime) -> Vec<String> {
        let mut names = self.push_helpers(runtime, |_| true);
        names.extend(self.pop_helpers(runtime, |_| true));
        names.extend(self.header_helpers(runtime));
        names.extend(self.retries(runtime));
        names.extend(self.ends.iter().map(|&kind| runtime.finish_again_helper(kind)));
        names.push(runtime.select_mask_helper(Masks::Packed(0, 0)));
        names
    }

    /// Helpers that pop the header of a frame.
    fn header_helpers(&self, runtime: &Runtime) -> Vec<String> {
        let helpers = [
            (self.sites.several, runtime.pop_header_helper()),
            (self.has_packed_masks, runtime.pop_packed_helper()),
            (self.sites.single, runtime.pop_function_helper()),
        ];
        helpers.into_iter().filter(|(is_there, _)| *is_there).map(|(_, name)| name).collect()
    }

    fn retries(&self, runtime: &Runtime) -> Vec<String> {
        self.retried.iter().map(|&results| runtime.retry_helper(results)).collect()
    }

    /// Whether a function is resumed again by what ends it.
    pub fn has_retries(&self) -> bool {
        !self.retried.is_empty()
    }

    /// Helpers that push, of some kinds.
    fn push_helpers(&self, runtime: &Runtime, is_such: fn(&GroupKind) -> bool) -> Vec<String> {
        let pushes = self.pushes.iter().copied().filter(is_such).map(|kind| runtime.push_helper(kind));
        let ends = self.ends.iter().filter(|(last, _)| last.as_ref().is_some_and(is_such));
        pushes.chain(ends.map(|&kind| runtime.finish_again_helper(kind))).collect()
    }

    /// Helpers that pop, of some kinds.
    fn pop_helpers(&self, runtime: &Runtime, is_such: fn(&GroupKind) -> bool) -> Vec<String> {
        self.pops.iter().copied().filter(is_such).map(|kind| runtime.pop_helper(kind)).collect()
    }

    fn has_masks(&self) -> bool {
        !self.masks.masks.is_empty() || self.has_packed_masks
    }

    fn pushes_by_mask(&self) -> bool {
        self.pushes.iter().any(|(_, masked, _)| *masked)
    }

    /// Where helpers that pop several values leave them: names and types.
    fn popped_globals(&self, runtime: &Runtime) -> Vec<(String, Type)> {
        let mut counts: BTreeMap<Type, usize> = BTreeMap::new();
        for &(type_, _, count) in self.pops.iter().filter(|(.., count)| *count > 1) {
            let most = counts.entry(type_).or_default();
            *most = count.max(*most);
        }
        let of_type = |(type_, count): (Type, usize)| (0..count).map(move |i| (runtime.popped_global(type_, i), type_));
        counts.into_iter().flat_map(of_type).collect()
    }
}

/// Adds globals, helpers and transitions to the module, and exports the transitions.
pub fn add<'m>(module: Module<'m>, runtime: &mut Runtime, needs: &RuntimeNeeds) -> Result<(), Error> {
    runtime.masks_in_table = needs.masks.shared;
    runtime.scratch = needs.scratch(runtime);
    runtime.on_the_way = needs.on_the_way(runtime);
    for (number, masks) in needs.masks.masks.iter().enumerate() {
        let chosen = choose_mask(module.build(), masks);
        let is_in_table = number < needs.masks.shared;
        let chosen = if is_in_table { runtime.guard_in_table(module.build(), chosen) } else { chosen };
        module.add_function(&runtime.mask_function(number as u32), Type::I32, Type::I64, chosen);
    }
    add_global_accessors(module, runtime, needs);
    needs.references.add_tables(module, |base| runtime.name(base));
    retry::add(module, runtime, &needs.retried);
    let text = Text::new(runtime, needs).module();
    module.merge_text(&text).map_err(|e| Error::Binaryen(format!("the helpers do not parse: {e}")))?;
    for name in [abi::UNWIND_BEGIN, abi::UNWIND_END, abi::REWIND_BEGIN, abi::REWIND_END, abi::STATE] {
        module.export_function(name, &runtime.name(transition(name)));
    }
    module.add_custom_section(abi::SECTION, &abi::section_data());
    Ok(())
}

/// Notes the results with references of all functions that can be unwound, and adds what returns a value for them.
pub fn add_default_results(module: Module<'_>, runtime: &mut Runtime, plans: &[&FunctionPlan]) -> Result<(), Error> {
    for plan in plans.iter().filter(|p| p.results.has_reference()) {
        if runtime.reference_results.contains(&plan.results) {
            continue;
        }
        if let Some(type_) = plan.results.components().into_iter().find(|t| t.is_beyond_casts()) {
            let (function, type_) = (plan.function.clone(), module.print_type(type_));
            return Err(Error::ResultBeyondCasts { function, type_ });
        }
        runtime.reference_results.push(plan.results);
        if plan.results.is_defaultable() {
            continue;
        }
        let Some(value) = module.make_default(plan.results) else {
            let (function, type_) = (plan.function.clone(), module.print_type(plan.results));
            return Err(Error::ResultWithoutDefault { function, type_ });
        };
        module.add_function(&runtime.default_helper(plan.results), Type::NONE, plan.results, value);
    }
    Ok(())
}

/// The ends of epilogues of functions with references among their results, whose types have no name in the text.
pub fn add_reference_finishers(module: Module<'_>, runtime: &Runtime) {
    let build = module.build();
    for &results in &runtime.reference_results {
        let name = runtime.finish_helper(results);
        let arguments = [build.local_get(0, Type::I32), build.local_get(1, Type::I32)];
        let again = build.call(&runtime.finish_again_helper((None, None)), &arguments, Type::I32);
        let next = runtime.call_next_frame(build, results);
        let params = Type::tuple(&[Type::I32, Type::I32]);
        module.add_function(&name, params, results, build.unreachable());
        let function = module.function(&name);
        let next = function.cast(module, next, results);
        let body = build.if_(again, next, Some(runtime.default_results(build, results)));
        function.set_body(body);
        function.refinalize(module);
    }
}

/// Functions that read and write globals of references, whose types have no name in the text.
fn add_global_accessors(module: Module<'_>, runtime: &Runtime, needs: &RuntimeNeeds) {
    let build = module.build();
    for (i, global) in needs.globals.iter().enumerate() {
        let type_ = Type::from_id(global.type_id);
        if type_.is_numeric() {
            continue;
        }
        let read = build.global_get(&global.name, type_);
        module.add_function(&runtime.name(&format!("read_global.{i}")), Type::NONE, type_.in_frame(), read);
        let name = runtime.name(&format!("write_global.{i}"));
        module.add_function(&name, type_.in_frame(), Type::NONE, build.nop());
        let function = module.function(&name);
        let value = function.cast(module, build.local_get(0, type_.in_frame()), type_);
        function.set_body(build.global_set(&global.name, value));
    }
}

/// Masks that are computed from each other at most.
const MASK_CHAIN: usize = 16;

/// A `br_table` on the site, to each of the different masks. They are in ascending order, and each is computed from the next
/// one, whose highest bits are mostly the same: what is different takes fewer bytes.
///
/// ```text
/// (i64.xor
///   (block $mask.1 (result i64)
///     (i64.xor
///       (block $mask.0 (result i64)
///         (br_table $mask.1 $mask.0 (i64.const 0) (local.get $site)))
///       (i64.const DIFFERENCE)))
///   (i64.const MASK))
/// ```
fn choose_mask<'m>(build: Builder<'m>, masks: &[u64]) -> Expr<'m> {
    let mut different: Vec<u64> = masks.to_vec();
    different.sort_unstable();
    different.dedup();
    let target = |mask: &u64| format!("mask.{}", different.binary_search(mask).expect("it is one of them"));
    let targets: Vec<String> = masks.iter().map(target).collect();
    let [targets @ .., default] = targets.as_slice() else { unreachable!("a function with masks has sites") };
    let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
    let site = build.local_get(0, Type::I32);
    let mut code = build.switch_with(&targets, default, site, build.i64(0));
    for (number, &mask) in different.iter().enumerate() {
        let block = build.block(Some(&format!("mask.{number}")), &[code], Some(Type::I64));
        let next = different.get(number + 1).filter(|_| (number + 1) % MASK_CHAIN != 0);
        code = build.i64_xor(block, build.i64(mask ^ next.unwrap_or(&0)));
        if next.is_none() && number + 1 < different.len() {
            code = build.return_(Some(code));
        }
    }
    code
}

/// The internal name of an exported transition.
fn transition(export: &str) -> &str {
    match export {
        abi::STATE => "get_state",
        other => other.trim_start_matches("wpk_fork_"),
    }
}

fn masked_infix(masked: bool) -> &'static str {
    if masked { "masked_" } else { "" }
}

pub(super) fn keyword(type_: Type) -> &'static str {
    type_.keyword().expect("it is a number or the top of a hierarchy")
}

pub fn quoted(name: &str) -> String {
    let mut text = String::from("$\"");
    for byte in name.bytes() {
        match byte {
            b'"' | b'\\' => text.extend(['\\', byte as char]),
            0x20..=0x7e => text.push(byte as char),
            _ => write!(text, "\\{byte:02x}").expect("writing to a string cannot fail"),
        }
    }
    text + "\""
}
