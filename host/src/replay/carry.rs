//! References of one instance, as another instance in the same store is to have them.

use std::collections::HashMap;

use wasmtime::{
    AnyRef, ArrayRef, ArrayRefPre, ExternRef, Func, Global, Instance, Module, Mutability, Ref, Result, Rooted, Store,
    StructRef, StructRefPre, Table, Val, format_err,
};

use super::imports::World;

/// Maps the references of an instance: a function to the same one of the other instance, a struct or an array to a copy
/// of it (one copy, however often it is met), and everything else, which has no state of its own, to itself.
pub(super) struct Carrier {
    functions: HashMap<usize, Func>,
    copies: Vec<(Rooted<AnyRef>, Rooted<AnyRef>)>,
}

impl Carrier {
    /// `module` exports all of its functions.
    pub fn new(store: &mut Store<World>, module: &Module, from: Instance, to: Instance) -> Self {
        let mut functions = HashMap::new();
        for export in module.exports() {
            let pair = (from.get_func(&mut *store, export.name()), to.get_func(&mut *store, export.name()));
            if let (Some(theirs), Some(ours)) = pair {
                functions.insert(theirs.to_raw(&mut *store) as usize, ours);
            }
        }
        Self { functions, copies: Vec::new() }
    }

    /// Makes the contents of `to` those of `from`.
    pub fn copy_table(&mut self, store: &mut Store<World>, from: Table, to: Table) -> Result<()> {
        for index in 0..from.size(&*store) {
            let element = from.get(&mut *store, index).ok_or_else(|| format_err!("the table shrank"))?;
            let here = to.get(&mut *store, index);
            let Some(value) = self.reference(&mut *store, &element)? else {
                // Resume functions of another module are in its place already.
                if here.is_some_and(|here| !here.is_null()) {
                    continue;
                }
                return Err(format_err!("element {index} of a table is a function of another instance"));
            };
            match here {
                Some(_) => to.set(&mut *store, index, value)?,
                None => drop(to.grow(&mut *store, 1, value)?),
            }
        }
        Ok(())
    }

    /// Gives a mutable global of references the value of another.
    pub fn copy_global(&mut self, store: &mut Store<World>, from: Global, to: Global) -> Result<()> {
        let ty = to.ty(&*store);
        if ty.mutability() == Mutability::Const || !ty.content().is_ref() {
            return Ok(());
        }
        if let Some(value) = from.get(&mut *store).ref_() {
            let value = self.reference(&mut *store, &value)?;
            to.set(&mut *store, value.ok_or_else(|| format_err!("a global holds a foreign function"))?.into())?;
        }
        Ok(())
    }

    /// `None` is a function that is not of the instance.
    fn reference(&mut self, store: &mut Store<World>, reference: &Ref) -> Result<Option<Ref>> {
        Ok(match reference {
            Ref::Func(Some(function)) => {
                self.functions.get(&(function.to_raw(&mut *store) as usize)).map(|&ours| ours.into())
            }
            Ref::Any(Some(object)) => Some(self.object(&mut *store, *object)?.into()),
            Ref::Extern(Some(external)) => {
                // Objects of the program can be inside; what is the host's has no state that a fork could change.
                let object = AnyRef::convert_extern(&mut *store, *external)?;
                let copy = self.object(&mut *store, object)?;
                Some(ExternRef::convert_any(&mut *store, copy)?.into())
            }
            other => Some(other.clone()),
        })
    }

    fn object(&mut self, store: &mut Store<World>, object: Rooted<AnyRef>) -> Result<Rooted<AnyRef>> {
        for (known, copy) in &self.copies {
            if Rooted::ref_eq(&*store, known, &object)? {
                return Ok(*copy);
            }
        }
        let copy = if let Some(object) = object.as_struct(&*store)? {
            let values = object.fields(&mut *store)?.collect();
            let values = self.values(&mut *store, values)?;
            let ty = object.ty(&*store)?;
            let allocator = StructRefPre::new(&mut *store, ty);
            StructRef::new(&mut *store, &allocator, &values)?.to_anyref()
        } else if let Some(object) = object.as_array(&*store)? {
            let values = object.elems(&mut *store)?.collect();
            let values = self.values(&mut *store, values)?;
            let ty = object.ty(&*store)?;
            let allocator = ArrayRefPre::new(&mut *store, ty);
            ArrayRef::new_fixed(&mut *store, &allocator, &values)?.to_anyref()
        } else {
            return Ok(object);
        };
        self.copies.push((object, copy));
        Ok(copy)
    }

    fn values(&mut self, store: &mut Store<World>, values: Vec<Val>) -> Result<Vec<Val>> {
        let carry = |value: Val| match value.ref_() {
            Some(reference) => match self.reference(&mut *store, &reference)? {
                Some(carried) => Ok(carried.into()),
                None => Err(format_err!("an object holds a function of another instance")),
            },
            None => Ok(value),
        };
        values.into_iter().map(carry).collect()
    }
}
