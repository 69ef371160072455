//! Functions as fragments and what these have in common.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use super::contents::{Calls, Contents, bytes, children, count_arms, depths, in_hot_loops};
use crate::ir::{CodeRow, Function, Kind, Module, Name, Type};

/// Fragments of a stretch at most.
pub(super) const FRAGMENTS: u8 = 16;

/// Bytes of an expression that is worth looking at by itself.
const SMALLEST: u32 = 5;

/// Expressions in a fragment at most.
const LARGEST: usize = 400;

/// Expressions in a function at most that is looked at: it may take some hundred bytes of memory for each.
const LARGEST_FUNCTION: usize = 300_000;

/// Bytes of a stretch in a hot loop that calls nothing.
const LEAST_IN_HOT_LOOPS: i64 = 32;

/// The fragments of a function.
#[derive(Default)]
pub(super) struct Text {
    pub(super) fragments: Vec<Fragment>,
    /// Neighbours in a block, or single expressions: ranges of fragments.
    pub(super) runs: Vec<Range<u32>>,
    pub(super) uses: Vec<Use>,
    pub(super) rows: usize,
    /// Whether the function has exception handlers.
    pub(super) has_handlers: bool,
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
    pub(super) fn of<'m>(module: Module<'m>, function: Function<'m>) -> Text {
        if function.count_expressions() > LARGEST_FUNCTION {
            return Text::default();
        }
        let code = function.code();
        let Some(arms) = count_arms(&code.rows) else { return Text::default() };
        let contents = Contents::of(module, Name::of(&function.name()), &code, &function.local_types());
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
            let is_small = row.first as usize + LARGEST > i;
            (ends && is_small && (!fragment.has_value || fragment.bytes >= SMALLEST && !is_leaf)).then_some(fragment)
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

    /// A hash that stretches of the same form have in common; none for a stretch that cannot be a function.
    pub(super) fn form(&self, stretch: &Stretch) -> Option<u64> {
        let fragments = self.fragments(stretch);
        let locals = Locals::of(self, stretch)?;
        // What a handler reads must be set when a call throws.
        let calls = || fragments.iter().any(|fragment| fragment.calls != Calls::Never);
        if self.has_handlers && !locals.locals.is_empty() && calls() {
            return None;
        }
        let mut hasher = DefaultHasher::new();
        fragments.iter().for_each(|fragment| fragment.hash.hash(&mut hasher));
        self.uses(stretch).iter().for_each(|use_| locals.number(use_).hash(&mut hasher));
        Some(hasher.finish())
    }

    /// Hashes of the leaves, but for locals that the stretch sets.
    pub(super) fn leaves(&self, stretch: &Stretch) -> Leaves {
        let locals = Locals::of(self, stretch).expect("it has a form");
        let (mut same, mut constants) = (DefaultHasher::new(), DefaultHasher::new());
        let mut read: Vec<u64> = Vec::new();
        for use_ in self.uses(stretch).iter().filter(|use_| locals.number(use_).is_none()) {
            if use_.is_constant() {
                usize::MAX.hash(&mut same);
                use_.what.hash(&mut constants);
                continue;
            }
            let number = read.iter().position(|&local| local == use_.what).unwrap_or(read.len());
            if number == read.len() {
                read.push(use_.what);
            }
            number.hash(&mut same);
        }
        Leaves { same: same.finish(), constants: constants.finish() }
    }
}

/// Hashes by which stretches of the same form are grouped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Leaves {
    /// Which are locals, and which of these are the same.
    pub(super) same: u64,
    pub(super) constants: u64,
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
