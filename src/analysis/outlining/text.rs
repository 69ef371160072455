//! Functions as fragments and what these have in common.

use std::hash::{BuildHasher, Hash, Hasher};
use std::ops::Range;

use foldhash::quality::FixedState;

use super::Search;
use super::contents::{Calls, Contents, bytes, count_arms, depths, in_hot_loops, list_children};
use crate::ir::{CodeRow, Function, Kind, Module, Name, Type};

/// Fragments of a stretch at most.
pub(super) const FRAGMENTS: u8 = 16;

/// Bytes of an expression that is worth looking at by itself.
const SMALLEST: u32 = 5;

/// Expressions in a fragment at most.
const LARGEST: usize = 400;

/// Bytes of a stretch in a hot loop that calls nothing.
const LEAST_IN_HOT_LOOPS: i64 = 32;

/// The fragments of a function.
#[derive(Default)]
pub(super) struct Text {
    pub(super) fragments: Vec<Fragment>,
    /// In order of the fragments.
    pub(super) runs: Vec<Run>,
    pub(super) uses: Vec<Use>,
    pub(super) rows: usize,
    /// Whether the function has exception handlers.
    pub(super) has_handlers: bool,
}

/// Fragments that are neighbours in a block, or a single one elsewhere.
pub(super) struct Run {
    pub(super) fragments: Range<u32>,
    /// The row of what the first is a child of, and which.
    pub(super) parent: u32,
    pub(super) child: u32,
}

/// A statement, or an expression with a value, that control leaves only at its end. There are very many of them.
pub(super) struct Fragment {
    /// Of its form.
    pub(super) hash: u64,
    pub(super) rows: Range<u32>,
    pub(super) uses: Range<u32>,
    pub(super) bytes: u32,
    /// Arms of `if`s, blocks with labels and loops around it.
    pub(super) arms: u16,
    pub(super) has_value: bool,
    pub(super) calls: Calls,
    pub(super) is_hot: bool,
    /// Whether stretches with it are looked at.
    pub(super) is_searched: bool,
}

/// A use of a local, or a constant, in order of execution.
#[derive(Clone, Copy)]
pub(super) struct Use {
    pub(super) kind: UseKind,
    /// The local, or the constant's bits.
    pub(super) what: u64,
    pub(super) row: u32,
    /// Arms of `if`s, blocks with labels and loops around it.
    pub(super) arms: u16,
    pub(super) bytes: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum UseKind {
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
    pub(super) fn is_constant(&self) -> bool {
        !matches!(self.kind, UseKind::Get | UseKind::Set)
    }
}

impl Text {
    pub(super) fn of<'m>(module: Module<'m>, function: Function<'m>, fixed: Name, search: &Search) -> Text {
        let code = function.code();
        let Some(arms) = count_arms(&code.rows) else { return Text::default() };
        let name = Name::of(&function.name());
        let contents = Contents::of(module, name, fixed, &code, function);
        let all_searched = search.is_searched(name);
        let (depths, hot) = (depths(&code.rows), in_hot_loops(&code.rows, &contents.calls));
        let mut text = Text {
            fragments: Vec::new(),
            runs: Vec::new(),
            uses: Vec::new(),
            rows: code.rows.len(),
            has_handlers: contents.has_handlers,
        };
        // Uses, and calls that are searched, in front of each row.
        let mut searched_in_front = Vec::with_capacity(code.rows.len() + 1);
        let mut searched = 0u32;
        let mut in_front = Vec::with_capacity(code.rows.len() + 1);
        for (i, (row, &arms)) in code.rows.iter().zip(&arms).enumerate() {
            in_front.push(text.uses.len() as u32);
            searched_in_front.push(searched);
            let calls_searched =
                || row.kind() == Kind::Call && row.named().is_some_and(|name| search.is_searched(name));
            searched += u32::from(all_searched || calls_searched());
            let use_ = |kind| Use { kind, what: row.value, arms, row: i as u32, bytes: bytes(row, 0) as u8 };
            text.uses.extend(UseKind::of(row).map(use_));
        }
        in_front.push(text.uses.len() as u32);
        searched_in_front.push(searched);
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
                is_searched: searched_in_front[i + 1] > searched_in_front[row.first as usize],
            };
            let is_leaf = matches!(row.kind(), Kind::LocalGet | Kind::Const);
            let ends = row.type_() != Type::UNREACHABLE && contents.outermost[i] >= depths[i];
            let is_small = row.first as usize + LARGEST > i;
            (ends && is_small && (!fragment.has_value || fragment.bytes >= SMALLEST && !is_leaf)).then_some(fragment)
        };
        let mut children = Vec::new();
        for (i, row) in code.rows.iter().enumerate() {
            let mut start = text.fragments.len() as u32;
            list_children(&code.rows, i, &mut children);
            for &child in &children {
                let found = fragment(child);
                let is_alone = |fragment: &Fragment| row.kind() != Kind::Block || fragment.has_value;
                if found.as_ref().is_none_or(is_alone) {
                    text.end_run(&mut start, &code.rows);
                }
                let ends_run = found.as_ref().is_some_and(is_alone);
                text.fragments.extend(found);
                if ends_run {
                    text.end_run(&mut start, &code.rows);
                }
            }
            text.end_run(&mut start, &code.rows);
        }
        text
    }

    /// Notes the fragments from `start` on as neighbours.
    fn end_run(&mut self, start: &mut u32, rows: &[CodeRow]) {
        let end = self.fragments.len() as u32;
        if end > *start {
            let first = &rows[self.fragments[*start as usize].rows.end as usize - 1];
            self.runs.push(Run { fragments: *start..end, parent: first.parent, child: first.child });
        }
        *start = end;
    }

    /// The run that a stretch is part of.
    pub(super) fn run(&self, stretch: &Stretch) -> &Run {
        &self.runs[self.runs.partition_point(|run| run.fragments.end <= stretch.first)]
    }

    pub(super) fn fragments(&self, stretch: &Stretch) -> &[Fragment] {
        &self.fragments[stretch.first as usize..][..stretch.count as usize]
    }

    pub(super) fn rows(&self, stretch: &Stretch) -> Range<usize> {
        let fragments = self.fragments(stretch);
        fragments[0].rows.start as usize..fragments[fragments.len() - 1].rows.end as usize
    }

    pub(super) fn uses(&self, stretch: &Stretch) -> &[Use] {
        let fragments = self.fragments(stretch);
        &self.uses[fragments[0].uses.start as usize..fragments[fragments.len() - 1].uses.end as usize]
    }

    pub(super) fn bytes(&self, stretch: &Stretch) -> i64 {
        self.fragments(stretch).iter().map(|f| i64::from(f.bytes)).sum()
    }

    /// Whether a call would be a small part of what the stretch takes: it calls something anyway, it is large, or it is not
    /// executed again and again.
    pub(super) fn may_be_called(&self, stretch: &Stretch) -> bool {
        let fragments = self.fragments(stretch);
        let calls = || fragments.iter().any(|fragment| fragment.calls == Calls::Always);
        !fragments[0].is_hot || self.bytes(stretch) >= LEAST_IN_HOT_LOOPS || calls()
    }

    /// None for a stretch that cannot be a function.
    pub(super) fn form(&self, stretch: &Stretch) -> Option<Form> {
        let fragments = self.fragments(stretch);
        let locals = Locals::of(self, stretch)?;
        // What a handler reads must be set when a call throws.
        let calls = || fragments.iter().any(|fragment| fragment.calls != Calls::Never);
        if self.has_handlers && !locals.locals.is_empty() && calls() {
            return None;
        }
        let [mut form, mut leaves, mut constants] = std::array::from_fn(|_| FixedState::default().build_hasher());
        fragments.iter().for_each(|fragment| fragment.hash.hash(&mut form));
        let mut read: Vec<u64> = Vec::new();
        for use_ in self.uses(stretch) {
            let number = locals.number(use_);
            number.hash(&mut form);
            if number.is_some() {
                continue;
            }
            if use_.is_constant() {
                usize::MAX.hash(&mut leaves);
                use_.what.hash(&mut constants);
                continue;
            }
            let number = read.iter().position(|&local| local == use_.what).unwrap_or(read.len());
            if number == read.len() {
                read.push(use_.what);
            }
            number.hash(&mut leaves);
        }
        Some(Form { form: form.finish(), leaves: leaves.finish() as u32, constants: constants.finish() as u32 })
    }
}

/// Hashes by which stretches are grouped. There are very many of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Form {
    /// Of all but the leaves and the names of the locals that are set. Stretches for which it is equal have as many of them.
    pub(super) form: u64,
    /// Which leaves are locals, and which of these, unless the stretch sets them, are the same.
    pub(super) leaves: u32,
    pub(super) constants: u32,
}

/// Neighbouring fragments of a function. There are very many of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stretch {
    pub(super) text: u32,
    pub(super) first: u32,
    pub(super) count: u8,
    /// The local, by its number, that it sets and that is read behind it, if one is.
    pub(super) result: Option<u8>,
}

/// The locals that a stretch sets, in the order in which it first uses them.
#[derive(Default)]
pub(super) struct Locals {
    pub(super) locals: Vec<u64>,
    /// Those whose value from before may be needed: read before they are set, or first set where it need not be.
    pub(super) params: u64,
}

impl Locals {
    /// None if there are too many.
    pub(super) fn of(text: &Text, stretch: &Stretch) -> Option<Locals> {
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
    pub(super) fn in_order(&self) -> impl Iterator<Item = usize> {
        let is_param = |&number: &usize| self.params >> number & 1 == 1;
        let all = 0..self.locals.len();
        all.clone().filter(is_param).chain(all.filter(move |number| !is_param(number)))
    }

    /// The number of the local that is used; none for a constant, and for a local that the stretch does not set.
    pub(super) fn number(&self, use_: &Use) -> Option<usize> {
        self.locals.iter().position(|&local| local == use_.what).filter(|_| !use_.is_constant())
    }
}
