//! What operations make of values that are known in part.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::verify::machine::{Fault, Machine, Rules};
use crate::verify::memory::Value;
use crate::verify::world::Reference;

/// A value that has no other name.
pub fn computed(parts: impl Hash) -> Value {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    Value::Computed(hasher.finish())
}

impl Machine<'_, '_> {
    /// The name of an operation's value, from its operands.
    pub(super) fn apply(&mut self, row: u32, operands: &[Value]) -> Value {
        let mut hasher = DefaultHasher::new();
        self.activation().body.row(row).operation.hash(&mut hasher);
        for operand in operands {
            match operand {
                Value::Bits(bits) => bits.hash(&mut hasher),
                Value::Null => u8::MAX.hash(&mut hasher),
                Value::Local(local, component) => (1, local, component).hash(&mut hasher),
                Value::Encoded(local, component) => (2, local, component).hash(&mut hasher),
                Value::Computed(name) => (3, name).hash(&mut hasher),
                Value::NonZero | Value::Unset | Value::Unknown => return Value::Unknown,
            }
        }
        Value::Computed(hasher.finish())
    }

    pub(super) fn fold(&mut self, row: u32, operands: u32) -> Result<(), Fault> {
        let operands = self.pop_several(operands);
        let known: Option<Vec<u64>> = operands.iter().map(|v| v.bits()).collect();
        let expr = self.expr(row);
        if let Some(known) = &known
            && let Some(bits) = expr.fold(known)
        {
            self.stack.push(Value::Bits(bits));
            return Ok(());
        }
        let truths: Vec<Option<bool>> = operands.iter().map(|v| v.truth()).collect();
        let value = if expr.is_or() && truths.contains(&Some(true)) {
            Value::NonZero
        } else if expr.is_and() && truths.contains(&Some(false)) || expr.is_zero_test() && truths == [Some(true)] {
            Value::Bits(0)
        } else {
            if self.is_own()
                && matches!(self.rules, Rules::Harmless { .. })
                && self.world.module.shallow_effects(expr).traps
            {
                return Err(Fault::Trap(expr.address()));
            }
            self.apply(row, &operands)
        };
        self.stack.push(value);
        Ok(())
    }

    pub(super) fn select(&mut self) {
        let condition = self.pop();
        let (if_false, if_true) = (self.pop(), self.pop());
        self.stack.push(match condition.truth() {
            Some(true) => if_true,
            Some(false) => if_false,
            None if if_true == if_false => if_true,
            None => Value::Unknown,
        });
    }

    pub(super) fn other(&mut self, row: u32, operands: &[Value]) -> Result<Value, Fault> {
        let expr = self.expr(row);
        let effects = self.world.module.shallow_effects(expr);
        let varies = effects.generative || effects.reads_mutable_state;
        let acts = effects.calls || effects.side_effects;
        match self.rules {
            Rules::Anything { .. } if self.is_own() => {
                Ok(if acts || effects.traps || varies { computed(row) } else { self.apply(row, operands) })
            }
            _ if acts => Err(Fault::Effect(expr.address())),
            Rules::Harmless { rebuilds: true } if self.is_own() && !effects.generative => Ok(self.apply(row, operands)),
            _ if effects.traps => Err(Fault::Trap(expr.address())),
            _ if varies => Ok(Value::Unknown),
            _ => Ok(self.apply(row, operands)),
        }
    }
}

/// All components of a local in their order are the local.
pub fn tuple(parts: &[Value]) -> Value {
    let Some(&Value::Local(local, 0)) = parts.first() else { return Value::Unknown };
    let is_whole = parts.iter().enumerate().all(|(i, &part)| part == Value::Local(local, i as u8));
    if is_whole { Value::local(local) } else { Value::Unknown }
}

/// What the functions do that turn a reference into its number in frames and back.
pub fn translate(reference: Reference, value: Value) -> Value {
    /// Stands for null.
    const NULL: Value = Value::Bits(u32::MAX as u64);
    match (reference, value) {
        (Reference::Encode, Value::Local(local, component)) => Value::Encoded(local, component),
        (Reference::Decode, Value::Encoded(local, component)) => Value::Local(local, component),
        (Reference::Encode, Value::Null) => NULL,
        (Reference::Decode, NULL) => Value::Null,
        _ => Value::Unknown,
    }
}
