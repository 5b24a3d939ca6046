//! Follows the instructions of a pickle, and nothing else.
//!
//! The machine has a stack, a memo and an arena. It knows no classes: what a pickle may name is a list of a
//! few names, each of which builds a plain value here, and any other instruction or name ends it.

use std::collections::HashMap;

use super::names;
use super::opcode as op;
use super::rebuild;
use super::value::{Arena, Id, Value};

/// Runs a pickle; returns what it built. The error says what is wrong with it.
pub(super) fn run(pickle: &[u8]) -> Result<(Arena, Id), String> {
    let mut machine = Machine {
        rest: pickle,
        arena: Arena::default(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    loop {
        let opcode = machine.u8()?;
        if opcode == op::STOP {
            let root = machine.pop()?;
            return match machine.stack.is_empty() && machine.marks.is_empty() {
                true => Ok((machine.arena, root)),
                false => Err("its pickle leaves values behind".into()),
            };
        }
        machine.step(opcode)?;
    }
}

struct Machine<'a> {
    rest: &'a [u8],
    arena: Arena,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    fn step(&mut self, opcode: u8) -> Result<(), String> {
        match opcode {
            op::PROTO => match self.u8()? {
                2..=5 => Ok(()),
                version => Err(format!(
                    "its pickle has the protocol {version}, known are 2 to 5"
                )),
            },
            // Frames are hints for readers of streams.
            op::FRAME => self.take(8).map(drop),
            op::MARK => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            op::POP => self.pop().map(drop),
            op::POP_MARK => self.since_mark().map(drop),
            op::NONE
            | op::NEWTRUE
            | op::NEWFALSE
            | op::BININT
            | op::BININT1
            | op::BININT2
            | op::LONG1
            | op::BINFLOAT
            | op::BINUNICODE
            | op::SHORT_BINUNICODE
            | op::BINBYTES
            | op::SHORT_BINBYTES
            | op::BINBYTES8
            | op::BYTEARRAY8
            | op::BINSTRING
            | op::SHORT_BINSTRING
            | op::EMPTY_LIST
            | op::EMPTY_SET
            | op::EMPTY_TUPLE
            | op::EMPTY_DICT => {
                let value = self.literal(opcode)?;
                self.push(value)
            }
            op::TUPLE | op::FROZENSET => {
                let items = self.since_mark()?;
                self.push(Value::Tuple(items))
            }
            op::TUPLE1 => self.tuple(1),
            op::TUPLE2 => self.tuple(2),
            op::TUPLE3 => self.tuple(3),
            op::APPEND | op::APPENDS | op::ADDITEMS | op::SETITEM | op::SETITEMS => {
                self.extend(opcode)
            }
            op::BINPUT | op::LONG_BINPUT | op::MEMOIZE => self.remember(opcode),
            op::BINGET | op::LONG_BINGET => self.recall(opcode),
            op::GLOBAL | op::STACK_GLOBAL => self.global(opcode),
            op::REDUCE => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                let value = rebuild::call(&self.arena, function, arguments)?;
                self.push(value)
            }
            op::BUILD => self.build(),
            op::BINPERSID => {
                let id = self.pop()?;
                let value = rebuild::storage(&self.arena, id)?;
                self.push(value)
            }
            _ => Err(format!(
                "its pickle has the instruction {opcode:#04x}, which no state_dict needs; \
                 save the state_dict alone"
            )),
        }
    }

    /// A value that stands in the pickle itself.
    fn literal(&mut self, opcode: u8) -> Result<Value, String> {
        Ok(match opcode {
            op::BININT => Value::Int(i64::from(i32::from_le_bytes(self.array()?))),
            op::BININT1 => Value::Int(i64::from(self.u8()?)),
            op::BININT2 => Value::Int(i64::from(u16::from_le_bytes(self.array()?))),
            op::LONG1 => self.long()?,
            op::BINFLOAT => {
                self.take(8)?;
                Value::Opaque
            }
            op::BINUNICODE | op::BINSTRING => {
                let len = self.u32()?;
                self.text(len as usize)?
            }
            op::SHORT_BINUNICODE | op::SHORT_BINSTRING => {
                let len = self.u8()?;
                self.text(usize::from(len))?
            }
            op::BINBYTES => {
                let len = self.u32()?;
                self.take(len as usize)?;
                Value::Opaque
            }
            op::SHORT_BINBYTES => {
                let len = self.u8()?;
                self.take(usize::from(len))?;
                Value::Opaque
            }
            op::BINBYTES8 | op::BYTEARRAY8 => {
                let len = u64::from_le_bytes(self.array()?);
                self.take(usize::try_from(len).unwrap_or(usize::MAX))?;
                Value::Opaque
            }
            // The order of a set is that of its instructions.
            op::EMPTY_LIST | op::EMPTY_SET => Value::List(Vec::new()),
            op::EMPTY_TUPLE => Value::Tuple(Vec::new()),
            op::EMPTY_DICT => Value::Dict(Vec::new()),
            _ => Value::Opaque,
        })
    }

    /// An integer of up to 255 bytes in two's complement; those above 64 bits matter to nobody here.
    fn long(&mut self) -> Result<Value, String> {
        let len = self.u8()?;
        let bytes = self.take(usize::from(len))?;
        if bytes.len() > 8 {
            return Ok(Value::Opaque);
        }
        let negative = bytes.last().is_some_and(|top| top & 0x80 != 0);
        let mut whole = [if negative { 0xFF } else { 0 }; 8];
        for (byte, given) in whole.iter_mut().zip(bytes) {
            *byte = *given;
        }
        Ok(Value::Int(i64::from_le_bytes(whole)))
    }

    fn text(&mut self, len: usize) -> Result<Value, String> {
        let text = std::str::from_utf8(self.take(len)?);
        let text = text.map_err(|_| "its pickle has a text that is not UTF-8")?;
        Ok(Value::Text(text.into()))
    }

    fn tuple(&mut self, len: usize) -> Result<(), String> {
        let start = self.stack.len().checked_sub(len).ok_or(TOO_FEW)?;
        if self.marks.last().is_some_and(|mark| *mark > start) {
            return Err(TOO_FEW.into());
        }
        let items = self.stack.split_off(start);
        self.push(Value::Tuple(items))
    }

    /// Adds to the list or dictionary that lies below.
    fn extend(&mut self, opcode: u8) -> Result<(), String> {
        let mut items = match opcode {
            op::APPEND => vec![self.pop()?],
            op::SETITEM => {
                let (value, key) = (self.pop()?, self.pop()?);
                vec![key, value]
            }
            _ => self.since_mark()?,
        };
        let target = *self.stack.last().ok_or(TOO_FEW)?;
        let is_list = matches!(opcode, op::APPEND | op::APPENDS | op::ADDITEMS);
        match self.arena.get_mut(target) {
            Some(Value::List(list)) if is_list => list.append(&mut items),
            Some(Value::Dict(pairs)) if !is_list && items.len().is_multiple_of(2) => {
                pairs.extend(
                    items
                        .as_chunks::<2>()
                        .0
                        .iter()
                        .map(|[key, value]| (*key, *value)),
                );
            }
            _ => return Err("its pickle adds to what is no list or dictionary".into()),
        }
        Ok(())
    }

    fn remember(&mut self, opcode: u8) -> Result<(), String> {
        let place = match opcode {
            op::BINPUT => u32::from(self.u8()?),
            op::LONG_BINPUT => self.u32()?,
            _ => self.memo.len() as u32,
        };
        let top = *self.stack.last().ok_or(TOO_FEW)?;
        self.memo.insert(place, top);
        Ok(())
    }

    fn recall(&mut self, opcode: u8) -> Result<(), String> {
        let place = match opcode {
            op::BINGET => u32::from(self.u8()?),
            _ => self.u32()?,
        };
        let id = self.memo.get(&place);
        let id = *id.ok_or("its pickle recalls what it did not remember")?;
        self.stack.push(id);
        Ok(())
    }

    fn global(&mut self, opcode: u8) -> Result<(), String> {
        let found = match opcode {
            op::GLOBAL => {
                let (module, name) = (self.line()?, self.line()?);
                names::global(module, name)?
            }
            _ => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (self.arena.get(module), self.arena.get(name)) {
                    (Value::Text(module), Value::Text(name)) => names::global(module, name)?,
                    _ => return Err("its pickle names a class by what is no text".into()),
                }
            }
        };
        self.push(Value::Global(found))
    }

    /// Attributes: dictionaries have some that describe the modules, tensors none.
    fn build(&mut self) -> Result<(), String> {
        self.pop()?;
        let target = *self.stack.last().ok_or(TOO_FEW)?;
        match self.arena.get(target) {
            Value::Dict(_) => Ok(()),
            _ => Err("its pickle gives attributes to what is no dictionary".into()),
        }
    }

    fn push(&mut self, value: Value) -> Result<(), String> {
        let id = self.arena.add(value)?;
        self.stack.push(id);
        Ok(())
    }

    fn pop(&mut self) -> Result<Id, String> {
        if self.marks.last() == Some(&self.stack.len()) {
            return Err(TOO_FEW.into());
        }
        self.stack.pop().ok_or_else(|| TOO_FEW.into())
    }

    /// What lies above the last mark, which goes.
    fn since_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().ok_or(TOO_FEW)?;
        match mark <= self.stack.len() {
            true => Ok(self.stack.split_off(mark)),
            false => Err(TOO_FEW.into()),
        }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(ENDS)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(ENDS)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, String> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let end = self
            .rest
            .iter()
            .position(|byte| *byte == b'\n')
            .ok_or(ENDS)?;
        let line = self.take(end + 1)?;
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        std::str::from_utf8(line).map_err(|_| "its pickle has a name that is not UTF-8".into())
    }
}

const ENDS: &str = "its pickle ends early; fetch the file again";
const TOO_FEW: &str = "its pickle takes values that it did not build";
