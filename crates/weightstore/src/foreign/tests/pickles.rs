//! Writes pickles, instruction by instruction.

/// A pickle in the making.
pub(super) struct Pickle(Vec<u8>);

impl Pickle {
    pub(super) fn new() -> Self {
        Self(vec![0x80, 2])
    }

    pub(super) fn op(mut self, opcode: u8) -> Self {
        self.0.push(opcode);
        self
    }

    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn global(self, module: &str, name: &str) -> Self {
        self.op(b'c')
            .bytes(format!("{module}\n{name}\n").as_bytes())
    }

    pub(super) fn text(self, text: &str) -> Self {
        self.op(b'X')
            .bytes(&(text.len() as u32).to_le_bytes())
            .bytes(text.as_bytes())
    }

    pub(super) fn int(self, number: i64) -> Self {
        self.op(0x8A).bytes(&[8]).bytes(&number.to_le_bytes())
    }

    pub(super) fn ints(self, numbers: &[i64]) -> Self {
        numbers
            .iter()
            .fold(self.op(b'('), |pickle, number| pickle.int(*number))
            .op(b't')
    }

    /// `("storage", class, key, "cpu", count)` as a persistent id.
    pub(super) fn storage(self, class: &str, key: &str, count: i64) -> Self {
        let (module, name) = class.rsplit_once('.').unwrap();
        self.op(b'(')
            .text("storage")
            .global(module, name)
            .text(key)
            .text("cpu")
            .int(count)
            .op(b't')
            .op(b'Q')
    }

    /// What `torch` writes for a tensor, with an empty dictionary of hooks.
    pub(super) fn tensor(
        self,
        storage: (&str, &str, i64),
        offset: i64,
        shape: &[i64],
        strides: &[i64],
    ) -> Self {
        self.global("torch._utils", "_rebuild_tensor_v2")
            .op(b'(')
            .storage(storage.0, storage.1, storage.2)
            .int(offset)
            .ints(shape)
            .ints(strides)
            .op(0x89)
            .global("collections", "OrderedDict")
            .op(b')')
            .op(b'R')
            .op(b't')
            .op(b'R')
    }

    /// An empty `OrderedDict`, filled by what is written until `end`.
    pub(super) fn begin(self) -> Self {
        self.global("collections", "OrderedDict")
            .op(b')')
            .op(b'R')
            .op(b'(')
    }

    pub(super) fn end(self) -> Self {
        self.op(b'u')
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.op(b'.').0
    }
}
