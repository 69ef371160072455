//! The text of the helpers and of the transitions.

use crate::abi;
use crate::frame::{WIDE_SITE, slot_size};
use crate::ir::Type;
use crate::options::Sharing;
use crate::transform::asserts::{self, Assertion};
use crate::transform::linking;
use crate::transform::references;
use crate::transform::runtime::{ResumeTable, Runtime, RuntimeNeeds, keyword, quoted};

mod frames;

pub(super) struct Text<'a> {
    runtime: &'a Runtime,
    needs: &'a RuntimeNeeds,
    /// The pointer type's keyword.
    ptr: &'static str,
    memory: String,
    out: String,
}

impl<'a> Text<'a> {
    pub(super) fn new(runtime: &'a Runtime, needs: &'a RuntimeNeeds) -> Self {
        Text {
            runtime,
            needs,
            ptr: keyword(runtime.pointer()),
            memory: quoted(&runtime.memory.name),
            out: String::new(),
        }
    }

    pub(super) fn module(mut self) -> String {
        self.line("(module");
        self.imports();
        let (imports, references) = self.needs.references.text(|base| self.id(base), &self.memory, self.ptr);
        self.line(&imports);
        self.globals();
        self.line(&references);
        self.transitions();
        self.headers();
        if self.runtime.asserts {
            self.check_frame();
        }
        if self.needs.masks.shared > 0 {
            self.select_mask();
        }
        if self.needs.has_packed_masks {
            self.packed_masks();
        }
        for &kind in &self.needs.pushes {
            self.push(kind);
        }
        for &kind in &self.needs.ends {
            self.finish_again(kind);
        }
        for &kind in &self.needs.pops {
            match kind.2 {
                1 => self.pop(kind),
                _ => self.pop_several(kind),
            }
        }
        for &results in &self.needs.finishes {
            self.finish(results);
        }
        for &results in &self.needs.aborted {
            self.abort(results);
        }
        if self.runtime.table == ResumeTable::Switch {
            for &results in &self.needs.resumed_results {
                self.resume_switch(results);
            }
        }
        self.line(")");
        self.out
    }

    fn line(&mut self, line: &str) {
        self.out += line;
        self.out.push('\n');
    }

    /// A name of ours as an identifier.
    fn id(&self, base: &str) -> String {
        quoted(&self.runtime.name(base))
    }

    fn position(&self) -> String {
        format!("(global.get {})", self.id("position"))
    }

    fn set_state(&self, state: abi::State) -> String {
        format!("(global.set {} (i32.const {}))", self.id("state"), state as u32)
    }

    /// Moves the position up by some bytes, or down if negative.
    fn move_position(&self, bytes: i64) -> String {
        let ptr = self.ptr;
        format!("(global.set {} ({ptr}.add {} ({ptr}.const {bytes})))", self.id("position"), self.position())
    }

    fn imports(&mut self) {
        let address = if self.runtime.memory.is64 { "i64" } else { "" };
        let shared = if self.runtime.memory.shared { "1 shared" } else { "" };
        let memory = self.memory.clone();
        self.line(&format!("(import \"\" \"memory\" (memory {memory} {address} 0 {shared}))"));
        let line = format!("(import \"\" \"state\" (global {} (mut i32)))", self.id("state"));
        self.line(&line);
        self.out += &asserts::imports(self.runtime);
        for &results in self.needs.retried.iter().filter(|results| !results.has_reference()) {
            let name = quoted(&self.runtime.retry_helper(results));
            self.line(&format!("(import \"\" \"retry\" (func {name} (param i32) {}))", result_clause(results)));
        }
        if self.runtime.has_drops {
            self.line(&format!("(import \"\" \"drop_again\" (func {}))", self.id("drop_again")));
        }
        if let Some(base) = linking::base_global(self.runtime) {
            self.line(&format!("(import \"\" \"base\" (global {} i32))", quoted(&base)));
        }
        if self.runtime.sharing == Sharing::Import {
            self.position_globals();
        }
        if let ResumeTable::Table { name, is64, .. } = &self.runtime.table {
            let address = if *is64 { "i64" } else { "" };
            let line = format!("(import \"\" \"table\" (table {} {address} 0 funcref))", quoted(name));
            self.line(&line);
        }
        for (i, global) in self.needs.globals.iter().enumerate() {
            let type_ = Type::from_id(global.type_id).in_frame();
            let line = if type_.is_numeric() {
                format!("(import \"\" \"g{i}\" (global {} (mut {})))", quoted(&global.name), keyword(type_))
            } else {
                let (read, write) = (self.id(&format!("read_global.{i}")), self.id(&format!("write_global.{i}")));
                let type_ = keyword(type_);
                format!(
                    "(import \"\" \"r{i}\" (func {read} (result {type_})))
(import \"\" \"w{i}\" (func {write} (param {type_})))"
                )
            };
            self.line(&line);
        }
        if self.runtime.table == ResumeTable::Switch {
            for (i, name) in self.runtime.mask_functions_in_table().enumerate() {
                self.line(&format!("(import \"\" \"m{i}\" (func {} (param i32) (result i64)))", quoted(&name)));
            }
            for (i, (name, results)) in self.needs.resumable.iter().enumerate() {
                let line = format!("(import \"\" \"f{i}\" (func {} {}))", quoted(name), result_clause(*results));
                self.line(&line);
            }
        }
    }

    fn globals(&mut self) {
        if self.runtime.sharing != Sharing::Import {
            self.position_globals();
        }
        if self.needs.has_retries() {
            for global in [self.runtime.retry_global(), self.runtime.retried_global()] {
                self.line(&format!("(global {} (mut i32) (i32.const 0))", quoted(&global)));
            }
        }
        if self.needs.has_masks() {
            let pushed = self.needs.pushes_by_mask().then(|| self.runtime.pushed_mask());
            for mask in pushed.into_iter().chain([self.runtime.popped_mask()]) {
                self.line(&format!("(global {} (mut i64) (i64.const 0))", quoted(&mask)));
            }
        }
        if self.needs.keeps_sites {
            self.line(&format!("(global {} (mut i32) (i32.const 0))", quoted(&self.runtime.left_site_global())));
        }
        for (name, type_) in self.needs.popped_globals(self.runtime) {
            self.line(&format!("(global {} (mut {}) {})", quoted(&name), keyword(type_), default_value(type_)));
        }
    }

    fn position_globals(&mut self) {
        let zero = format!("({}.const 0)", self.ptr);
        for name in ["buffer", "position", "limit"] {
            self.line(&linking::global(self.runtime, name, self.ptr, &zero));
        }
        if self.has_frames_global() {
            self.line(&linking::global(self.runtime, "frames", self.ptr, &zero));
        }
        if self.runtime.sharing != Sharing::None {
            let own = format!("({}.const {})", self.ptr, self.needs.reserve);
            self.line(&linking::global(self.runtime, "reserve", self.ptr, &own));
        }
    }

    /// Whether a global holds the address at which the frames start.
    fn has_frames_global(&self) -> bool {
        self.runtime.asserts || self.runtime.sharing != Sharing::None
    }

    /// Bytes kept free below the buffer's end.
    fn reserve(&self) -> String {
        match self.runtime.sharing {
            Sharing::None => format!("({}.const {})", self.ptr, self.needs.reserve),
            _ => format!("(global.get {})", self.id("reserve")),
        }
    }

    /// Offsets of the saved globals in the buffer, and where frames start.
    fn global_offsets(&self) -> (Vec<u64>, u64) {
        let mut offset = u64::from(self.runtime.layout().globals());
        let mut offsets = Vec::new();
        for global in &self.needs.globals {
            offsets.push(offset);
            offset += u64::from(slot_size(Type::from_id(global.type_id)));
        }
        (offsets, offset)
    }

    /// Code that writes the globals to `$buffer`, and code that puts them back and drops segments again.
    fn save_and_restore(&self, offsets: &[u64]) -> (String, String) {
        let memory = &self.memory;
        let (save, restore): (Vec<String>, Vec<String>) = self
            .needs
            .globals
            .iter()
            .zip(offsets)
            .enumerate()
            .map(|(i, (global, offset))| {
                let (type_, name) = (Type::from_id(global.type_id).in_frame(), quoted(&global.name));
                let at = format!("{memory} offset={offset} align=1 (local.get $buffer)");
                if !type_.is_numeric() {
                    let (encode, decode) =
                        (self.id(&references::encode_helper(type_)), self.id(&references::decode_helper(type_)));
                    let (read, write) = (self.id(&format!("read_global.{i}")), self.id(&format!("write_global.{i}")));
                    return (
                        format!("(i32.store {at} (call {encode} (call {read})))"),
                        format!("(call {write} (call {decode} (i32.load {at})))"),
                    );
                }
                let type_ = keyword(type_);
                (
                    format!("({type_}.store {at} (global.get {name}))"),
                    format!("(global.set {name} ({type_}.load {at}))"),
                )
            })
            .unzip();
        let (save, mut restore) = (save.join("\n  "), restore.join("\n  "));
        if self.runtime.has_drops {
            restore += &format!("\n  (call {})", self.id("drop_again"));
        }
        (save, restore)
    }

    fn transitions(&mut self) {
        let (ptr, memory) = (self.ptr, self.memory.clone());
        let layout = self.runtime.layout();
        let (offsets, frames) = self.global_offsets();
        let reserve = self.reserve();
        // `end` less one is right where there is no bound, too. A byte in front of it is kept: frames that ended at the end
        // of the address space would have the position 0.
        let needed = match self.runtime.sharing {
            Sharing::None => format!("({ptr}.const {})", frames + self.needs.reserve),
            _ => format!("({ptr}.add ({ptr}.const {frames}) {reserve})"),
        };
        let (frames_id, has_frames) = (self.id("frames"), self.has_frames_global());
        let set_frames =
            |value: &str| if has_frames { format!("(global.set {frames_id} {value})") } else { String::new() };
        let frames_at_unwind = set_frames(&self.position());
        let frames_at_rewind = set_frames(&format!("({ptr}.add (local.get $buffer) ({ptr}.const {frames}))"));
        let (state, buffer, position, limit) =
            (self.id("state"), self.id("buffer"), self.id("position"), self.id("limit"));
        let (save, restore) = self.save_and_restore(&offsets);
        let (begin, end) = (self.id("unwind_begin"), self.id("unwind_end"));
        let unwinding = self.set_state(abi::State::Unwinding);
        // A reference in a global that fits in no table.
        let check = match self.needs.globals.iter().all(|g| Type::from_id(g.type_id).is_numeric()) {
            true => String::new(),
            false => format!("(if ({ptr}.eqz (global.get {limit})) (then (return)))\n  "),
        };
        let normal = self.set_state(abi::State::Normal);
        let rewinding = self.set_state(abi::State::Rewinding);
        // A stack that overflowed when a function was resumed again has left the flag behind.
        let not_retried = self.forget_retries();
        let begin_unwind = format!(
            "(func {begin} (param $buffer {ptr}) (local $last {ptr})
  (if (global.get {state}) (then (unreachable)))
  (global.set {buffer} (local.get $buffer))
  (local.set $last
    ({ptr}.sub ({ptr}.load {memory} offset={end_offset} align=1 (local.get $buffer)) ({ptr}.const 1)))
  (if (i32.or ({ptr}.lt_u (local.get $last) (local.get $buffer))
      ({ptr}.lt_u ({ptr}.sub (local.get $last) (local.get $buffer)) {needed}))
    (then (return)))
  (global.set {limit} ({ptr}.sub (local.get $last) {reserve}))
  {reset}{not_retried}(global.set {position} ({ptr}.add (local.get $buffer) ({ptr}.const {frames})))
  ({ptr}.store {memory} offset={position_offset} align=1 (local.get $buffer) (global.get {position}))
  {save}
  {frames_at_unwind}
  {check}{unwinding})",
            end_offset = layout.end(),
            position_offset = layout.position(),
            reset = self.needs.references.reset(|base| self.id(base)),
        );
        let size = frames - u64::from(layout.globals());
        let join = self.join_unwind(size, &save, &frames_at_unwind);
        self.line(if self.runtime.sharing == Sharing::Import { &join } else { &begin_unwind });
        self.line(&format!(
            "(func {end}
  (if (i32.ne (global.get {state}) (i32.const 1)) (then (unreachable)))
  ({ptr}.store {memory} offset={position_offset} align=1 (global.get {buffer}) (global.get {position}))
  {normal})",
            position_offset = layout.position(),
        ));
        let (begin, end) = (self.id("rewind_begin"), self.id("rewind_end"));
        let begin_rewind = format!(
            "(func {begin} (param $buffer {ptr})
  (if (global.get {state}) (then (unreachable)))
  (global.set {buffer} (local.get $buffer))
  (global.set {position} ({ptr}.load {memory} offset={position_offset} align=1 (local.get $buffer)))
  {restore}
  {frames_at_rewind}
  {not_retried}{rewinding})",
            position_offset = layout.position(),
        );
        let join = self.join_rewind(size, &restore);
        self.line(if self.runtime.sharing == Sharing::Import { &join } else { &begin_rewind });
        let frames_left = format!("({ptr}.ne {} (global.get {frames_id}))", self.position());
        let frames_left = Assertion::FramesLeft.check(self.runtime, &frames_left);
        self.line(&format!(
            "(func {end}
  (if (i32.lt_u (global.get {state}) (i32.const 2)) (then (unreachable)))
  {frames_left}
  {normal})"
        ));
        let get_state = self.id("get_state");
        self.line(&format!("(func {get_state} (result i32) (global.get {state}))"));
    }

    /// In a side module: saves its globals where the next frame would go, and lets the frames start behind them.
    fn join_unwind(&self, size: u64, save: &str, set_frames: &str) -> String {
        let (ptr, memory, position) = (self.ptr, &self.memory, self.position());
        format!(
            "(func {begin} (param $buffer {ptr})
  (if (i32.ne (global.get {state}) (i32.const 1)) (then (unreachable)))
  (if (i32.or ({ptr}.gt_u {position} (global.get {limit}))
      ({ptr}.lt_u ({ptr}.sub (global.get {limit}) {position}) ({ptr}.const {size})))
    (then {normal} (return)))
  {reset}{not_retried}(local.set $buffer ({ptr}.sub {position} ({ptr}.const {globals})))
  {save}
  {step}
  {set_frames}
  ({ptr}.store {memory} offset={at} align=1 (global.get {buffer}) {position}))",
            begin = self.id("unwind_begin"),
            state = self.id("state"),
            limit = self.id("limit"),
            buffer = self.id("buffer"),
            normal = self.set_state(abi::State::Normal),
            reset = self.needs.references.reset(|base| self.id(base)),
            not_retried = self.forget_retries(),
            step = self.move_position(size as i64),
            globals = self.runtime.layout().globals(),
            at = self.runtime.layout().position(),
        )
    }

    /// In a side module: restores its globals from where the frames would start without them.
    fn join_rewind(&self, size: u64, restore: &str) -> String {
        let (ptr, frames) = (self.ptr, self.id("frames"));
        format!(
            "(func {begin} (param $buffer {ptr})
  (if (i32.ne (global.get {state}) (i32.const 2)) (then (unreachable)))
  {not_retried}(local.set $buffer ({ptr}.sub (global.get {frames}) ({ptr}.const {globals})))
  {restore}
  (global.set {frames} ({ptr}.add (global.get {frames}) ({ptr}.const {size}))))
(func {raise}
  (if ({ptr}.lt_u (global.get {reserve}) ({ptr}.const {own})) (then
    (global.set {reserve} ({ptr}.const {own})))))",
            begin = self.id("rewind_begin"),
            state = self.id("state"),
            not_retried = self.forget_retries(),
            globals = self.runtime.layout().globals(),
            raise = self.id("raise_reserve"),
            reserve = self.id("reserve"),
            own = self.needs.reserve,
        )
    }

    /// A function number as frames hold it.
    fn in_frames(&self, number: &str) -> String {
        match linking::base_global(self.runtime) {
            Some(base) => format!("(i32.add {number} (global.get {}))", quoted(&base)),
            None => number.into(),
        }
    }

    /// What the next frame says its function is.
    fn function_in_frame(&self) -> String {
        let bytes = self.needs.layout.function_bytes;
        let load = if bytes == 2 { "i32.load16_u" } else { "i32.load" };
        let ptr = self.ptr;
        format!("({load} {} align=1 ({ptr}.sub {} ({ptr}.const {bytes})))", self.memory, self.position())
    }

    /// Checks that there is a frame. `is_other` is the condition under which it is another function's.
    fn checks_of_frame(&self, is_other: &str) -> String {
        let (ptr, state) = (self.ptr, self.id("state"));
        let checks = [
            (Assertion::NotRewinding, format!("(i32.lt_u (global.get {state}) (i32.const 2))")),
            (Assertion::NoFrame, format!("({ptr}.le_u {} (global.get {}))", self.position(), self.id("frames"))),
            (Assertion::OtherFrame, is_other.to_owned()),
        ];
        let checks = checks.iter().map(|(assertion, condition)| assertion.check(self.runtime, condition));
        checks.collect::<Vec<_>>().join("\n  ")
    }

    fn check_frame(&mut self) {
        let number = self.in_frames("(local.get $function)");
        let checks = self.checks_of_frame(&format!("(i32.ne {} {number})", self.function_in_frame()));
        let name = quoted(&self.runtime.check_frame_helper());
        self.line(&format!("(func {name} (param $function i32)\n  {checks})"));
    }

    /// What helpers do first that pop the header of a frame: what is resumed next was not resumed again.
    fn start_header(&self) -> String {
        let retried = self.forget_retries();
        match self.runtime.is_in_programs_table() {
            true => format!(
                "(if (i32.lt_u (global.get {}) (i32.const {})) (then (unreachable)))\n  {retried}",
                self.id("state"),
                abi::State::Rewinding as u32
            ),
            false => retried,
        }
    }

    /// Code that says that what is resumed next was not resumed again; none without retries.
    fn forget_retries(&self) -> String {
        match self.needs.has_retries() {
            true => format!("(global.set {} (i32.const 0))\n  ", quoted(&self.runtime.retried_global())),
            false => String::new(),
        }
    }

    /// Popping site and function number, and what all functions push them with.
    fn headers(&mut self) {
        let (ptr, memory) = (self.ptr, self.memory.clone());
        let (position, sites) = (self.id("position"), self.needs.sites);
        let bytes = i64::from(self.needs.layout.function_bytes);
        let guard = self.start_header();
        let set_back = |from: &str, bytes: i64| {
            format!("(global.set {position} (local.tee $at ({ptr}.sub {from} ({ptr}.const {bytes}))))")
        };
        if sites.single {
            let (back, pop_function) = (self.move_position(-bytes), self.id("pop_function"));
            self.line(&format!("(func {pop_function}\n  {guard}{back})"));
        }
        if sites.several {
            let wide = match sites.wide {
                true => format!(
                    "(if (i32.eq (local.get $site) (i32.const {WIDE_SITE})) (then
    {back}
    (local.set $site (i32.load16_u {memory} align=1 (local.get $at)))))
  ",
                    back = set_back("(local.get $at)", 2),
                ),
                false => String::new(),
            };
            self.line(&format!(
                "(func {pop} (result i32) (local $site i32) (local $at {ptr})
  {guard}{back}
  (local.set $site (i32.load8_u {memory} (local.get $at)))
  {wide}(local.get $site))",
                pop = self.id("pop_header"),
                back = set_back(&self.position(), 1 + bytes),
            ));
        }
        let number = self.function_in_frame();
        let next = self.id("next_function");
        let checks = match self.runtime.sharing {
            Sharing::None if self.runtime.asserts => {
                self.checks_of_frame(&format!("(i32.ge_u {number} (i32.const {}))", self.needs.resumable.len()))
            }
            _ => String::new(),
        };
        match &self.runtime.table {
            ResumeTable::Table { base, is64, .. } => {
                let type_ = if *is64 { "i64" } else { "i32" };
                let number = if *is64 { format!("(i64.extend_i32_u {number})") } else { number };
                // A number out of a corrupted frame is no way back to the functions below.
                let number = match self.needs.layout.function_bytes {
                    4 if *base > 0 && !is64 => format!("(i32.and {number} (i32.const 0x7fffffff))"),
                    _ => number,
                };
                let index = if *base == 0 { number } else { format!("({type_}.add {number} ({type_}.const {base}))") };
                if self.needs.calls_next_frame || !self.runtime.reads_function_in_place() {
                    self.line(&format!("(func {next} (result {type_}) {checks}{index})"));
                }
            }
            ResumeTable::Switch => self.line(&format!("(func {next} (result i32) {checks}{number})")),
        }
    }

    fn call_next_frame(&self, results: Type) -> String {
        match &self.runtime.table {
            ResumeTable::Table { name, .. } => {
                let index = match self.runtime.reads_function_in_place() {
                    true => self.function_in_frame(),
                    false => format!("(call {})", self.id("next_function")),
                };
                format!("(call_indirect {} {} {index})", quoted(name), result_clause(results))
            }
            ResumeTable::Switch => format!("(call {})", quoted(&self.runtime.resume_next_helper(results))),
        }
    }

    /// Without a table: chooses among the resume functions with these results.
    fn resume_switch(&mut self, results: Type) {
        let name = quoted(&self.runtime.resume_next_helper(results));
        let next = self.id("next_function");
        let clause = result_clause(results);
        let mut body = String::from("(br_table");
        let fitting: Vec<usize> =
            (0..self.needs.resumable.len()).filter(|&i| self.needs.resumable[i].1 == results).collect();
        for (i, (_, r)) in self.needs.resumable.iter().enumerate() {
            let label = if *r == results { format!(" $f{i}") } else { " $none".into() };
            body += &label;
        }
        body += &format!(" $none (call {next}))");
        let blocks: String = fitting.iter().rev().map(|i| format!("(block $f{i} ")).collect();
        let calls: String =
            fitting.iter().map(|&i| format!(")\n  (return (call {}))", quoted(&self.needs.resumable[i].0))).collect();
        self.line(&format!("(func {name} {clause}\n  (block $none {blocks}{body}{calls})\n  (unreachable))"));
    }
}

fn result_clause(results: Type) -> String {
    let types: Vec<&str> = results.components().into_iter().map(keyword).collect();
    if types.is_empty() { String::new() } else { format!("(result {})", types.join(" ")) }
}

pub(in crate::transform) fn default_value(type_: Type) -> String {
    match type_ {
        Type::V128 => "(v128.const i64x2 0 0)".into(),
        _ => format!("({}.const 0)", keyword(type_)),
    }
}
