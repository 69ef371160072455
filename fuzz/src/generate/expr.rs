//! Expressions: code that leaves one value.

use wasm_encoder::Instruction;

use super::code::Writer;
use super::numeric::{self, Ty};
use super::plan::{ENTRY, Signature, any, vals};

use Instruction as I;

/// Forms of expressions, with their weights; the first one is the simplest.
const FORMS: [(Form, u32); 23] = [
    (Form::Constant, 4),
    (Form::Local, 16),
    (Form::Global, 4),
    (Form::Unary, 8),
    (Form::Binary, 14),
    (Form::Load, 5),
    (Form::Select, 5),
    (Form::Tee, 7),
    (Form::Entry, 6),
    (Form::Call, 8),
    (Form::Indirect, 5),
    (Form::Block, 4),
    (Form::If, 5),
    (Form::Loop, 2),
    (Form::BranchIf, 3),
    (Form::Stacked, 5),
    (Form::Params, 3),
    (Form::MemorySize, 1),
    (Form::Division, 2),
    (Form::Truncation, 1),
    (Form::Try, 4),
    (Form::Exit, 1),
    (Form::Arms, 4),
];

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Constant,
    Local,
    Global,
    Unary,
    Binary,
    Load,
    Select,
    Tee,
    Entry,
    Call,
    Indirect,
    Block,
    If,
    Loop,
    BranchIf,
    /// A statement runs while the value waits on the stack.
    Stacked,
    /// A block, loop or if with parameters.
    Params,
    MemorySize,
    Division,
    Truncation,
    Try,
    /// A branch away, and perhaps code behind it.
    Exit,
    /// One of two calls' values.
    Arms,
}

impl Writer<'_> {
    /// One expression after the other.
    pub fn exprs(&mut self, types: &[Ty]) {
        types.iter().for_each(|ty| self.expr(*ty));
    }

    /// An expression.
    pub fn expr(&mut self, ty: Ty) {
        self.budget -= 1;
        if self.budget <= 0 || self.depth >= self.plan.limits.depth + 4 {
            return self.leaf(ty);
        }
        let form = FORMS[self.source.weighted(&FORMS.map(|(_, weight)| weight))].0;
        self.depth += 1;
        if !self.form(form, ty) {
            self.leaf(ty);
        }
        self.depth -= 1;
    }

    pub fn leaf(&mut self, ty: Ty) {
        let local = if self.source.one_in(2) { self.local(ty) } else { None };
        let instruction = local.map_or_else(|| numeric::constant(self.source, ty), I::LocalGet);
        self.emit(instruction);
    }

    /// Writes an expression of that form if there can be one.
    pub fn form(&mut self, form: Form, ty: Ty) -> bool {
        let simd = self.plan.features.simd;
        match form {
            Form::Constant => self.emit_constant(ty),
            Form::Local => match self.local(ty) {
                Some(local) => self.emit(I::LocalGet(local)),
                None => return false,
            },
            Form::Global => match self.global(ty, false) {
                Some(global) => self.emit(I::GlobalGet(global)),
                None => return false,
            },
            Form::Unary => {
                let (from, instruction) = numeric::unary(self.source, ty, simd);
                self.expr(from);
                self.emit(instruction);
            }
            Form::Binary => {
                let (from, instruction) = numeric::binary(self.source, ty, simd);
                self.exprs(&[from, from]);
                self.emit(instruction);
            }
            Form::Load => {
                self.address();
                let instruction = numeric::load(self.source, ty);
                self.emit(instruction);
            }
            Form::Select => {
                self.exprs(&[ty, ty, Ty::I32]);
                self.emit(I::Select);
            }
            Form::Tee => {
                let Some(local) = self.local(ty) else { return false };
                self.expr(ty);
                self.emit(I::LocalTee(local));
            }
            Form::Entry => self.entry(ty),
            Form::Call => return self.call(ty),
            Form::Indirect => return self.indirect(ty),
            Form::Block => self.inside(I::Block(ty.block()), &[ty], |writer| writer.ending(ty)),
            Form::If => {
                self.expr(Ty::I32);
                self.inside(I::If(ty.block()), &[ty], |writer| {
                    writer.ending(ty);
                    writer.emit(I::Else);
                    writer.ending(ty);
                });
            }
            Form::Loop => self.inside(I::Loop(ty.block()), &[], |writer| {
                writer.guard();
                writer.some_statements(3);
                if !writer.source.one_in(4) {
                    writer.expr(Ty::I32);
                    writer.emit(I::BrIf(0));
                }
                writer.expr(ty);
            }),
            Form::BranchIf => {
                let labels = self.labels_with(&[ty]);
                if labels.is_empty() {
                    return false;
                }
                // What is written in the operands does not change the labels here.
                self.exprs(&[ty, Ty::I32]);
                let label = self.source.pick(&labels);
                self.emit(I::BrIf(label));
            }
            Form::Stacked => {
                self.expr(ty);
                self.statement();
            }
            Form::Params => return self.plan.features.multivalue && self.params(ty),
            Form::MemorySize => {
                if ty != Ty::I32 || self.plan.features.memory64 {
                    return false;
                }
                self.emit(I::MemorySize(0));
            }
            Form::Division => {
                if !matches!(ty, Ty::I32 | Ty::I64) {
                    return false;
                }
                self.exprs(&[ty, ty]);
                if !self.source.one_in(8) {
                    // Odd, so that only one operand traps.
                    self.code.extend(match ty {
                        Ty::I64 => [I::I64Const(1), I::I64Or],
                        _ => [I::I32Const(1), I::I32Or],
                    });
                }
                let instruction = numeric::division(self.source, ty);
                self.emit(instruction);
            }
            Form::Truncation => {
                if !matches!(ty, Ty::I32 | Ty::I64) || !self.source.one_in(3) {
                    return false;
                }
                let (from, instruction) = numeric::truncation(self.source, ty);
                self.expr(from);
                self.emit(instruction);
            }
            Form::Try => {
                if !self.plan.features.exceptions {
                    return false;
                }
                self.catching(ty);
            }
            Form::Arms => self.arms(ty),
            Form::Exit => {
                if !self.source.one_in(3) {
                    return false;
                }
                self.exit();
                if self.source.one_in(2) {
                    self.expr(ty);
                }
            }
        }
        true
    }

    fn emit_constant(&mut self, ty: Ty) {
        let instruction = numeric::constant(self.source, ty);
        self.emit(instruction);
    }

    /// Statements, then a value.
    pub fn ending(&mut self, ty: Ty) {
        self.some_statements(3);
        self.expr(ty);
    }

    /// An address inside the memory.
    pub fn address(&mut self) {
        let mask = self.source.pick(&[0x3f8, 0xff, 0x3fff]);
        if self.plan.features.memory64 {
            self.expr(Ty::I64);
            self.code.extend([I::I64Const(mask), I::I64And]);
        } else {
            self.expr(Ty::I32);
            self.code.extend([I::I32Const(mask as i32), I::I32And]);
        }
    }

    /// A call of the fork import.
    pub fn entry(&mut self, ty: Ty) {
        let entry = self.plan.entry.clone();
        self.exprs(&entry.params);
        self.emit(I::Call(ENTRY));
        self.take(&entry.results, ty);
    }

    fn call(&mut self, ty: Ty) -> bool {
        let exact = self.source.one_in(2);
        let fits = |signature: &Signature| !exact || signature.results == [ty];
        let Some(callee) = self.callee(fits) else { return false };
        let signature = self.plan.signature(callee).clone();
        self.arguments(&signature.params);
        self.emit(I::Call(self.index(callee)));
        self.take(&signature.results, ty);
        true
    }

    fn indirect(&mut self, ty: Ty) -> bool {
        let Some(signature) = self.indirect_operands() else { return false };
        let results = self.plan.signatures[signature as usize].results.clone();
        self.emit(I::CallIndirect { type_index: signature, table_index: 0 });
        self.take(&results, ty);
        true
    }

    /// The arguments and the index of a call through the table: most often the index fits the type.
    pub fn indirect_operands(&mut self) -> Option<u32> {
        let slots = self.plan.table.len() as u32;
        if slots == 0 {
            return None;
        }
        let slot = self.source.below(slots);
        let function = self.plan.table[slot as usize]?;
        let mut signature = self.plan.functions[function].signature;
        if self.source.one_in(25) {
            signature = self.source.below(self.plan.signatures.len() as u32) as usize;
        }
        let params = self.plan.signatures[signature].params.clone();
        self.arguments(&params);
        match self.source.weighted(&[12, 6, 1]) {
            0 => self.emit(I::I32Const(slot as i32)),
            1 => {
                // The value counts for nothing, its effects do.
                self.expr(Ty::I32);
                self.code.extend([I::I32Const(0), I::I32And, I::I32Const(slot as i32), I::I32Or]);
            }
            _ => {
                self.expr(Ty::I32);
                self.code.extend([I::I32Const(7), I::I32And]);
            }
        }
        Some(signature as u32)
    }

    /// Makes one value of that type from the results on the stack.
    pub fn take(&mut self, results: &[Ty], ty: Ty) {
        let Some((first, more)) = results.split_first() else { return self.expr(ty) };
        self.keep(more);
        self.convert(*first, ty);
    }

    /// Takes values off the stack, into locals or nowhere.
    pub fn keep(&mut self, types: &[Ty]) {
        for ty in types.iter().rev() {
            let local = if self.source.one_in(4) { None } else { self.local(*ty) };
            self.emit(local.map_or(I::Drop, I::LocalSet));
        }
    }

    fn convert(&mut self, from: Ty, to: Ty) {
        use Ty::{F32, F64, I32, I64, V128};
        let one = |instruction| vec![instruction];
        let instructions = match (from, to) {
            _ if from == to => return,
            (I32, I64) => one(I::I64ExtendI32S),
            (I32, F32) => one(I::F32ConvertI32S),
            (I32, F64) => one(I::F64ConvertI32S),
            (I32, V128) => one(I::I32x4Splat),
            (I64, I32) => one(I::I32WrapI64),
            (I64, F32) => one(I::F32ConvertI64S),
            (I64, F64) => one(I::F64ConvertI64S),
            (I64, V128) => one(I::I64x2Splat),
            (F32, I32) => one(I::I32TruncSatF32S),
            (F32, I64) => one(I::I64TruncSatF32S),
            (F32, F64) => one(I::F64PromoteF32),
            (F32, V128) => one(I::F32x4Splat),
            (F64, I32) => one(I::I32TruncSatF64S),
            (F64, I64) => one(I::I64TruncSatF64S),
            (F64, F32) => one(I::F32DemoteF64),
            (F64, V128) => one(I::F64x2Splat),
            (V128, I32) => one(I::I32x4ExtractLane(0)),
            (V128, I64) => one(I::I64x2ExtractLane(0)),
            (V128, F32) => one(I::F32x4ExtractLane(0)),
            _ => one(I::F64x2ExtractLane(0)),
        };
        self.code.extend(instructions);
    }

    /// A block, loop or if that takes values from outside, and may leave one more than is wanted.
    fn params(&mut self, ty: Ty) -> bool {
        let features = self.plan.features;
        let params: Vec<Ty> = (0..self.source.range(1, 3)).map(|_| any(self.source, features)).collect();
        let mut results = vec![ty];
        results.extend((0..self.source.below(3)).map(|_| any(self.source, features)));
        self.exprs(&params);
        let block = self.block_type(&vals(&params), &vals(&results));
        match self.source.below(3) {
            0 => self.inside(I::Block(block), &results, |writer| {
                writer.keep(&params);
                writer.some_statements(3);
                writer.exprs(&results);
            }),
            1 => {
                self.expr(Ty::I32);
                self.inside(I::If(block), &results, |writer| {
                    writer.keep(&params);
                    writer.some_statements(2);
                    writer.exprs(&results);
                    writer.emit(I::Else);
                    writer.keep(&params);
                    writer.some_statements(2);
                    writer.exprs(&results);
                });
            }
            _ => self.inside(I::Loop(block), &params, |writer| {
                writer.guard();
                writer.keep(&params);
                writer.some_statements(2);
                writer.exprs(&params);
                writer.expr(Ty::I32);
                writer.emit(I::BrIf(0));
                writer.keep(&params);
                writer.exprs(&results);
            }),
        }
        self.keep(&results[1..]);
        true
    }
}
