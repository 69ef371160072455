//! Statements: code that leaves the stack as it found it.

use wasm_encoder::{BlockType, Instruction};

use super::code::{Label, Scope, Writer};
use super::numeric::{self, Ty};
use super::plan::{ENTRY, any};

use Instruction as I;

const FORMS: [(Form, u32); 24] = [
    (Form::Nop, 1),
    (Form::Set, 12),
    (Form::SetGlobal, 4),
    (Form::Store, 5),
    (Form::Log, 5),
    (Form::LogLocals, 2),
    (Form::Drop, 2),
    (Form::Entry, 5),
    (Form::Call, 6),
    (Form::Indirect, 3),
    (Form::Around, 6),
    (Form::Block, 4),
    (Form::Loop, 4),
    (Form::If, 5),
    (Form::IfElse, 4),
    (Form::BranchIf, 4),
    (Form::Switch, 3),
    (Form::ExitIf, 4),
    (Form::Exit, 1),
    (Form::Meeting, 9),
    (Form::Row, 6),
    (Form::Carrying, 4),
    (Form::TailInLoop, 3),
    (Form::Mix, 2),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Nop,
    Set,
    SetGlobal,
    Store,
    Log,
    LogLocals,
    Drop,
    Entry,
    Call,
    Indirect,
    /// A local is written before a call and between two, and read after it.
    Around,
    Block,
    Loop,
    If,
    IfElse,
    BranchIf,
    Switch,
    ExitIf,
    Exit,
    /// Calls that go on alike.
    Meeting,
    /// Values wait for each other, and locals change in between.
    Row,
    /// Branches carry values that waited for calls.
    Carrying,
    /// A loop that a tail call may leave.
    TailInLoop,
    /// Locals are computed from others.
    Mix,
}

/// Forms with statements in them.
const NESTS: [Form; 9] = [
    Form::Block,
    Form::Loop,
    Form::If,
    Form::IfElse,
    Form::Switch,
    Form::ExitIf,
    Form::Meeting,
    Form::Carrying,
    Form::TailInLoop,
];

impl Writer<'_> {
    /// A few statements, or none.
    pub fn some_statements(&mut self, most: u32) {
        for _ in 0..self.source.below(most + 1) {
            self.statement();
        }
    }

    pub fn statement(&mut self) {
        self.budget -= 1;
        if self.budget <= 0 {
            return;
        }
        let form = FORMS[self.source.weighted(&FORMS.map(|(_, weight)| weight))].0;
        if NESTS.contains(&form) && self.depth >= self.plan.limits.depth {
            return;
        }
        let features = self.plan.features;
        match form {
            Form::Nop => self.emit(I::Nop),
            Form::Set | Form::SetGlobal | Form::Store | Form::Log | Form::Drop => {
                let ty = any(self.source, features);
                self.effect(form, ty);
            }
            Form::LogLocals => self.log_locals(),
            Form::Entry => {
                let entry = self.plan.entry.clone();
                self.arguments(&entry.params);
                self.emit(I::Call(ENTRY));
                self.keep(&entry.results);
            }
            Form::Call => self.call_statement(),
            Form::Indirect => {
                if let Some(signature) = self.indirect_operands() {
                    self.emit(I::CallIndirect { type_index: signature, table_index: 0 });
                    let results = self.plan.signatures[signature as usize].results.clone();
                    self.keep(&results);
                }
            }
            Form::Around => self.around(),
            Form::Block => self.inside(I::Block(BlockType::Empty), &[], |writer| writer.some_statements(5)),
            Form::Loop => self.looping(),
            Form::If | Form::IfElse => {
                self.expr(Ty::I32);
                self.inside(I::If(BlockType::Empty), &[], |writer| {
                    writer.some_statements(4);
                    if form == Form::IfElse {
                        writer.emit(I::Else);
                        writer.some_statements(4);
                    }
                });
            }
            Form::BranchIf => self.branch_if(),
            Form::Switch => self.switch(),
            Form::ExitIf => {
                self.expr(Ty::I32);
                self.inside(I::If(BlockType::Empty), &[], |writer| {
                    writer.some_statements(1);
                    writer.exit();
                    // Nothing reaches these.
                    writer.some_statements(1);
                });
            }
            Form::Exit => {
                if self.source.one_in(3) && self.depth > 0 {
                    self.exit();
                }
            }
            Form::Meeting => self.meeting(),
            Form::Row => self.row(),
            Form::Carrying => self.carrying(),
            Form::TailInLoop => self.tail_in_loop(),
            Form::Mix => self.mix(),
        }
    }

    fn effect(&mut self, form: Form, ty: Ty) {
        let local = self.local(ty);
        let global = self.global(ty, true);
        match (form, local, global) {
            (Form::Set, Some(local), _) => {
                self.expr(ty);
                self.emit(I::LocalSet(local));
            }
            (Form::SetGlobal, _, Some(global)) => {
                self.expr(ty);
                self.emit(I::GlobalSet(global));
            }
            (Form::Store, ..) => {
                self.address();
                self.expr(ty);
                let instruction = numeric::store(self.source, ty);
                self.emit(instruction);
            }
            (Form::Log, ..) => {
                self.expr(ty);
                self.log(ty);
            }
            _ => {
                self.expr(ty);
                self.emit(I::Drop);
            }
        }
    }

    fn call_statement(&mut self) {
        let Some(callee) = self.callee(|_| true) else { return };
        let signature = self.plan.signature(callee).clone();
        self.arguments(&signature.params);
        self.emit(I::Call(self.index(callee)));
        self.keep(&signature.results);
    }

    fn around(&mut self) {
        let ty = any(self.source, self.plan.features);
        let Some(local) = self.local(ty) else { return };
        for _ in 0..self.source.range(1, 2) {
            self.expr(ty);
            self.emit(I::LocalSet(local));
            match self.source.below(3) {
                0 => {
                    let entry = self.plan.entry.clone();
                    self.exprs(&entry.params);
                    self.emit(I::Call(ENTRY));
                    self.keep(&entry.results);
                }
                1 => self.call_statement(),
                _ => self.statement(),
            }
            self.emit(I::LocalGet(local));
            self.log(ty);
        }
    }

    fn looping(&mut self) {
        self.inside(I::Loop(BlockType::Empty), &[], |writer| {
            writer.guard();
            writer.some_statements(5);
            match writer.source.below(5) {
                0 => {}
                1 => writer.emit(I::Br(0)),
                _ => {
                    writer.expr(Ty::I32);
                    writer.emit(I::BrIf(0));
                    writer.some_statements(1);
                }
            }
        });
    }

    fn branch_if(&mut self) {
        let (label, Some(types)) = self.any_label() else { return };
        self.operands(&types);
        self.operand(Ty::I32);
        self.emit(I::BrIf(label));
        self.keep(&types);
    }

    /// Nested blocks, and a `br_table` in the innermost.
    fn switch(&mut self) {
        let cases = self.source.range(1, 4);
        for _ in 0..cases {
            self.emit(I::Block(BlockType::Empty));
            self.labels.push(Label::block(&[]));
        }
        self.depth += 1;
        self.some_statements(1);
        self.expr(Ty::I32);
        let mut targets = self.labels_with(&[]);
        targets.truncate(6);
        let listed = (0..self.source.range(1, 5)).map(|_| self.source.pick(&targets)).collect::<Vec<_>>();
        let default = self.source.pick(&targets);
        self.emit(I::BrTable(listed.into(), default));
        for _ in 0..cases {
            self.emit(I::End);
            self.labels.pop();
            self.some_statements(2);
        }
        self.depth -= 1;
    }

    /// Leaves for good: what follows is never reached.
    pub fn exit(&mut self) {
        match self.source.weighted(&[8, 5, 3, 5, 5, 1]) {
            1 => {
                let results = self.results();
                self.exprs(&results);
                self.emit(I::Return);
            }
            2 => {
                let labels = self.labels_with(&[Ty::I32]);
                if labels.is_empty() {
                    return self.branch();
                }
                self.exprs(&[Ty::I32, Ty::I32]);
                let listed: Vec<u32> = (0..self.source.range(1, 3)).map(|_| self.source.pick(&labels)).collect();
                let default = self.source.pick(&labels);
                self.emit(I::BrTable(listed.into(), default));
            }
            3 if self.plan.features.exceptions => {
                let caught = self.labels_of(Scope::CatchBody);
                if caught.is_empty() || self.source.one_in(3) {
                    return self.throw();
                }
                let label = self.source.pick(&caught);
                self.emit(I::Rethrow(label));
            }
            4 if self.plan.features.tail_calls => self.tail_call(),
            5 if self.source.one_in(4) => self.emit(I::Unreachable),
            _ => self.branch(),
        }
    }

    fn branch(&mut self) {
        let (label, Some(types)) = self.any_label() else {
            let results = self.results();
            self.exprs(&results);
            return self.emit(I::Return);
        };
        self.exprs(&types);
        self.emit(I::Br(label));
    }

    pub fn tail_call(&mut self) {
        let results = self.results();
        if self.plan.entry.results == results && self.source.one_in(4) {
            let entry = self.plan.entry.clone();
            self.operands(&entry.params);
            return self.emit(I::ReturnCall(ENTRY));
        }
        let slots: Vec<u32> = (0..self.plan.table.len() as u32)
            .filter(|slot| {
                let function = self.plan.table[*slot as usize];
                function.is_some_and(|function| self.plan.signature(function).results == results)
            })
            .collect();
        if !slots.is_empty() && self.source.one_in(2) {
            let slot = self.source.pick(&slots);
            let function = self.plan.table[slot as usize].unwrap_or_default();
            let params = self.plan.signature(function).params.clone();
            self.operands(&params);
            self.emit(I::I32Const(slot as i32));
            let type_index = self.plan.functions[function].signature as u32;
            return self.emit(I::ReturnCallIndirect { type_index, table_index: 0 });
        }
        match self.callee(|signature| signature.results == results) {
            Some(callee) => {
                let params = self.plan.signature(callee).params.clone();
                self.operands(&params);
                self.emit(I::ReturnCall(self.index(callee)));
            }
            None => self.branch(),
        }
    }
}
