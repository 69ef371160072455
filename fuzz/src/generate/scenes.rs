//! What a transform of the stack can get wrong, laid out on purpose: calls that go on alike, values that wait for calls,
//! locals that change while values wait, branches that carry such values.

use wasm_encoder::{BlockType, Instruction};

use super::code::Writer;
use super::numeric::{self, Ty};
use super::plan::{FUEL, Plan, Signature, any, vals};

use Instruction as I;

/// Most values that wait on the stack in a row.
const ROW: u32 = 6;

impl Writer<'_> {
    /// Values that wait for each other's calls.
    pub fn operands(&mut self, types: &[Ty]) {
        types.iter().for_each(|ty| self.operand(*ty));
    }

    /// Arguments of a call, one way or another.
    pub fn arguments(&mut self, types: &[Ty]) {
        match self.source.one_in(3) {
            true => self.operands(types),
            false => self.exprs(types),
        }
    }

    /// A value that waits for a call, or that a call makes.
    pub fn operand(&mut self, ty: Ty) {
        self.budget -= 1;
        if self.budget <= 0 || self.depth >= self.plan.limits.depth + 4 {
            return self.leaf(ty);
        }
        self.depth += 1;
        match self.source.weighted(&[4, 6, 3, 4, 2, 3]) {
            0 => self.leaf(ty),
            1 => self.landing(ty),
            2 => match self.local(ty) {
                Some(local) => {
                    self.simple(ty);
                    self.emit(I::LocalTee(local));
                }
                None => self.landing(ty),
            },
            3 => self.simple(ty),
            4 => match self.local(ty) {
                Some(local) => {
                    self.landing(ty);
                    self.emit(I::LocalTee(local));
                }
                None => self.landing(ty),
            },
            _ => self.expr(ty),
        }
        self.depth -= 1;
    }

    /// A value that is computed from locals without effects.
    fn simple(&mut self, ty: Ty) {
        if self.source.one_in(3) {
            return self.leaf(ty);
        }
        let (from, instruction) = numeric::binary(self.source, ty, self.plan.features.simd);
        self.leaf(from);
        self.leaf(from);
        self.emit(instruction);
    }

    /// A call's value.
    fn landing(&mut self, ty: Ty) {
        match self.source.weighted(&[6, 2, 2]) {
            0 => {
                if let Some(callee) = self.callee(|signature| signature.results == [ty]) {
                    let params = self.plan.signature(callee).params.clone();
                    self.exprs(&params);
                    return self.emit(I::Call(self.index(callee)));
                }
            }
            1 if self.form(super::expr::Form::Indirect, ty) => return,
            _ => {}
        }
        self.entry(ty);
    }

    /// Calls of most functions, each with fuel of its own: what becomes of one does not matter to the others, but for traps.
    /// Only for functions that nothing calls.
    pub fn call_all(&mut self) {
        for callee in 1..self.plan.functions.len() {
            if self.source.one_in(5) {
                continue;
            }
            let signature = self.plan.signature(callee).clone();
            self.code.extend([I::I32Const(self.plan.fuel), I::GlobalSet(FUEL)]);
            let call = |writer: &mut Self| {
                signature.params.iter().for_each(|ty| writer.leaf(*ty));
                writer.emit(I::Call(writer.index(callee)));
                writer.keep(&signature.results);
            };
            match self.plan.features.exceptions {
                true => self.protect(&[], call, |_| ()),
                false => call(self),
            }
        }
        self.code.extend([I::I32Const(self.plan.fuel), I::GlobalSet(FUEL)]);
    }

    /// One of two or three calls' values.
    pub fn arms(&mut self, ty: Ty) {
        self.operand(Ty::I32);
        match self.source.below(3) {
            0 => self.inside(I::If(ty.block()), &[ty], |writer| {
                writer.landing(ty);
                writer.emit(I::Else);
                writer.landing(ty);
            }),
            1 => {
                let condition = self.local(Ty::I32);
                self.emit(condition.map_or(I::Drop, I::LocalSet));
                self.landing(ty);
                self.landing(ty);
                match condition {
                    Some(local) if self.source.one_in(2) => self.emit(I::LocalGet(local)),
                    _ => self.landing(Ty::I32),
                }
                self.emit(I::Select);
            }
            _ => self.inside(I::If(ty.block()), &[ty], |writer| {
                writer.operand(ty);
                writer.statement();
                writer.emit(I::Else);
                writer.arms_of_branch(ty);
            }),
        }
    }

    /// A block that a branch leaves with one call's value, and whose end has another's.
    fn arms_of_branch(&mut self, ty: Ty) {
        self.inside(I::Block(ty.block()), &[ty], |writer| {
            writer.landing(ty);
            writer.operand(Ty::I32);
            writer.code.extend([I::BrIf(0), I::Drop]);
            writer.landing(ty);
        });
    }

    /// Calls that go on alike: what they return meets in a local, on the stack, or nowhere. Exceptions of theirs may be
    /// caught where the local is read.
    pub fn meeting(&mut self) {
        let fits = |signature: &Signature| signature.results.len() < 2;
        let throws = |plan: &Plan, callee: usize| plan.functions[callee].throws && fits(plan.signature(callee));
        let Some(callee) = self.callee_that(throws).or_else(|| self.callee(fits)) else { return };
        let result = self.plan.signature(callee).results.first().copied();
        let local = result.and_then(|ty| self.local(ty));
        if let (Some(ty), Some(local), true) = (result, local, self.source.one_in(2)) {
            // What a handler must find.
            let old = numeric::constant(self.source, ty);
            self.code.extend([old, I::LocalSet(local)]);
        }
        if self.plan.features.exceptions && !self.source.one_in(3) {
            let body = |writer: &mut Self| {
                writer.meet(result, local);
                writer.some_statements(1);
            };
            let handler = |writer: &mut Self| {
                if let Some(local) = local.filter(|_| !writer.source.one_in(4)) {
                    writer.log_local(local);
                }
                writer.some_statements(2);
            };
            self.protect(&[], body, handler);
        } else {
            self.meet(result, local);
        }
        if let Some(local) = local {
            self.log_local(local);
        }
    }

    fn meet(&mut self, result: Option<Ty>, local: Option<u32>) {
        match self.source.below(5) {
            0 => {
                self.operand(Ty::I32);
                self.inside(I::If(BlockType::Empty), &[], |writer| {
                    writer.meeting_call(result, local);
                    writer.emit(I::Else);
                    writer.meeting_call(result, local);
                });
            }
            1 => self.inside(I::Block(BlockType::Empty), &[], |writer| writer.ways(result, local)),
            2 => self.inside(I::Loop(BlockType::Empty), &[], |writer| {
                writer.guard();
                writer.inside(I::Block(BlockType::Empty), &[], |writer| writer.ways(result, local));
                writer.some_statements(1);
                writer.expr(Ty::I32);
                writer.emit(I::BrIf(0));
            }),
            3 => {
                let carried: Vec<Ty> = result.into_iter().collect();
                let block = self.block_type(&[], &vals(&carried));
                self.inside(I::Block(block), &carried, |writer| writer.ways_with(result));
                self.end_call(result, local);
            }
            _ => {
                // Cases, each of which leaves the outermost block.
                self.code.extend([I::Block(BlockType::Empty), I::Block(BlockType::Empty), I::Block(BlockType::Empty)]);
                let label = super::code::Label::block(&[]);
                self.labels.extend([label.clone(), label.clone(), label]);
                self.expr(Ty::I32);
                self.emit(I::BrTable(vec![0, 1].into(), 2));
                for left in [1, 0] {
                    self.emit(I::End);
                    self.labels.pop();
                    self.some_statements(1);
                    self.meeting_call(result, local);
                    if left > 0 {
                        self.emit(I::Br(left));
                    }
                }
                self.emit(I::End);
                self.labels.pop();
            }
        }
    }

    /// Calls, each but the last with a branch out of the block.
    fn ways(&mut self, result: Option<Ty>, local: Option<u32>) {
        for _ in 0..self.source.range(1, 2) {
            self.expr(Ty::I32);
            self.inside(I::If(BlockType::Empty), &[], |writer| {
                writer.some_statements(1);
                writer.meeting_call(result, local);
                writer.emit(I::Br(1));
            });
        }
        self.some_statements(1);
        self.meeting_call(result, local);
    }

    /// The same, where branches carry the values.
    fn ways_with(&mut self, result: Option<Ty>) {
        self.expr(Ty::I32);
        self.inside(I::If(BlockType::Empty), &[], |writer| {
            writer.call_of(result);
            writer.emit(I::Br(1));
        });
        self.some_statements(1);
        self.call_of(result);
    }

    fn meeting_call(&mut self, result: Option<Ty>, local: Option<u32>) {
        self.call_of(result);
        self.end_call(result, local);
    }

    fn end_call(&mut self, result: Option<Ty>, local: Option<u32>) {
        self.code.extend(result.map(|_| local.map_or(I::Drop, I::LocalSet)));
    }

    /// A direct call of a function with exactly this result.
    fn call_of(&mut self, result: Option<Ty>) {
        let results: Vec<Ty> = result.into_iter().collect();
        let fits = |signature: &Signature| signature.results == results;
        let throws = |plan: &Plan, callee: usize| plan.functions[callee].throws && fits(plan.signature(callee));
        let thrower = if self.source.one_in(3) { None } else { self.callee_that(throws) };
        match thrower.or_else(|| self.callee(fits)) {
            Some(callee) => {
                let params = self.plan.signature(callee).params.clone();
                self.arguments(&params);
                self.emit(I::Call(self.index(callee)));
            }
            None => results.into_iter().for_each(|ty| self.landing(ty)),
        }
    }

    /// Values wait for each other, and locals that some of them come from are written in between.
    pub fn row(&mut self) {
        let features = self.plan.features;
        let types: Vec<Ty> = (0..self.source.range(2, ROW)).map(|_| any(self.source, features)).collect();
        let before = std::mem::take(&mut self.favourites);
        let favourites: Vec<u32> = types.iter().filter_map(|ty| self.local(*ty)).collect();
        self.favourites = favourites;
        for ty in &types {
            self.operand(*ty);
            if self.source.one_in(3) {
                self.mix();
            }
        }
        self.favourites = before;
        for ty in types.iter().rev() {
            match self.source.below(3) {
                0 => self.log(*ty),
                1 => self.keep(&[*ty]),
                _ => {
                    // The value that is left is the other operand of a store.
                    let local = self.local(*ty);
                    self.emit(local.map_or(I::Drop, I::LocalSet));
                    self.address();
                    self.code.extend([local.map_or_else(|| numeric::zero(*ty), I::LocalGet)]);
                    let store = numeric::store(self.source, *ty);
                    self.emit(store);
                }
            }
        }
    }

    /// Locals are computed from others.
    pub fn mix(&mut self) {
        for _ in 0..self.source.range(1, 3) {
            let ty = any(self.source, self.plan.features);
            if let Some(local) = self.local(ty) {
                self.simple(ty);
                self.emit(I::LocalSet(local));
            }
        }
    }

    /// Branches carry values that waited for calls, out of blocks that are followed by calls.
    pub fn carrying(&mut self) {
        let features = self.plan.features;
        let count = if features.multivalue { self.source.range(1, 3) } else { 1 };
        let types: Vec<Ty> = (0..count).map(|_| any(self.source, features)).collect();
        let block = self.block_type(&[], &vals(&types));
        self.inside(I::Block(block), &types, |writer| {
            writer.inside(I::Block(block), &types, |writer| writer.carry(&types));
            if writer.source.one_in(2) {
                writer.statement();
                writer.keep(&types);
                writer.carry(&types);
            }
            writer.some_statements(1);
        });
        if self.source.one_in(2) {
            self.statement();
        }
        for ty in types.iter().rev() {
            match self.source.one_in(3) {
                true => self.keep(&[*ty]),
                false => self.log(*ty),
            }
        }
    }

    fn carry(&mut self, types: &[Ty]) {
        self.operands(types);
        self.operand(Ty::I32);
        let labels = self.labels_with(types);
        match self.source.below(3) {
            0 => {
                let label = self.source.pick(&labels);
                self.emit(I::BrIf(label));
                self.some_statements(1);
            }
            1 => {
                let listed: Vec<u32> = (0..self.source.range(1, 3)).map(|_| self.source.pick(&labels)).collect();
                let default = self.source.pick(&labels);
                self.emit(I::BrTable(listed.into(), default));
            }
            _ => {
                let label = self.source.pick(&labels);
                self.emit(I::BrIf(label));
                self.keep(types);
                self.operands(types);
            }
        }
    }

    /// A loop with calls, which a tail call or something else may leave.
    pub fn tail_in_loop(&mut self) {
        self.inside(I::Loop(BlockType::Empty), &[], |writer| {
            writer.guard();
            writer.some_statements(1);
            writer.operand(Ty::I32);
            writer.inside(I::If(BlockType::Empty), &[], |writer| {
                writer.some_statements(1);
                match writer.plan.features.tail_calls {
                    true => writer.tail_call(),
                    false => writer.exit(),
                }
            });
            writer.some_statements(2);
            writer.expr(Ty::I32);
            writer.emit(I::BrIf(0));
        });
    }
}
