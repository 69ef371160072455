//! References in frames, each as a number of four bytes.
//!
//! | reference | number | below it in the frame |
//! | --- | --- | --- |
//! | null | -1 | |
//! | i31 | its value, unsigned | |
//! | function, extern, any | its index in the exported table of its hierarchy | |
//! | exception | the number of its tag in the module | the payload |
//! | exception of another tag | -2, -3, …: the global that keeps it | |
//!
//! A table's entries are used from below and never cleared, so that one buffer can be rewound any number of times;
//! `unwind_begin` starts over. When a table cannot grow, the reference goes to a spare entry, of which there are enough
//! for one frame, and the frame counts as one that does not fit: the stack is wound back in this instance. So it goes
//! for exceptions that cannot be taken apart, with globals for spare entries.
//!
//! The table of functions starts with all functions that the module refers to. So a host can carry it over: an entry
//! that a fresh instance has not null stands for the same function there as here.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::abi;
use crate::analysis::fork_path::ForkPath;
use crate::ir::{Expr, Function, Kind};
use crate::ir::{GlobalRow, Hierarchy, Module, TagRow, Type};
use crate::plan::{Capture, FunctionPlan, Rebuild, Site};
use crate::transform::FunctionCx;
use crate::transform::runtime::{default_value, keyword};

/// What references need of the runtime.
#[derive(Default)]
pub struct ReferenceNeeds {
    /// For each hierarchy that is kept in a table: how many references one frame can hold, or all globals.
    pub tables: BTreeMap<Hierarchy, u32>,
    /// How many exceptions one frame can hold; none if there are none in frames.
    pub exceptions: u32,
    pub i31: bool,
    /// Tags whose exceptions can be taken apart.
    pub tags: Vec<TagRow>,
    /// Functions that the table of functions starts with.
    pub functions: Vec<String>,
}

impl ReferenceNeeds {
    pub fn of(module: Module<'_>, path: &ForkPath, plans: &[&FunctionPlan], globals: &[GlobalRow]) -> ReferenceNeeds {
        let mut needs = ReferenceNeeds::default();
        for plan in plans {
            let mut held: BTreeMap<Hierarchy, u32> = BTreeMap::new();
            for type_ in plan.frame.iter().flat_map(|slot| slot.type_.components()) {
                *held.entry(type_.hierarchy()).or_default() += 1;
            }
            for (hierarchy, count) in held {
                needs.hold(hierarchy, count);
            }
        }
        // `unwind_begin` saves all of them, one after another.
        let mut saved: BTreeMap<Hierarchy, u32> = BTreeMap::new();
        for global in globals {
            *saved.entry(Type::from_id(global.type_id).hierarchy()).or_default() += 1;
        }
        for (hierarchy, count) in saved {
            needs.hold(hierarchy, count);
        }
        if needs.exceptions > 0 {
            let several = module.facts().multivalue;
            let is_plain = |tag: &TagRow| {
                let payload = Type::from_id(tag.params).components();
                !tag.suspends && payload.iter().all(|t| t.is_numeric()) && (several || payload.len() <= 1)
            };
            needs.tags = module.tags().into_iter().filter(is_plain).collect();
        }
        if needs.tables.contains_key(&Hierarchy::Function) {
            needs.functions = path.referenced_functions();
        }
        needs
    }

    fn hold(&mut self, hierarchy: Hierarchy, count: u32) {
        match hierarchy {
            Hierarchy::None | Hierarchy::Other => {}
            Hierarchy::I31 => self.i31 = true,
            Hierarchy::Exception => self.exceptions = self.exceptions.max(count),
            Hierarchy::Function | Hierarchy::Extern | Hierarchy::Any => {
                let most = self.tables.entry(hierarchy).or_default();
                *most = count.max(*most);
            }
        }
    }

    /// Bytes of the largest payload.
    pub fn payload_bytes(&self) -> u32 {
        self.tags.iter().map(payload_bytes).max().unwrap_or(0)
    }

    fn spare(&self, hierarchy: Hierarchy) -> u32 {
        if hierarchy == Hierarchy::Function { self.functions.len() as u32 } else { 0 }
    }

    /// The first index in a table that is not a function's or a spare one.
    fn first(&self, hierarchy: Hierarchy) -> u32 {
        self.spare(hierarchy) + self.tables[&hierarchy]
    }

    pub fn add_tables(&self, module: Module<'_>, name: impl Fn(&str) -> String) {
        for &hierarchy in self.tables.keys() {
            let functions: &[String] = if hierarchy == Hierarchy::Function { &self.functions } else { &[] };
            let keyword = heap_keyword(hierarchy);
            let table = name(&format!("refs_{keyword}"));
            let export = format!("{}{keyword}", abi::REFS);
            module.add_reference_table(&table, &export, hierarchy, self.first(hierarchy), functions);
        }
    }

    /// What `unwind_begin` does first.
    pub fn reset(&self, id: impl Fn(&str) -> String) -> String {
        let mut text = String::new();
        for &hierarchy in self.tables.keys() {
            let keyword = heap_keyword(hierarchy);
            let (next, spare) = (id(&format!("next_{keyword}")), id(&format!("spare_{keyword}")));
            text += &format!("(global.set {next} (i32.const {}))\n  ", self.first(hierarchy));
            text += &format!("(global.set {spare} (i32.const {}))\n  ", self.spare(hierarchy));
        }
        if self.exceptions > 0 {
            text += &format!("(global.set {} (i32.const 0))\n  ", id("spare_exn"));
        }
        text
    }

    /// Imports, globals and helpers in the text format. `memory` and `ptr` are those of the frames.
    pub fn text(&self, id: impl Fn(&str) -> String, memory: &str, ptr: &str) -> (String, String) {
        let text = ReferenceText { needs: self, id: &id, memory, ptr };
        let (mut imports, mut items) = (String::new(), String::new());
        for &hierarchy in self.tables.keys() {
            text.table(hierarchy, &mut imports, &mut items);
        }
        if self.i31 {
            items += &text.i31();
        }
        if self.exceptions > 0 {
            text.exceptions(&mut imports, &mut items);
        }
        (imports, items)
    }
}

fn payload_bytes(tag: &TagRow) -> u32 {
    Type::from_id(tag.params).components().into_iter().map(Type::size).sum()
}

/// The name of a top type in the text format.
fn heap_keyword(hierarchy: Hierarchy) -> &'static str {
    keyword(hierarchy.top()).trim_end_matches("ref")
}

/// Names of the helpers that turn a reference into its number and back.
pub fn encode_helper(type_: Type) -> String {
    format!("encode_{}", keyword(type_))
}

pub fn decode_helper(type_: Type) -> String {
    format!("decode_{}", keyword(type_))
}

struct ReferenceText<'a> {
    needs: &'a ReferenceNeeds,
    id: &'a dyn Fn(&str) -> String,
    memory: &'a str,
    ptr: &'a str,
}

impl ReferenceText<'_> {
    fn id(&self, base: &str) -> String {
        (self.id)(base)
    }

    fn encode(&self, hierarchy: Hierarchy) -> String {
        self.id(&encode_helper(hierarchy.top()))
    }

    fn decode(&self, hierarchy: Hierarchy) -> String {
        self.id(&decode_helper(hierarchy.top()))
    }

    /// Makes the frame that is being pushed one that does not fit.
    fn give_up(&self) -> String {
        format!("(global.set {} ({}.const 0))", self.id("limit"), self.ptr)
    }

    fn table(&self, hierarchy: Hierarchy, imports: &mut String, items: &mut String) {
        let (type_, heap) = (keyword(hierarchy.top()), heap_keyword(hierarchy));
        let (table, next, spare) =
            (self.id(&format!("refs_{heap}")), self.id(&format!("next_{heap}")), self.id(&format!("spare_{heap}")));
        let (encode, decode, give_up) = (self.encode(hierarchy), self.decode(hierarchy), self.give_up());
        *imports += &format!("(import \"\" \"refs_{heap}\" (table {table} 0 {type_}))\n");
        *items += &format!(
            "(global {next} (mut i32) (i32.const 0))
(global {spare} (mut i32) (i32.const 0))
(func {encode} (param $value {type_}) (result i32) (local $at i32)
  (if (ref.is_null (local.get $value)) (then (return (i32.const -1))))
  (local.set $at (global.get {next}))
  (if (i32.eq (local.get $at) (table.size {table})) (then
    (if (i32.eq (i32.const -1) (table.grow {table} (ref.null {heap}) (i32.add (table.size {table}) (i32.const 16)))) (then
      (if (i32.eq (i32.const -1) (table.grow {table} (ref.null {heap}) (i32.const 1))) (then
        {give_up}
        (local.set $at (global.get {spare}))
        (global.set {spare} (i32.add (local.get $at) (i32.const 1)))
        (table.set {table} (local.get $at) (local.get $value))
        (return (local.get $at))))))))
  (global.set {next} (i32.add (local.get $at) (i32.const 1)))
  (table.set {table} (local.get $at) (local.get $value))
  (local.get $at))
(func {decode} (param $code i32) (result {type_})
  (if (i32.lt_s (local.get $code) (i32.const 0)) (then (return (ref.null {heap}))))
  (table.get {table} (local.get $code)))
"
        );
    }

    fn i31(&self) -> String {
        let (encode, decode) = (self.encode(Hierarchy::I31), self.decode(Hierarchy::I31));
        format!(
            "(func {encode} (param $value i31ref) (result i32)
  (if (ref.is_null (local.get $value)) (then (return (i32.const -1))))
  (i31.get_u (local.get $value)))
(func {decode} (param $code i32) (result i31ref)
  (if (i32.lt_s (local.get $code) (i32.const 0)) (then (return (ref.null i31))))
  (ref.i31 (local.get $code)))
"
        )
    }

    fn exceptions(&self, imports: &mut String, items: &mut String) {
        for (i, tag) in self.needs.tags.iter().enumerate() {
            let params: Vec<&str> = Type::from_id(tag.params).components().into_iter().map(keyword).collect();
            let name = crate::transform::runtime::quoted(&tag.name);
            *imports += &format!("(import \"\" \"tag{i}\" (tag {name} (param {})))\n", params.join(" "));
        }
        *items += &format!("(global {} (mut i32) (i32.const 0))\n", self.id("spare_exn"));
        for i in 0..self.needs.exceptions {
            *items += &format!("(global {} (mut exnref) (ref.null exn))\n", self.id(&format!("kept_exn.{i}")));
        }
        *items += &self.take_apart();
        *items += &self.put_together();
    }

    fn tag(&self, i: usize) -> String {
        crate::transform::runtime::quoted(&self.needs.tags[i].name)
    }

    fn position(&self) -> String {
        format!("(global.get {})", self.id("position"))
    }

    fn move_position(&self, bytes: i64) -> String {
        let ptr = self.ptr;
        format!("(global.set {} ({ptr}.add {} ({ptr}.const {bytes})))", self.id("position"), self.position())
    }

    /// Rethrows the exception to see its tag, and writes its payload at the position.
    fn take_apart(&self) -> String {
        let (encode, spare, give_up) = (self.encode(Hierarchy::Exception), self.id("spare_exn"), self.give_up());
        let mut clauses = String::new();
        let mut locals: BTreeMap<&str, usize> = BTreeMap::new();
        for (i, tag) in self.needs.tags.iter().enumerate() {
            clauses += &format!("(catch {} $tag{i}) ", self.tag(i));
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            for type_ in Type::from_id(tag.params).components() {
                *counts.entry(keyword(type_)).or_default() += 1;
            }
            for (type_, count) in counts {
                let most = locals.entry(type_).or_default();
                *most = count.max(*most);
            }
        }
        let rethrow =
            format!("(try_table {clauses}(catch_all $foreign) (throw_ref (local.get $value)))\n    (unreachable)");
        // Blocks around it, one for each tag, and what comes after each.
        let (mut blocks, mut ends) = (Vec::new(), String::new());
        for (i, tag) in self.needs.tags.iter().enumerate() {
            let payload = Type::from_id(tag.params).components();
            let types: Vec<&str> = payload.iter().map(|&t| keyword(t)).collect();
            let result = if types.is_empty() { String::new() } else { format!("(result {})", types.join(" ")) };
            let mut used: BTreeMap<&str, usize> = BTreeMap::new();
            let variables: Vec<String> = types
                .iter()
                .map(|&t| {
                    let n = used.entry(t).or_default();
                    *n += 1;
                    format!("${t}.{}", *n - 1)
                })
                .collect();
            let mut after = String::new();
            for variable in variables.iter().rev() {
                after += &format!("(local.set {variable})\n  ");
            }
            let mut offset = 0;
            for (&type_, variable) in payload.iter().zip(&variables) {
                let (keyword, memory, position) = (keyword(type_), self.memory, self.position());
                after += &format!(
                    "({keyword}.store {memory} offset={offset} align=1 {position} (local.get {variable}))\n  "
                );
                offset += type_.size();
            }
            after += &format!("{}\n  (return (i32.const {i}))", self.move_position(i64::from(offset)));
            blocks.push(format!("(block $tag{i} {result}\n  "));
            ends += &format!(")\n  {after}");
        }
        blocks.reverse();
        let body = blocks.concat() + &rethrow + &ends;
        let mut variables = String::new();
        for (type_, count) in locals {
            for i in 0..count {
                variables += &format!(" (local ${type_}.{i} {type_})");
            }
        }
        let mut keep = String::new();
        for i in 0..self.needs.exceptions {
            keep += &format!(
                "(if (i32.eq (local.get $at) (i32.const {i})) (then (global.set {} (local.get $value))))\n  ",
                self.id(&format!("kept_exn.{i}"))
            );
        }
        format!(
            "(func {encode} (param $value exnref) (result i32) (local $at i32){variables}
  (if (ref.is_null (local.get $value)) (then (return (i32.const -1))))
  (block $foreign
  {body})
  {give_up}
  (local.set $at (global.get {spare}))
  (global.set {spare} (i32.add (local.get $at) (i32.const 1)))
  {keep}(i32.sub (i32.const -2) (local.get $at)))
"
        )
    }

    /// Throws the exception again, with the payload below the position, and catches it by reference.
    fn put_together(&self) -> String {
        let decode = self.decode(Hierarchy::Exception);
        let mut kept = String::new();
        for i in 0..self.needs.exceptions {
            kept += &format!(
                "(if (i32.eq (local.get $code) (i32.const {})) (then (return (global.get {}))))\n  ",
                -2 - i64::from(i),
                self.id(&format!("kept_exn.{i}"))
            );
        }
        let mut throws = String::new();
        for (i, tag) in self.needs.tags.iter().enumerate() {
            let mut operands = String::new();
            let mut offset = 0;
            for type_ in Type::from_id(tag.params).components() {
                let (keyword, memory, position) = (keyword(type_), self.memory, self.position());
                operands += &format!(" ({keyword}.load {memory} offset={offset} align=1 {position})");
                offset += type_.size();
            }
            let back = self.move_position(-i64::from(offset));
            throws += &format!(
                "(if (i32.eq (local.get $code) (i32.const {i})) (then {back} (throw {}{operands})))\n      ",
                self.tag(i)
            );
        }
        format!(
            "(func {decode} (param $code i32) (result exnref)
  (if (i32.eq (local.get $code) (i32.const -1)) (then (return (ref.null exn))))
  {kept}(block $caught (result exnref)
    (try_table (catch_all_ref $caught)
      {throws})
    (unreachable)))
"
        )
    }
}

/// A reference's number goes to the position: the text that computes it, and the keyword of its store.
pub fn storage(type_: Type) -> Type {
    if type_.is_numeric() { type_ } else { Type::I32 }
}

/// Null, or zero.
pub fn null_or_zero(type_: Type) -> String {
    if type_.is_numeric() { default_value(type_) } else { format!("(ref.null {})", heap_keyword(type_.hierarchy())) }
}

/// The expressions that make references again. Before anything else is changed in the function.
pub fn replays<'m>(module: Module<'m>, function: Function<'m>, plan: &FunctionPlan) -> Vec<Expr<'m>> {
    if plan.rebuilds.is_empty() {
        return Vec::new();
    }
    let build = module.build();
    let nodes = function.nodes();
    let replay = |rebuild: &Rebuild| match rebuild.row {
        Some(row) => {
            let capture: Vec<u32> = rebuild.capture.into_iter().collect();
            module.make_replay(nodes[row as usize].expr(), &capture)
        }
        None => build.zero(plan.local_type(rebuild.local)).expect("a variable that was not set has a default"),
    };
    plan.rebuilds.iter().map(replay).collect()
}

/// Keeps the numbers that references are made again of, where they are computed. Before anything else is changed in the
/// function, but for what it has [`replays`] of.
pub fn keep_captures<'m>(module: Module<'m>, function: Function<'m>, plan: &FunctionPlan) {
    if plan.captures.is_empty() {
        return;
    }
    let nodes = function.nodes();
    for &Capture { row, local } in &plan.captures {
        let node = &nodes[row as usize];
        let parent = nodes[node.parent as usize].expr();
        let tee = module.build().local_tee(local, node.expr(), plan.local_type(local));
        parent.set_child(node.child, tee);
    }
}

/// Makes references again, depending on the site (a local) that is resumed.
pub fn rebuild<'m>(cx: &FunctionCx<'_, 'm>, expressions: &[Expr<'m>], site: Option<u32>) -> Vec<Expr<'m>> {
    let build = cx.build;
    let mut code = Vec::new();
    for (rebuild, &expression) in cx.plan.rebuilds.iter().zip(expressions) {
        let set = build.local_set(rebuild.local, expression);
        let is_everywhere = rebuild.sites.len() == cx.plan.landings.len();
        let Some(site) = site.filter(|_| !is_everywhere) else {
            code.push(set);
            continue;
        };
        code.push(build.if_(is_among(cx, site, &rebuild.sites), set, None));
    }
    code
}

/// Whether the site is one of these, which ascend and are not all. Neighbours are compared at once.
fn is_among<'m>(cx: &FunctionCx<'_, 'm>, site: u32, sites: &[Site]) -> Expr<'m> {
    let build = cx.build;
    let is_in = |range: &Range<u32>| {
        let site = build.local_get(site, Type::I32);
        match range.len() {
            1 => build.i32_eq(site, build.i32(range.start)),
            _ if range.end as usize == cx.plan.landings.len() => build.i32_ge_u(site, build.i32(range.start)),
            length => {
                let from = if range.start == 0 { site } else { build.i32_sub(site, build.i32(range.start)) };
                build.i32_lt_u(from, build.i32(length as u32))
            }
        }
    };
    let conditions = ranges(sites).iter().map(is_in).reduce(|a, b| build.i32_or(a, b));
    conditions.expect("a reference is made again for some site")
}

/// Sites that follow each other, together.
fn ranges(sites: &[Site]) -> Vec<Range<u32>> {
    let mut ranges: Vec<Range<u32>> = Vec::new();
    for &Site(site) in sites {
        match ranges.last_mut().filter(|range| range.end == site) {
            Some(range) => range.end += 1,
            None => ranges.push(site..site + 1),
        }
    }
    ranges
}

/// Locals of references that frames hold become nullable: a frame of another site does not hold them.
pub fn relax<'m>(module: Module<'m>, function: Function<'m>, plan: &FunctionPlan) {
    let held: Vec<u32> =
        plan.frame.iter().filter(|s| s.type_.hierarchy() != Hierarchy::None).map(|s| s.local).collect();
    if !held.is_empty() {
        function.make_nullable(module, &held);
    }
}

/// The kind of node that a held local's value is read by, for use while frames are pushed.
pub fn held_value<'m>(cx: &FunctionCx<'_, 'm>, local: u32) -> Expr<'m> {
    let type_ = cx.plan.local_type(local);
    let is_param = local < cx.function.num_params();
    let type_ = if is_param || type_.hierarchy() == Hierarchy::None { type_ } else { type_.nullable() };
    let get = cx.build.local_get(local, type_);
    debug_assert_eq!(get.kind(), Kind::LocalGet);
    get
}
