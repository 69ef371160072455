//! Code that throws, and code that catches, in the modern encoding or in the legacy one.

use wasm_encoder::{BlockType, Catch, Instruction, ValType};

use super::code::{Label, Scope, Writer};
use super::numeric::Ty;
use super::plan::{ENTRY, FUEL, vals};

use Instruction as I;

/// What is caught.
struct Clause {
    /// `None` is all.
    tag: Option<u32>,
    payload: Vec<Ty>,
    by_reference: bool,
}

impl Clause {
    /// What the modern clause's label gets.
    fn carried(&self) -> Vec<ValType> {
        let mut carried = vals(&self.payload);
        carried.extend(self.by_reference.then_some(ValType::EXNREF));
        carried
    }

    fn modern(&self, label: u32) -> Catch {
        match (self.tag, self.by_reference) {
            (Some(tag), false) => Catch::One { tag, label },
            (Some(tag), true) => Catch::OneRef { tag, label },
            (None, false) => Catch::All { label },
            (None, true) => Catch::AllRef { label },
        }
    }

    fn legacy(&self) -> Instruction<'static> {
        self.tag.map_or(I::CatchAll, I::Catch)
    }
}

impl Writer<'_> {
    /// A value from code whose exceptions are caught.
    pub fn catching(&mut self, ty: Ty) {
        self.protect(&[ty], |writer| writer.ending(ty), |writer| writer.ending(ty));
    }

    /// Code whose exceptions are caught, most of them. Both parts leave the results.
    pub fn protect(&mut self, results: &[Ty], body: impl FnOnce(&mut Self), handler: impl Fn(&mut Self)) {
        match self.plan.features.legacy {
            true => self.legacy_try(results, body, handler),
            false => self.try_table(results, body, handler),
        }
    }

    /// Throws, and most often calls compute what.
    pub fn throw(&mut self) {
        let tag = self.source.below(self.plan.tags.len() as u32);
        let payload = self.plan.tags[tag as usize].clone();
        self.operands(&payload);
        self.emit(I::Throw(tag));
    }

    /// What a call's resumed callee does that a handler must not notice.
    pub fn fork_and_throw(&mut self) {
        let entry = self.plan.entry.clone();
        self.exprs(&entry.params);
        self.emit(I::Call(ENTRY));
        self.keep(&entry.results);
        match self.source.below(3) {
            0 => self.expr(Ty::I32),
            // Now and then.
            _ => {
                let mask = self.source.range(1, 2) as i32;
                self.code.extend([I::GlobalGet(FUEL), I::I32Const(mask), I::I32And]);
            }
        }
        self.inside(I::If(BlockType::Empty), &[], Self::throw);
    }

    fn clauses(&mut self, count: u32) -> Vec<Clause> {
        let mut clauses = Vec::new();
        for number in 0..count {
            let tag = self.source.below(self.plan.tags.len() as u32);
            let is_last = number + 1 == count;
            let all = is_last && self.source.one_in(2);
            let by_reference = self.exception.is_some() && self.source.one_in(2);
            let payload = if all { Vec::new() } else { self.plan.tags[tag as usize].clone() };
            clauses.push(Clause { tag: (!all).then_some(tag), payload, by_reference });
        }
        clauses
    }

    fn try_table(&mut self, results: &[Ty], body: impl FnOnce(&mut Self), handler: impl Fn(&mut Self)) {
        let count = 1 + self.source.weighted(&[5, 2, 1]) as u32;
        let clauses = self.clauses(count);
        let whole = self.block_type(&[], &vals(results));
        self.inside(I::Block(whole), results, |writer| {
            for clause in clauses.iter().rev() {
                let block = writer.block_type(&[], &clause.carried());
                writer.emit(I::Block(block));
                writer.labels.push(Label { carries: Vec::new(), scope: Scope::Handler });
            }
            let catches: Vec<_> = clauses.iter().zip(0..).map(|(clause, label)| clause.modern(label)).collect();
            writer.inside(I::TryTable(whole, catches.into()), results, body);
            writer.emit(I::Br(count));
            for (clause, left) in clauses.iter().zip((0..count).rev()) {
                writer.emit(I::End);
                writer.labels.pop();
                writer.begin_handler(clause);
                handler(writer);
                if left > 0 {
                    writer.emit(I::Br(left));
                }
            }
        });
    }

    fn legacy_try(&mut self, results: &[Ty], body: impl FnOnce(&mut Self), handler: impl Fn(&mut Self)) {
        let whole = self.block_type(&[], &vals(results));
        self.emit(I::Try(whole));
        self.labels.push(Label { carries: results.to_vec(), scope: Scope::TryBody });
        self.depth += 1;
        body(self);
        let count = self.source.weighted(&[0, 10, 5, 2, 1]) as u32;
        if self.source.one_in(7) {
            self.depth -= 1;
            self.labels.pop();
            let mut targets = self.labels_of(Scope::TryBody);
            // The function itself: it goes to the caller.
            targets.push(self.labels.len() as u32 - 1);
            let target = self.source.pick(&targets);
            return self.emit(I::Delegate(target));
        }
        for clause in self.clauses(count % 4) {
            self.emit(clause.legacy());
            if let Some(label) = self.labels.last_mut() {
                label.scope = Scope::CatchBody;
            }
            self.begin_handler(&clause);
            handler(self);
        }
        self.depth -= 1;
        self.labels.pop();
        self.emit(I::End);
    }

    /// Takes what was caught, and reads locals that the body may have written.
    fn begin_handler(&mut self, clause: &Clause) {
        let exception = self.exception.filter(|_| clause.by_reference);
        self.code.extend(exception.map(I::LocalSet));
        self.keep(&clause.payload);
        if self.source.one_in(2) && !self.locals.is_empty() {
            for _ in 0..self.source.range(1, 3) {
                let local = self.source.below(self.locals.len() as u32);
                self.log_local(local);
            }
        }
        if let Some(exception) = exception {
            self.some_statements(2);
            if self.source.one_in(3) {
                self.expr(Ty::I32);
                self.inside(I::If(BlockType::Empty), &[], |writer| {
                    writer.code.extend([I::LocalGet(exception), I::ThrowRef]);
                });
            }
        }
    }
}
