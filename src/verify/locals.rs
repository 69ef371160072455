//! Checks a function whose values were put into other locals: each read finds what the same writes left, as before.

use crate::ir::{Function, LocalRead, Module};
use crate::verify::violation::Problem;

/// What each read of a local may find.
pub struct Reads(Vec<LocalRead>);

impl Reads {
    pub fn of<'m>(module: Module<'m>, function: Function<'m>) -> Reads {
        Reads(function.local_reads(module))
    }

    /// The first read that may find something else.
    pub fn differs_from(&self, others: &Reads) -> Option<Problem> {
        assert_eq!(self.0.len(), others.0.len(), "no read is gone");
        let mut pairs = self.0.iter().zip(&others.0);
        pairs.find(|(read, other)| read != other).map(|(read, _)| Problem::FindsOther(read.expression))
    }
}
