//! What of two functions' locals and stacks is the same.

/// A value, by what it is made of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Term {
    Bits(u64),
    Null,
    /// What a local held at the pair of places, in both functions.
    Local(u32),
    /// Likewise an entry of the stack.
    Entry(u32),
    /// What a local or entry held that is not the same in both.
    OwnLocal(Side, u32),
    OwnEntry(Side, u32),
    /// An entry that only the resume function has.
    Extra,
    /// What a turn gives, and what a handler gets.
    Result,
    /// An operation on operands.
    Of(u64),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Side {
    Function,
    Resume,
}

/// What is the same in both functions.
#[derive(Clone)]
pub struct Same {
    locals: Vec<u64>,
    /// For each entry of the resume function's stack.
    entries: Vec<Entry>,
}

/// An entry of the resume function's stack, beside the function's.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Entry {
    Same,
    Other,
    /// The function has none: what a condition is forced to be, while it is evaluated for nothing.
    Extra,
}

impl Same {
    /// No local, but all of the stack.
    pub fn new(locals: usize, height: u32) -> Same {
        Same { locals: vec![0; locals.div_ceil(64)], entries: vec![Entry::Same; height as usize] }
    }

    /// What a local holds in one of the functions.
    pub fn value(&self, side: Side, local: u32) -> Term {
        if self.local(local) { Term::Local(local) } else { Term::OwnLocal(side, local) }
    }

    /// The same locals, with other stacks. `None` if these cannot be side by side.
    pub fn with_stacks(&self, function: &[Term], resume: &[Term]) -> Option<Same> {
        Some(Same { entries: side_by_side(function, resume)?, ..self.clone() })
    }

    /// Whether a local is.
    pub fn local(&self, local: u32) -> bool {
        self.locals.get(local as usize / 64).is_some_and(|bits| bits >> (local % 64) & 1 == 1)
    }

    /// For a local that the resume function has too; more than it has are not noted.
    pub fn set_local(&mut self, local: u32, is_same: bool) {
        let bit = 1 << (local % 64);
        if let Some(bits) = self.locals.get_mut(local as usize / 64) {
            *bits = if is_same { *bits | bit } else { *bits & !bit };
        }
    }

    /// Keeps what is the same here and there. Whether that is less than before; `None` if the stacks are not alike.
    pub fn meet(&mut self, other: &Same) -> Option<bool> {
        let mut is_less = false;
        for (bits, other) in self.locals.iter_mut().zip(&other.locals) {
            is_less |= *bits & !other != 0;
            *bits &= other;
        }
        if self.entries.len() != other.entries.len() {
            return None;
        }
        for (entry, &other) in self.entries.iter_mut().zip(&other.entries) {
            match (*entry, other) {
                (Entry::Extra, Entry::Extra)
                | (Entry::Other | Entry::Same, Entry::Same)
                | (Entry::Other, Entry::Other) => {}
                (Entry::Same, Entry::Other) => (*entry, is_less) = (other, true),
                (Entry::Extra, _) | (_, Entry::Extra) => return None,
            }
        }
        Some(is_less)
    }

    /// The stack of one of the functions.
    pub fn stack(&self, side: Side) -> Vec<Term> {
        let mut below = 0;
        let mut stack = Vec::new();
        for &entry in &self.entries {
            match (entry, side) {
                (Entry::Same, _) => stack.push(Term::Entry(below)),
                (Entry::Other, _) => stack.push(Term::OwnEntry(side, below)),
                // The condition's value is chosen instead.
                (Entry::Extra, Side::Resume) => stack.push(Term::Extra),
                (Entry::Extra, Side::Function) => continue,
            }
            below += u32::from(entry != Entry::Extra);
        }
        stack
    }
}

/// The stacks of both, entry by entry. `None` if they are not as high.
fn side_by_side(function: &[Term], resume: &[Term]) -> Option<Vec<Entry>> {
    let mut others = function.iter();
    let mut entries = Vec::new();
    for term in resume {
        entries.push(match term {
            Term::Extra => Entry::Extra,
            _ if others.next()? == term => Entry::Same,
            _ => Entry::Other,
        });
    }
    others.next().is_none().then_some(entries)
}
