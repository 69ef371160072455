//! The text of the helpers that push and pop frames.

use crate::abi;
use crate::frame::{NO_SITE, WIDE_SITE, slot_size};
use crate::ir::Type;
use crate::plan::Masks;
use crate::transform::asserts::Assertion;
use crate::transform::epilogue::{EndKind, GroupKind};
use crate::transform::references;
use crate::transform::runtime::{ResumeTable, keyword, quoted};

use super::{Text, default_value, result_clause};

/// Moves all values of a group, with code that is given, or none, and returns, if `$bits` says that a frame holds all or
/// none of them.
fn unless_mixed(count: usize, all: &str, result: &str) -> String {
    format!(
        "  (if (i32.eq (local.get $bits) (i32.const {every})) (then
{all}
  (return {result})))
  (if (i32.eqz (local.get $bits)) (then (return {result})))\n",
        every = (1 << count) - 1
    )
}

impl Text<'_> {
    /// Pushes `$site` and `$function` at `$at`, and returns if the frame fits; else the module is aborting.
    fn finish_frame(&self, result: &str) -> String {
        let (ptr, memory) = (self.ptr, &self.memory);
        let sites = self.needs.sites;
        let bytes = self.needs.layout.function_bytes;
        let store = if bytes == 2 { "i32.store16" } else { "i32.store" };
        let not_unwinding = format!("(i32.ne (global.get {}) (i32.const 1))", self.id("state"));
        let step = |bytes: u32| format!("({ptr}.add (local.get $at) ({ptr}.const {bytes}))");
        let narrow = format!("(i32.store8 {memory} (local.get $at) (local.get $site))");
        // Bytes of all sites, if they all take as many.
        let (push_site, pushed) = match (sites.single, sites.several) {
            (true, false) => (String::new(), 0),
            (false, true) if !sites.wide => (narrow, 1),
            _ => {
                let wide = format!(
                    "(if (i32.ge_u (local.get $site) (i32.const {WIDE_SITE})) (then
      (i32.store16 {memory} align=1 (local.get $at) (local.get $site))
      (local.set $at {})
      (local.set $site (i32.const {WIDE_SITE}))))",
                    step(2)
                );
                let code = format!(
                    "(if (i32.ne (local.get $site) (i32.const {NO_SITE})) (then
    {wide}
    {narrow}
    (local.set $at {})))",
                    step(1),
                    wide = if sites.wide { wide } else { String::new() },
                );
                (code, 0)
            }
        };
        format!(
            "{still_rewinding}
  {push_site}
  ({store} {memory} offset={pushed} align=1 (local.get $at) {function})
  (global.set {position} (local.tee $at {end}))
  (if ({ptr}.le_u (local.get $at) (global.get {limit})) (then (return {result})))
  {aborting}",
            still_rewinding = Assertion::StillRewinding.check(self.runtime, &not_unwinding),
            position = self.id("position"),
            function = self.in_frames("(local.get $function)"),
            end = step(pushed + bytes),
            limit = self.id("limit"),
            aborting = self.set_state(abi::State::Aborting),
        )
    }

    /// Makes what a mask function gives for the site the current mask for pushing.
    pub(super) fn select_mask(&mut self) {
        let pushed = quoted(&self.runtime.pushed_mask());
        let name = quoted(&self.runtime.select_mask_helper(Masks::Function(0, 0)));
        let number = "(i32.shr_u (local.get $masks) (i32.const 6))";
        let mask = match &self.runtime.table {
            ResumeTable::Table { name: table, base, is64 } => {
                let first = base + self.runtime.resume_names.len() as u64;
                let index = self.in_frames(&format!("(i32.add {number} (i32.const {first}))"));
                let index = if *is64 { format!("(i64.extend_i32_u {index})") } else { index };
                format!("(call_indirect {} (param i32) (result i64) (local.get $site) {index})", quoted(table))
            }
            ResumeTable::Switch => {
                let functions: Vec<String> = self.runtime.mask_functions_in_table().collect();
                let labels: String = (0..functions.len()).map(|i| format!(" $m{i}")).collect();
                let blocks: String = (0..functions.len()).rev().map(|i| format!("(block $m{i} ")).collect();
                let call = |f: &String| format!("(br $mask (call {} (local.get $site)))", quoted(f));
                let calls: String = functions.iter().map(|f| format!(")\n    {}", call(f))).collect();
                format!("(block $mask (result i64)\n    {blocks}(br_table {labels} {number}){calls})")
            }
        };
        self.line(&format!(
            "(func {name} (param $site i32) (param $masks i32) (result i32)
  (global.set {pushed} (i64.shl {mask}
    (i64.extend_i32_u (i32.sub (i32.const 63) (i32.and (local.get $masks) (i32.const 63))))))
  (local.get $site))",
        ));
    }

    /// Takes a site's mask out of the number that holds them all: to push, and to pop, with the header before it. The
    /// site is narrow, or the masks of all sites would not fit in a number.
    pub(super) fn packed_masks(&mut self) {
        let (pushed, popped) = (quoted(&self.runtime.pushed_mask()), quoted(&self.runtime.popped_mask()));
        let unpack = quoted(&self.runtime.select_mask_helper(Masks::Packed(0, 0)));
        let pop = quoted(&self.runtime.pop_packed_helper());
        let highest_first = "(i64.shl
      (i64.shr_u (local.get $masks) (i64.extend_i32_u (i32.mul (local.get $site) (local.get $bits))))
      (local.tee $unused_bits (i64.extend_i32_u (i32.sub (i32.const 64) (local.get $bits)))))";
        let unpack = format!(
            "(func {unpack} (param $site i32) (param $masks i64) (param $bits i32) (result i32) (local $unused_bits i64)
  (global.set {pushed} {highest_first})
  (local.get $site))"
        );
        if self.needs.unpacks_masks {
            self.line(&unpack);
        }
        let (ptr, memory, position) = (self.ptr, &self.memory, self.id("position"));
        let line = format!(
            "(func {pop} (param $masks i64) (param $bits i32) (result i32)
    (local $site i32) (local $at {ptr}) (local $unused_bits i64)
  {guard}(global.set {position} (local.tee $at ({ptr}.sub (global.get {position}) ({ptr}.const {header}))))
  (local.set $site (i32.load8_u {memory} (local.get $at)))
  (global.set {popped} (i64.shr_u {highest_first} (local.get $unused_bits)))
  (local.get $site))",
            guard = self.start_header(),
            header = 1 + self.needs.layout.function_bytes,
        );
        self.line(&line);
    }

    /// Stores values at the position and moves it. Masked: by the mask's highest bits, which are then shifted out.
    pub(super) fn push(&mut self, kind: GroupKind) {
        let (type_, masked, count) = kind;
        let name = quoted(&self.runtime.push_helper(kind));
        let mut text = self.start_push(&name, kind, "(result i32)");
        if masked {
            let mask = quoted(&self.runtime.pushed_mask());
            text += &format!("  (global.set {mask} (i64.shl (global.get {mask}) (i64.const {count})))\n");
        }
        if masked && count > 1 && type_.is_numeric() {
            let all = (type_, false, count);
            let end = self.end_of_values(all);
            let stored = self.store_values(all) + &format!("  (global.set {} {end})", self.id("position"));
            text += &unless_mixed(count, &stored, "(local.get $site)");
        }
        text += &self.store_values(kind);
        if type_.is_numeric() {
            let end = self.end_of_values(kind);
            text += &format!("  (global.set {} {end})\n", self.id("position"));
        }
        self.line(&format!("{text}  (local.get $site))"));
    }

    /// The end of an epilogue of a resume function: pushes the header, and says whether the frame did not fit, or resumes
    /// the function again then.
    pub(super) fn finish_again(&mut self, (last, results): EndKind) {
        let name = quoted(&self.runtime.finish_again_helper((last, results)));
        let Some(results) = results else {
            let start = self.start_finish(&name, last, "(result i32)");
            return self.line(&format!("{start}  {}\n  (i32.const 1))", self.finish_frame("(i32.const 0)")));
        };
        let start = self.start_finish(&name, last, &format!("(param $again i32) {}", result_clause(results)));
        let default: String = results.components().into_iter().map(default_value).collect();
        let retry = quoted(&self.runtime.retry_helper(results));
        self.line(&format!("{start}  {}\n  (call {retry} (local.get $again)))", self.finish_frame(&default)));
    }

    /// The start of a function that takes the site, the last values of a frame, and the function's number: stores the
    /// values, which have no mask, and sets `$at` to where the header goes.
    fn start_finish(&self, name: &str, last: Option<GroupKind>, results: &str) -> String {
        let more = format!("(param $function i32) {results}");
        match last {
            Some(kind) => {
                let stored = self.start_push(name, kind, &more) + &self.store_values(kind);
                stored + &format!("  (local.set $at {})\n", self.end_of_values(kind))
            }
            None => format!(
                "(func {name} (param $site i32) {more} (local $at {ptr})\n  (local.set $at {position})\n",
                ptr = self.ptr,
                position = self.position(),
            ),
        }
    }

    /// The start of a function that takes the site and values, and what else it takes and gives.
    fn start_push(&self, name: &str, (type_, masked, count): GroupKind, more: &str) -> String {
        let mut text = format!("(func {name} (param $site i32)");
        for i in 0..count {
            text += &format!(" (param $v{i} {})", keyword(type_));
        }
        text += more;
        text += &if type_.is_numeric() { format!(" (local $at {})", self.ptr) } else { " (local $code i32)".into() };
        if masked {
            let mask = quoted(&self.runtime.pushed_mask());
            let bits = format!("(i32.wrap_i64 (i64.shr_u (global.get {mask}) (i64.const {})))", 64 - count);
            text += &format!(" (local $bits i32)\n  (local.set $bits {bits})");
        }
        if type_.is_numeric() {
            text += &format!("\n  (local.set $at {})", self.position());
        }
        text + "\n"
    }

    /// Where numbers that are stored from `$at` on end: only those that are masked move it.
    fn end_of_values(&self, (type_, masked, count): GroupKind) -> String {
        let (ptr, bytes) = (self.ptr, u64::from(slot_size(type_)) * count as u64);
        if masked { "(local.get $at)".into() } else { format!("({ptr}.add (local.get $at) ({ptr}.const {bytes}))") }
    }

    fn store_values(&self, (type_, masked, count): GroupKind) -> String {
        let (ptr, memory, size) = (self.ptr, &self.memory, slot_size(type_));
        let stored = keyword(references::storage(type_));
        // The payload of an exception is pushed by the call that encodes it.
        let is_number = type_.is_numeric();
        let mut text = String::new();
        for i in 0..count {
            let offset = if is_number && !masked { i as u32 * size } else { 0 };
            let mut value = format!("(local.get $v{i})");
            let mut store = String::new();
            if !type_.is_numeric() {
                let encode = self.id(&references::encode_helper(type_));
                store = format!("(local.set $code (call {encode} {value}))");
                value = "(local.get $code)".into();
            }
            let at = if is_number { "(local.get $at)".into() } else { self.position() };
            store += &format!("({stored}.store {memory} offset={offset} align=1 {at} {value})");
            if !is_number {
                store += &self.move_position(i64::from(size));
            } else if masked {
                store += &format!("(local.set $at ({ptr}.add (local.get $at) ({ptr}.const {size})))");
            }
            if masked {
                let bit = 1 << (count - 1 - i);
                text += &format!("  (if (i32.and (local.get $bits) (i32.const {bit})) (then {store}))\n");
            } else {
                text += &format!("  {store}\n");
            }
        }
        text
    }

    /// Moves the position back over a value and loads it. Masked: if the mask's lowest bit is set, which is then shifted
    /// out.
    pub(super) fn pop(&mut self, kind: GroupKind) {
        let (type_, masked, _) = kind;
        let (name, memory) = (quoted(&self.runtime.pop_helper(kind)), self.memory.clone());
        let (ptr, position, mask) = (self.ptr, self.id("position"), quoted(&self.runtime.popped_mask()));
        let (value_type, stored) = (keyword(type_), keyword(references::storage(type_)));
        let size = slot_size(type_);
        let test = format!(
            "(local $mask i64)
  (local.set $mask (global.get {mask}))
  (global.set {mask} (i64.shr_u (local.get $mask) (i64.const 1)))
  (if (i32.eqz (i32.and (i32.wrap_i64 (local.get $mask)) (i32.const 1))) (then (return {})))
  ",
            references::null_or_zero(type_)
        );
        let mut value = format!("({stored}.load {memory} align=1 (local.get $at))");
        if !type_.is_numeric() {
            value = format!("(call {} {value})", self.id(&references::decode_helper(type_)));
        }
        let test = if masked { test.as_str() } else { "" };
        self.line(&format!(
            "(func {name} (result {value_type}) (local $at {ptr}) {test}
  (global.set {position} (local.tee $at ({ptr}.sub (global.get {position}) ({ptr}.const {size}))))
  {value})"
        ));
    }

    /// Pops numbers and leaves them in globals. Masked: by the mask's lowest bits, which are then shifted out.
    pub(super) fn pop_several(&mut self, kind: GroupKind) {
        let (type_, masked, count) = kind;
        let (name, memory) = (quoted(&self.runtime.pop_helper(kind)), self.memory.clone());
        let (ptr, position, mask) = (self.ptr, self.id("position"), quoted(&self.runtime.popped_mask()));
        let (value_type, size) = (keyword(type_), slot_size(type_) as usize);
        let load = |global: usize, at: &str, offset: usize| {
            let global = quoted(&self.runtime.popped_global(type_, global));
            format!("(global.set {global} ({value_type}.load {memory} offset={offset} align=1 {at}))")
        };
        let back = |bytes: usize| format!("(local.tee $at ({ptr}.sub (local.get $at) ({ptr}.const {bytes})))");
        let moved = format!("  (global.set {position} (local.get $at))");
        let mut all = format!("  {}\n", load(0, &back(size * count), size * (count - 1)));
        for i in 1..count {
            all += &format!("  {}\n", load(i, "(local.get $at)", size * (count - 1 - i)));
        }
        all += &moved;
        let start = format!("  (local.set $at (global.get {position}))");
        if !masked {
            self.line(&format!("(func {name} (local $at {ptr})\n{start}\n{all})"));
            return;
        }
        let held = |i: usize| format!("(i32.and (local.get $bits) (i32.const {}))", 1 << i);
        let each: String =
            (0..count).map(|i| format!("  (if {} (then {}))\n", held(i), load(i, &back(size), 0))).collect();
        self.line(&format!(
            "(func {name} (local $at {ptr}) (local $bits i32)
  (local.set $bits (i32.and (i32.wrap_i64 (global.get {mask})) (i32.const {lowest})))
  (global.set {mask} (i64.shr_u (global.get {mask}) (i64.const {count})))
{start}
{unless_mixed}{each}{moved})",
            lowest = (1 << count) - 1,
            unless_mixed = unless_mixed(count, &all, ""),
        ));
    }

    /// The end of an epilogue: pushes the header, and returns a default; or, when the frame did not fit, what the
    /// resume function returns after the frames saved so far have been rewound.
    pub(super) fn finish(&mut self, results: Type) {
        let name = quoted(&self.runtime.finish_helper(results));
        let default: Vec<String> = results.components().into_iter().map(default_value).collect();
        let default = default.join(" ");
        let clause = result_clause(results);
        let next_frame = self.call_next_frame(results);
        let start = self.start_finish(&name, None, &clause);
        self.line(&format!("{start}  {}\n  {next_frame})", self.finish_frame(&default)));
    }

    /// Where a frame that was stored in line does not fit: goes back to those inside of it.
    pub(super) fn abort(&mut self, results: Type) {
        let name = quoted(&self.runtime.abort_helper(results));
        let (clause, next_frame) = (result_clause(results), self.call_next_frame(results));
        let aborting = self.set_state(abi::State::Aborting);
        self.line(&format!("(func {name} {clause}\n  {aborting}\n  {next_frame})"));
    }
}
