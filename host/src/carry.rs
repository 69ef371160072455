//! References of a process, as its child is to have them: instances in another store, with functions, tags and objects of
//! their own.
//!
//! | reference | in the child |
//! | --- | --- |
//! | function | the same one of the child's instances; modules export all of theirs for that ([`crate::expose`]) |
//! | struct, array | a copy, one for each object however often it is met; cycles are closed afterwards, through fields that can be null for a while |
//! | i31 | the same |
//! | exception | one with the child's tag and the same payload |
//! | of the host | a number of the replay harness is the same; what else is inside, only the host would know |

use std::collections::{HashMap, HashSet};

use wasmtime::{
    AnyRef, ArrayRef, ArrayRefPre, ExnRef, ExnRefPre, ExnType, Extern, ExternRef, FieldType, Func, Global, Instance,
    Mutability, Ref, Result, RootScope, Rooted, Store, StructRef, StructRefPre, Table, Tag, Val, bail, format_err,
};

/// Carries references from one store to another.
pub(crate) struct Carrier<'a, T: 'static> {
    from: RootScope<&'a mut Store<T>>,
    to: RootScope<&'a mut Store<T>>,
    functions: HashMap<usize, Func>,
    tags: Vec<(Tag, Tag)>,
    /// Objects that have a copy.
    copies: HashMap<u32, Rooted<AnyRef>>,
    /// Objects whose copies have nulls for now where they hold other objects.
    unfinished: Vec<(Rooted<AnyRef>, Rooted<AnyRef>)>,
}

/// What an object is made of.
enum Object {
    Struct(Rooted<StructRef>),
    Array(Rooted<ArrayRef>),
    /// It holds no other object.
    Leaf,
}

/// Something in an object, and whether it can be null at first.
type Slot = (Val, bool);

impl<'a, T: 'static> Carrier<'a, T> {
    /// `instances` are pairs: one of the parent, and the child's of the same module.
    pub fn new(from: &'a mut Store<T>, to: &'a mut Store<T>, instances: &[(Instance, Instance)]) -> Self {
        let (mut functions, mut tags) = (HashMap::new(), Vec::new());
        for (theirs, ours) in instances {
            let names: Vec<String> = theirs.exports(&mut *from).map(|export| export.name().to_owned()).collect();
            for name in names {
                match (theirs.get_export(&mut *from, &name), ours.get_export(&mut *to, &name)) {
                    (Some(Extern::Func(theirs)), Some(Extern::Func(ours))) => {
                        functions.insert(theirs.to_raw(&mut *from) as usize, ours);
                    }
                    (Some(Extern::Tag(theirs)), Some(Extern::Tag(ours))) => tags.push((theirs, ours)),
                    _ => {}
                }
            }
        }
        let (from, to) = (RootScope::new(from), RootScope::new(to));
        Self { from, to, functions, tags, copies: HashMap::new(), unfinished: Vec::new() }
    }

    /// Makes the contents of `to` those of `from`.
    pub fn copy_table(&mut self, from: Table, to: Table) -> Result<()> {
        for index in 0..from.size(&self.from) {
            let element = from.get(&mut self.from, index).ok_or_else(|| format_err!("the table shrank"))?;
            let value = self.reference(&element)?;
            if index < to.size(&self.to) {
                to.set(&mut self.to, index, value)?;
            } else {
                to.grow(&mut self.to, 1, value)?;
            }
        }
        Ok(())
    }

    /// Gives a mutable global of references the value of another.
    pub fn copy_global(&mut self, from: Global, to: Global) -> Result<()> {
        let ty = to.ty(&self.to);
        if ty.mutability() == Mutability::Const || !ty.content().is_ref() {
            return Ok(());
        }
        if let Some(value) = from.get(&mut self.from).ref_() {
            let value = self.reference(&value)?;
            to.set(&mut self.to, value.into())?;
        }
        Ok(())
    }

    fn reference(&mut self, reference: &Ref) -> Result<Ref> {
        if let Some(object) = self.object(reference)? {
            self.copy(object)?;
            while let Some((object, copy)) = self.unfinished.pop() {
                self.finish(object, copy)?;
            }
        }
        self.known(reference)
    }

    /// The object that a reference is to.
    fn object(&mut self, reference: &Ref) -> Result<Option<Rooted<AnyRef>>> {
        Ok(match reference {
            Ref::Any(object) => *object,
            Ref::Extern(Some(external)) => Some(AnyRef::convert_extern(&mut self.from, *external)?),
            _ => None,
        })
    }

    /// The child's reference, when objects have been copied.
    fn known(&mut self, reference: &Ref) -> Result<Ref> {
        Ok(match reference {
            Ref::Func(Some(function)) => {
                let ours = self.functions.get(&(function.to_raw(&mut self.from) as usize));
                (*ours.ok_or_else(|| format_err!("a function of neither the program nor its resume functions"))?).into()
            }
            Ref::Any(Some(object)) => self.copies[&object.to_raw(&mut self.from)?].into(),
            Ref::Extern(Some(external)) => {
                let object = AnyRef::convert_extern(&mut self.from, *external)?;
                let copy = self.copies[&object.to_raw(&mut self.from)?];
                ExternRef::convert_any(&mut self.to, copy)?.into()
            }
            Ref::Exn(Some(exception)) => self.exception(*exception)?.into(),
            Ref::Func(None) | Ref::Any(None) | Ref::Extern(None) | Ref::Exn(None) => reference.clone(),
        })
    }

    fn exception(&mut self, exception: Rooted<ExnRef>) -> Result<Rooted<ExnRef>> {
        let tag = exception.tag(&mut self.from)?;
        let ours = self.tags.iter().find(|(theirs, _)| Tag::eq(theirs, &tag, &self.from)).map(|(_, ours)| *ours);
        let ours = ours.ok_or_else(|| format_err!("an exception with a tag that the program does not know"))?;
        let values: Vec<Val> = exception.fields(&mut self.from)?.collect();
        let mut payload = Vec::new();
        for value in values {
            payload.push(match value.ref_() {
                Some(reference) => self.reference(&reference)?.into(),
                None => value,
            });
        }
        let ty = ExnType::from_tag_type(&ours.ty(&self.to))?;
        let allocator = ExnRefPre::new(&mut self.to, ty);
        ExnRef::new(&mut self.to, &allocator, &ours, &payload)
    }

    fn shape(&mut self, object: Rooted<AnyRef>) -> Result<Object> {
        Ok(match object.as_struct(&self.from)? {
            Some(object) => Object::Struct(object),
            None => object.as_array(&self.from)?.map_or(Object::Leaf, Object::Array),
        })
    }

    /// What is in an object.
    fn slots(&mut self, object: &Object) -> Result<Vec<Slot>> {
        let can_wait = |ty: &FieldType| {
            let reference = ty.element_type().as_val_type().and_then(|ty| ty.as_ref());
            ty.mutability() == Mutability::Var && reference.is_some_and(|ty| ty.is_nullable())
        };
        Ok(match object {
            Object::Struct(object) => {
                let ty = object.ty(&self.from)?;
                let values: Vec<Val> = object.fields(&mut self.from)?.collect();
                values.into_iter().zip(ty.fields()).map(|(value, ty)| (value, can_wait(&ty))).collect()
            }
            Object::Array(object) => {
                let can_wait = can_wait(&object.ty(&self.from)?.field_type());
                object.elems(&mut self.from)?.map(|value| (value, can_wait)).collect()
            }
            Object::Leaf => Vec::new(),
        })
    }

    /// Copies an object, and first the objects that it cannot be made without.
    fn copy(&mut self, object: Rooted<AnyRef>) -> Result<()> {
        let (mut stack, mut open) = (vec![object], HashSet::new());
        while let Some(&object) = stack.last() {
            let key = object.to_raw(&mut self.from)?;
            if self.copies.contains_key(&key) {
                stack.pop();
                continue;
            }
            open.insert(key);
            let shape = self.shape(object)?;
            let slots = self.slots(&shape)?;
            let depth = stack.len();
            for (value, can_wait) in &slots {
                let Some(needed) = value.ref_().filter(|_| !can_wait) else { continue };
                let Some(needed) = self.object(&needed)? else { continue };
                let key = needed.to_raw(&mut self.from)?;
                if self.copies.contains_key(&key) {
                    continue;
                }
                if open.contains(&key) {
                    bail!("objects that hold each other in fields that cannot be null");
                }
                stack.push(needed);
            }
            if stack.len() == depth {
                let copy = self.make(object, &shape, slots)?;
                self.copies.insert(key, copy);
                stack.pop();
            }
        }
        Ok(())
    }

    /// A copy of an object; all that it needs has been copied.
    fn make(&mut self, object: Rooted<AnyRef>, shape: &Object, slots: Vec<Slot>) -> Result<Rooted<AnyRef>> {
        let (mut values, mut waits) = (Vec::new(), false);
        for (value, can_wait) in slots {
            values.push(match value.ref_() {
                Some(reference) if can_wait && self.object(&reference)?.is_some() => {
                    waits = true;
                    Val::AnyRef(None)
                }
                Some(reference) => self.known(&reference)?.into(),
                None => value,
            });
        }
        let copy = match shape {
            Object::Struct(object) => {
                let ty = object.ty(&self.from)?;
                let nulls = values.iter_mut().zip(ty.fields());
                nulls.for_each(|(value, ty)| fit_null(value, &ty));
                let allocator = StructRefPre::new(&mut self.to, ty);
                StructRef::new(&mut self.to, &allocator, &values)?.to_anyref()
            }
            Object::Array(object) => {
                let ty = object.ty(&self.from)?;
                values.iter_mut().for_each(|value| fit_null(value, &ty.field_type()));
                let allocator = ArrayRefPre::new(&mut self.to, ty);
                ArrayRef::new_fixed(&mut self.to, &allocator, &values)?.to_anyref()
            }
            Object::Leaf => self.leaf(object)?,
        };
        if waits {
            self.unfinished.push((object, copy));
        }
        Ok(copy)
    }

    /// Small numbers, and what is the host's.
    fn leaf(&mut self, object: Rooted<AnyRef>) -> Result<Rooted<AnyRef>> {
        if let Some(number) = object.as_i31(&self.from)? {
            return Ok(AnyRef::from_i31(&mut self.to, number));
        }
        let external = ExternRef::convert_any(&mut self.from, object)?;
        let number = external.data(&self.from)?.and_then(|data| data.downcast_ref::<u64>()).copied();
        let number = number.ok_or_else(|| format_err!("an object of the host"))?;
        let copy = ExternRef::new(&mut self.to, number)?;
        AnyRef::convert_extern(&mut self.to, copy)
    }

    /// Puts the other objects into a copy.
    fn finish(&mut self, object: Rooted<AnyRef>, copy: Rooted<AnyRef>) -> Result<()> {
        let shape = self.shape(object)?;
        for (index, (value, can_wait)) in self.slots(&shape)?.into_iter().enumerate() {
            let Some(reference) = value.ref_().filter(|_| can_wait) else { continue };
            let Some(needed) = self.object(&reference)? else { continue };
            self.copy(needed)?;
            let value = self.known(&reference)?.into();
            if let Some(copy) = copy.as_struct(&self.to)? {
                copy.set_field(&mut self.to, index, value)?;
            } else if let Some(copy) = copy.as_array(&self.to)? {
                copy.set(&mut self.to, index as u32, value)?;
            }
        }
        Ok(())
    }
}

/// A null that stands for an object is of the hierarchy that the field is of.
fn fit_null(value: &mut Val, ty: &FieldType) {
    let ty = ty.element_type().as_val_type().and_then(|ty| ty.as_ref());
    if let (Val::AnyRef(None), Some(ty)) = (&*value, ty) {
        *value = Val::null_ref(ty.heap_type());
    }
}
