//! What there is in a function's expressions.

use std::hash::{BuildHasher, Hash, Hasher};

use foldhash::HashMap;
use foldhash::quality::FixedState;

use super::CALL;
use crate::ir::{Code, CodeRow, Function, Kind, Module, Name, Type};

/// What there is in each expression, by row.
pub(super) struct Contents {
    /// Of the form, if all of it could be in another function, but for branches that leave it.
    pub(super) hashes: Vec<Option<u64>>,
    /// How deep the outermost label is that it branches to, in expressions.
    pub(super) outermost: Vec<u32>,
    pub(super) calls: Vec<Calls>,
    pub(super) bytes: Vec<u32>,
    /// Whether the function has exception handlers.
    pub(super) has_handlers: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Calls {
    Never,
    Sometimes,
    Always,
}

impl Contents {
    /// Of the code of a function of this name. What uses the global `fixed`, or a local with an address that is taken from
    /// it, cannot move.
    pub(super) fn of(module: Module<'_>, name: Name, fixed: Name, code: &Code, function: Function<'_>) -> Contents {
        let rows = &code.rows;
        let local_types = function.local_types();
        let addresses = code.addresses(function.num_params());
        let mut contents = Contents {
            hashes: Vec::with_capacity(rows.len()),
            outermost: Vec::with_capacity(rows.len()),
            calls: Vec::with_capacity(rows.len()),
            bytes: Vec::with_capacity(rows.len()),
            has_handlers: rows.iter().any(|row| matches!(row.kind(), Kind::Try | Kind::TryTable)),
        };
        let depths = depths(rows);
        let labels = Labels::of(rows, &depths);
        let mut children = Vec::new();
        for (i, row) in rows.iter().enumerate() {
            list_children(rows, i, &mut children);
            let inner = children.iter().map(|&child| contents.bytes[child]);
            let bytes = inner.fold(bytes(row, children.len()), u32::saturating_add);
            let mut hasher = FixedState::default().build_hasher();
            // A leaf can be another's place.
            let id = (!matches!(row.kind(), Kind::Const | Kind::LocalGet)).then_some(row.id);
            (id, row.type_id).hash(&mut hasher);
            let mut outermost = children.iter().map(|&child| contents.outermost[child]).min().unwrap_or(u32::MAX);
            let address = match row.kind() {
                Kind::GlobalGet | Kind::GlobalSet => row.named(),
                Kind::LocalGet | Kind::LocalSet => addresses.get(&(row.value as u32)).copied(),
                _ => None,
            };
            let is_fixed = address == Some(fixed);
            let can_move = match row.kind() {
                _ if is_fixed => false,
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
                        let depth = labels.depth(rows, i, label);
                        outermost = outermost.min(depth);
                        (depths[i] - depth).hash(&mut hasher);
                    }
                    true
                }
                // What can be deep on the stack gets no more frames.
                Kind::Call if row.named() == Some(name) => false,
                _ => {
                    row.operation.hash(&mut hasher);
                    !row.is_return && row.operation != 0 && (is_call(row) || runs_to_its_end(module, row))
                }
            };
            let is_numeric = row.type_().is_numeric() || !row.type_().is_concrete();
            children.len().hash(&mut hasher);
            let mut hashes = children.iter().map(|&child| contents.hashes[child]);
            let all_can = hashes.all(|hash| hash.inspect(|hash| hash.hash(&mut hasher)).is_some());
            let hash = (all_can && can_move && is_numeric).then(|| hasher.finish());
            let calls = contents.calls(row, &children, is_fixed);
            contents.hashes.push(hash);
            contents.outermost.push(outermost);
            contents.calls.push(calls);
            contents.bytes.push(bytes);
        }
        contents
    }

    /// What is fixed counts as a call: a loop around it turns as often as the function is resumed.
    fn calls(&self, row: &CodeRow, children: &[usize], is_fixed: bool) -> Calls {
        let of = |&child: &usize| self.calls[child];
        let most = children.iter().map(of).max().unwrap_or(Calls::Never);
        let always = match (row.kind(), children) {
            (Kind::If, [condition, arms @ ..]) => {
                of(condition) == Calls::Always || arms.len() == 2 && arms.iter().all(|arm| of(arm) == Calls::Always)
            }
            // What is behind a branch need not be executed.
            (Kind::Block | Kind::Loop, [first, ..]) => of(first) == Calls::Always,
            _ => is_call(row) || is_fixed || most == Calls::Always,
        };
        if always { Calls::Always } else { most.min(Calls::Sometimes) }
    }
}

fn is_call(row: &CodeRow) -> bool {
    matches!(row.kind(), Kind::Call | Kind::CallIndirect | Kind::CallRef)
}

/// Lists the rows of the children of an expression, in order of execution.
pub(super) fn list_children(rows: &[CodeRow], row: usize, children: &mut Vec<usize>) {
    children.clear();
    let mut end = row;
    while end > rows[row].first as usize {
        children.push(end - 1);
        end = rows[end - 1].first as usize;
    }
    children.reverse();
}

/// Arms of `if`s, blocks with labels and loops around each row: what is in them need not be executed. None if there are more
/// than can be counted.
pub(super) fn count_arms(rows: &[CodeRow]) -> Option<Vec<u16>> {
    let mut arms = vec![0u16; rows.len()];
    for (i, row) in rows.iter().enumerate().rev() {
        if let Some(parent) = row.parent_row() {
            let is_arm = match rows[parent].kind() {
                Kind::If => row.child > 0,
                _ => is_labelled(&rows[parent]),
            };
            arms[i] = arms[parent].checked_add(u16::from(is_arm))?;
        }
    }
    Some(arms)
}

/// The number of expressions around each row.
pub(super) fn depths(rows: &[CodeRow]) -> Vec<u32> {
    let mut depths = vec![0; rows.len()];
    for (i, row) in rows.iter().enumerate().rev() {
        depths[i] = row.parent_row().map_or(0, |parent| depths[parent] + 1);
    }
    depths
}

/// How deep blocks and loops are, by their labels.
struct Labels<'a> {
    depths: &'a [u32],
    /// None where several have the label.
    by_label: HashMap<Name, Option<u32>>,
}

impl<'a> Labels<'a> {
    fn of(rows: &[CodeRow], depths: &'a [u32]) -> Labels<'a> {
        let mut by_label = HashMap::default();
        for (row, &depth) in rows.iter().zip(depths).filter(|(row, _)| is_labelled(row)) {
            let label = row.named().expect("it has a label");
            by_label.entry(label).and_modify(|depth| *depth = None).or_insert(Some(depth));
        }
        Labels { depths, by_label }
    }

    /// How deep that is whose label the row names.
    fn depth(&self, rows: &[CodeRow], row: usize, label: Name) -> u32 {
        if let Some(Some(depth)) = self.by_label.get(&label) {
            return *depth;
        }
        let around = std::iter::successors(rows[row].parent_row(), |&around| rows[around].parent_row());
        let found =
            around.into_iter().find(|&around| is_labelled(&rows[around]) && rows[around].named() == Some(label));
        // No other expression is moved that has a label.
        found.map_or(0, |found| self.depths[found])
    }
}

fn is_labelled(row: &CodeRow) -> bool {
    matches!(row.kind(), Kind::Block | Kind::Loop) && row.named().is_some()
}

/// Whether each row is in a loop of which a turn need not call anything, and no neighbour in its block does so.
pub(super) fn in_hot_loops(rows: &[CodeRow], calls: &[Calls]) -> Vec<bool> {
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
pub(super) fn bytes(row: &CodeRow, children: usize) -> u32 {
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
