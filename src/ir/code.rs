//! What a function's code names, and arithmetic on constants.

use std::collections::HashMap;

use super::ffi::bridge;
use super::{CallSite, CodeRow, Expr, FunctionImport, FunctionRow, Kind, Module, Reference, TableSegment, Type, c};

/// A name of a module item or a label, as [`CodeRow`]s hold it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Name(usize);

impl Name {
    pub fn of(text: &str) -> Name {
        Name(bridge::intern_name(text))
    }

    pub(super) fn from_number(number: usize) -> Option<Name> {
        (number != 0).then_some(Name(number))
    }

    pub fn text(self) -> String {
        bridge::name_text(self.0)
    }
}

impl FunctionRow {
    pub fn name(&self) -> Name {
        Name(self.name)
    }
}

impl FunctionImport {
    pub fn name(&self) -> Name {
        Name(self.name)
    }
}

impl Reference {
    pub fn table(&self) -> Option<Name> {
        Name::from_number(self.table)
    }

    /// None for whatever an imported global holds.
    pub fn function(&self) -> Option<Name> {
        Name::from_number(self.function)
    }
}

impl CallSite {
    /// The function that is called or referred to, the table that is called through or written, or the global.
    pub fn target(&self) -> Option<Name> {
        Name::from_number(self.target)
    }
}

impl CodeRow {
    pub fn expr<'m>(&self) -> Expr<'m> {
        Expr::from_address(self.expression)
    }

    pub fn kind(&self) -> Kind {
        Kind::from_id(self.id)
    }

    pub fn type_(&self) -> Type {
        Type::from_id(self.type_id)
    }

    /// The label, function, global, table, memory or segment that the expression names.
    pub fn named(&self) -> Option<Name> {
        Name::from_number(self.name)
    }

    pub fn parent_row(&self) -> Option<usize> {
        (self.parent != u32::MAX).then_some(self.parent as usize)
    }
}

impl super::Code {
    /// The labels that a row with several names: a `br_table`, the default last, or a `try_table`.
    pub fn labels(&self, row: &CodeRow) -> impl Iterator<Item = Name> + '_ {
        let first = row.target as usize;
        self.targets[first..first + row.targets as usize].iter().map(|&name| Name(name))
    }

    /// The global that is the address of an access to memory, which is a row, but for constants, or from which a local took
    /// the address that is one of [`addresses`](Self::addresses).
    pub fn global_at(&self, access: u32, addresses: &HashMap<u32, Name>) -> Option<Name> {
        let address = self.rows[..access as usize].iter().rposition(|row| row.parent == access && row.child == 0)?;
        match self.base(address) {
            address if address.kind() == Kind::GlobalGet => address.named(),
            address if matches!(address.kind(), Kind::LocalGet | Kind::LocalSet) => {
                addresses.get(&(address.value as u32)).copied()
            }
            _ => None,
        }
    }

    /// Locals that hold nothing but what some global does, or did, and so many bytes more or less; with that global.
    pub fn addresses(&self, params: u32) -> HashMap<u32, Name> {
        let mut found: HashMap<u32, Option<Name>> = HashMap::new();
        for (i, row) in self.rows.iter().enumerate().filter(|(_, row)| row.kind() == Kind::LocalSet) {
            let local = row.value as u32;
            let global = match self.base(i - 1) {
                base if base.kind() == Kind::GlobalGet => base.named(),
                base if matches!(base.kind(), Kind::LocalGet | Kind::LocalSet) && base.value == row.value => continue,
                _ => None,
            };
            let known = found.entry(local).or_insert(global);
            *known = known.filter(|&known| global == Some(known));
        }
        found.into_iter().filter_map(|(local, global)| global.filter(|_| local >= params).map(|g| (local, g))).collect()
    }

    /// What constants are added to, or the like.
    fn base(&self, mut at: usize) -> &CodeRow {
        // The last operand of a row stands in front of it.
        while self.rows[at].kind() == Kind::Binary && self.rows[at - 1].kind() == Kind::Const {
            at -= 2;
        }
        &self.rows[at]
    }
}

impl TableSegment {
    pub fn table_name(&self) -> Name {
        Name(self.table)
    }

    /// The global that gives the offset, unless it is constant.
    pub fn offset_global(&self) -> Option<Name> {
        Name::from_number(self.global)
    }

    /// The functions; none where the segment holds something else.
    pub fn function_names(&self) -> impl Iterator<Item = Option<Name>> + '_ {
        self.functions.iter().map(|&name| Name::from_number(name))
    }
}

impl<'m> Expr<'m> {
    /// The value of a unary or binary operation on numbers that are these bits; `None` if it traps, if it is a
    /// NaN, whose bits engines choose, or if it is no such operation. A second operand that is a constant can be left out.
    pub fn fold(self, operands: &[u64]) -> Option<u64> {
        let mut result = 0;
        bridge::fold_constants(self.address(), operands, &mut result).then_some(result)
    }
}

impl<'m> Expr<'m> {
    /// Whether another expression is equal but for its leaves, which are `local.get`s and constants, and for the locals that
    /// it sets.
    pub fn same_in_form(self, other: Expr<'m>) -> bool {
        bridge::equal_in_form(self.address(), other.address())
    }

    /// Puts an expression in the place of so many children of this block, of which `first` is the first.
    pub fn replace_children(self, first: Expr<'m>, count: usize, replacement: Expr<'m>) {
        bridge::replace_children(self.address(), first.address(), count, replacement.address());
    }
}

/// What an operation tells of two 32-bit numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Comparison {
    /// Whether the first is at least as large, without signs.
    AtLeast,
    /// Whether the first is smaller, without signs.
    Below,
    Equal,
    /// How much larger the first is.
    Difference,
}

impl Expr<'_> {
    /// How the operation compares its operands, if it does.
    pub fn comparison(self) -> Option<Comparison> {
        let op = self.binary_op()?;
        // SAFETY: these return constants.
        let of = unsafe {
            [
                (c::BinaryenGeUInt32(), Comparison::AtLeast),
                (c::BinaryenLtUInt32(), Comparison::Below),
                (c::BinaryenEqInt32(), Comparison::Equal),
                (c::BinaryenSubInt32(), Comparison::Difference),
            ]
        };
        of.iter().find(|(known, _)| *known == op).map(|&(_, comparison)| comparison)
    }
}

impl<'m> Module<'m> {
    /// Lets neighbouring expressions use the locals `to` instead of the locals `from`. For each of their `local.get`s,
    /// `local.set`s and constants, in order of execution, there can be a local that is read instead.
    pub fn generalize(self, code: &mut [Expr<'m>], from: &[u32], to: &[u32], leaves: &[Option<u32>]) {
        let leaves: Vec<u32> = leaves.iter().map(|local| local.unwrap_or(u32::MAX)).collect();
        let mut next = 0;
        for expr in code {
            let address = bridge::generalize(self.pin(), expr.address(), from, to, &leaves, &mut next);
            *expr = Expr::from_address(address);
        }
    }
}

impl Module<'_> {
    /// Active element segments.
    pub fn table_segments(self) -> Vec<TableSegment> {
        bridge::list_table_segments(&self.pin())
    }
}
