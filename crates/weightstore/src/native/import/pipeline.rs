//! The import's pipeline: read and hash ahead, decide in order, encode, commit behind.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::thread::Scope;

use core_view::DType;
use core_view::safetensors::TensorInfo;
use sha2::{Digest, Sha256};

use super::bases::Bases;
use super::committer::{Committer, Totals, worker_lost};
use super::group::{CHUNKS_AHEAD_MIN, Cursor, GROUPS_AHEAD_MAX, Group, Part, PlannedChunk, Slot};
use super::tensors::{Begun, OpenTensor, Verdict};
use super::workers::{Job, Outcome, Ticket, Workers};
use super::{OnProgress, Progress, SourceFile, hint_of};
use crate::native::base::link_to;
use crate::native::body_writer::Encoding as ChunkPlan;
use crate::native::changes::{Changes, NewObject, header_bytes};
use crate::native::core::Core;
use crate::native::session::Session;
use crate::record::ObjectRecord;
use crate::{Codec, WeightError, WeightHash, parallel};

/// The tensors of a file in the order of their data.
pub(super) struct FileTensors<'env> {
    pub(super) file: SourceFile<'env>,
    pub(super) tensors: &'env [TensorInfo],
    /// Offset of the data section in the file.
    pub(super) data_start: u64,
}

/// What stays the same during an import.
#[derive(Clone, Copy)]
pub(super) struct Settings<'env> {
    pub(super) core: &'env Core,
    pub(super) session: &'env Session<'env>,
    pub(super) codec: Codec,
    pub(super) bases: &'env Bases,
    pub(super) total_bytes: u64,
    pub(super) progress: Option<OnProgress<'env>>,
}

/// An import under way.
pub(super) struct Pipeline<'scope, 'env> {
    settings: Settings<'env>,
    workers: Workers<'env>,
    committer: Committer<'scope, 'env>,
    batch_bytes: usize,
    /// Groups that workers owe results for, by number.
    groups: BTreeMap<u64, Group>,
    next_group: u64,
    changes: Changes,
    /// Tensors that this import found or stores.
    known: HashSet<WeightHash>,
    begun: Begun,
    /// Tensors that are stored against others.
    delta_tensors: u64,
    /// Bytes of the files before.
    files_bytes: u64,
    /// Bytes of the files behind what is stored.
    left_bytes: u64,
    /// Whether a batch is on its way, or was.
    has_sent: bool,
}

/// Into so many batches at least goes what is left, but for the last of them.
const BATCHES_LEFT_MIN: u64 = 4;
/// The share of a batch that the last ones have at least.
const LAST_BATCH_SHARE: usize = 8;

/// A part whose chunks are to be stored, with its tensor.
struct PlannedWrite {
    part: Part,
    tensor: OpenTensor,
    /// The hash of the tensor, if the part is its last.
    root: Option<WeightHash>,
}

/// Parts whose chunks are being encoded.
struct Encoding {
    group: u64,
    writes: Vec<PlannedWrite>,
    /// Where in the file's data they end.
    end_bytes: u64,
}

/// The tensors of the file that is being imported.
#[derive(Default)]
struct FileState {
    roots: Vec<WeightHash>,
    /// Of which the next group holds more.
    open: Option<OpenTensor>,
    /// What was decided on last; workers have the next group to read while it is stored.
    encoding: Option<Encoding>,
    /// How far it is stored, in bytes of its data.
    stored_bytes: u64,
    /// A tensor that is stored without a look for one that begins like it.
    forced: Option<usize>,
}

impl<'scope, 'env> Pipeline<'scope, 'env> {
    pub(super) fn start(
        scope: &'scope Scope<'scope, 'env>,
        settings: Settings<'env>,
    ) -> Result<Self, WeightError> {
        Ok(Self {
            settings,
            workers: Workers::start(scope, settings.core)?,
            committer: Committer::start(scope, settings.session, settings.core.config.threads()),
            batch_bytes: settings.core.batch_bytes(),
            groups: BTreeMap::new(),
            next_group: 0,
            changes: Changes::default(),
            known: HashSet::new(),
            begun: Begun::new(),
            delta_tensors: 0,
            files_bytes: 0,
            left_bytes: settings.total_bytes,
            has_sent: false,
        })
    }

    /// Imports the tensors of a file and returns their hashes in order.
    pub(super) fn file(
        &mut self,
        file: &FileTensors<'env>,
        mut sha256: Option<&mut Sha256>,
    ) -> Result<Vec<WeightHash>, WeightError> {
        let mut state = FileState::default();
        let mut cursor = Cursor::default();
        let mut ahead = VecDeque::new();
        self.read_ahead(file, &mut cursor, &mut ahead);
        while let Some(id) = ahead.pop_front() {
            let group = self.wait(id)?;
            self.read_ahead(file, &mut cursor, &mut ahead);
            self.store(file, &mut state)?;
            let restart = self.settle(file, &mut state, group, sha256.as_deref_mut())?;
            if let Some(tensor) = restart {
                for id in ahead.drain(..) {
                    self.wait(id)?;
                }
                state.forced = Some(tensor);
                cursor = Cursor { tensor, chunk: 0 };
                self.read_ahead(file, &mut cursor, &mut ahead);
            }
        }
        self.store(file, &mut state)?;
        let data_bytes: u64 = file.tensors.iter().map(TensorInfo::len_bytes).sum();
        self.files_bytes += file.data_start + data_bytes;
        Ok(state.roots)
    }

    /// Tells how far the files are stored.
    fn report(&self, file: &FileTensors<'_>, state: &FileState) {
        if let Some(progress) = self.settings.progress {
            let done_bytes = self.files_bytes + file.data_start + state.stored_bytes;
            let total_bytes = self.settings.total_bytes;
            progress(Progress {
                done_bytes: done_bytes.min(total_bytes),
                total_bytes,
            });
        }
    }

    /// Has the next groups read, as many as it takes to have work for all until one of them is decided on.
    fn read_ahead(
        &mut self,
        file: &FileTensors<'env>,
        cursor: &mut Cursor,
        ahead: &mut VecDeque<u64>,
    ) {
        let chunks_of = |id: &u64| self.groups.get(id).map_or(0, |group| group.slots.len());
        let mut chunks: usize = ahead.iter().map(chunks_of).sum();
        while ahead.len() < GROUPS_AHEAD_MAX && chunks < CHUNKS_AHEAD_MIN {
            let Some((parts, planned)) = cursor.next_group(file.tensors) else {
                return;
            };
            chunks += planned.len();
            ahead.push_back(self.begin_group(file, parts, planned));
        }
    }

    /// Sends a group of chunks to the workers.
    fn begin_group(
        &mut self,
        file: &FileTensors<'env>,
        parts: Vec<Part>,
        chunks: Vec<PlannedChunk>,
    ) -> u64 {
        let id = self.next_group;
        self.next_group += 1;
        let end_bytes = chunks.last();
        let end_bytes = end_bytes.map_or(0, |chunk| chunk.offset_bytes + chunk.len as u64);
        let group = Group {
            parts,
            end_bytes,
            slots: chunks.iter().map(|_| Slot::default()).collect(),
            waiting: chunks.len(),
        };
        self.groups.insert(id, group);
        for (slot, chunk) in chunks.into_iter().enumerate() {
            self.workers.send(Job::Read {
                ticket: Ticket { group: id, slot },
                file: file.file,
                offset_bytes: file.data_start + chunk.offset_bytes,
                len: chunk.len,
            });
        }
        id
    }

    /// Waits until nothing of a group is owed any more.
    fn wait(&mut self, id: u64) -> Result<Group, WeightError> {
        while self.groups.get(&id).is_some_and(|group| group.waiting > 0) {
            for (ticket, outcome) in self.workers.wait(id).ok_or_else(worker_lost)? {
                let outcome = outcome?;
                let Some(group) = self.groups.get_mut(&ticket.group) else {
                    continue;
                };
                group.waiting -= 1;
                if let Some(slot) = group.slots.get_mut(ticket.slot) {
                    match outcome {
                        Outcome::Read { raw, leaf } => (slot.raw, slot.leaf) = (Some(raw), leaf),
                        Outcome::Encoded(encoded) => slot.encoded = Some(encoded),
                    }
                }
            }
        }
        Ok(self.groups.remove(&id).unwrap_or_default())
    }

    /// Decides on a hashed group and has what is new encoded; returns the tensor to begin again with, if any.
    fn settle(
        &mut self,
        file: &FileTensors<'env>,
        state: &mut FileState,
        mut group: Group,
        mut sha256: Option<&mut Sha256>,
    ) -> Result<Option<usize>, WeightError> {
        let mut writes = Vec::new();
        let mut restart = None;
        for part in std::mem::take(&mut group.parts) {
            let Some(info) = file.tensors.get(part.tensor) else {
                continue;
            };
            let slots = group.slots.get(part.slots.clone()).unwrap_or_default();
            let mut tensor = match state.open.take() {
                Some(tensor) => tensor,
                None => OpenTensor::new(part.tensor, info, sha256.as_deref()),
            };
            if state.forced == Some(part.tensor) {
                tensor.write_anyway();
            }
            if let Some(hasher) = sha256.as_deref_mut() {
                let chunks = slots.iter().filter_map(|slot| slot.raw.as_ref());
                chunks.for_each(|raw| hasher.update(&raw[..]));
            }
            let place = (self.settings.core, self.settings.session);
            match tensor.decide(place, &self.begun, info, &part, slots)? {
                Verdict::Restart => {
                    if let (Some(hasher), Some(before)) = (sha256, tensor.sha256_before) {
                        *hasher = before;
                    }
                    restart = Some(part.tensor);
                    group.end_bytes = info.start;
                    break;
                }
                Verdict::Skip if part.last => state.roots.extend(tensor.compared_with()),
                Verdict::Skip => state.open = Some(tensor),
                Verdict::Write => {
                    let write = self.plan_write(state, info, tensor, part, slots);
                    writes.extend(write);
                }
            }
        }
        self.seek_bases(file, &mut writes)?;
        state.encoding = Some(self.encode(file, group, writes)?);
        Ok(restart)
    }

    /// Takes a part in that is to be stored, unless its tensor turns out to be known.
    fn plan_write(
        &mut self,
        state: &mut FileState,
        info: &TensorInfo,
        mut tensor: OpenTensor,
        part: Part,
        slots: &[Slot],
    ) -> Option<PlannedWrite> {
        let root = part.last.then(|| tensor.root(info));
        if let Some(root) = root {
            state.roots.push(root);
            if self.known.contains(&root) || self.settings.session.keep(&root) {
                self.known.insert(root);
                if let Some((body, count)) = tensor.writer.started() {
                    self.changes.drop_body(body, count);
                }
                return None;
            }
            self.known.insert(root);
        }
        tensor.take_bytes(slots);
        Some(PlannedWrite { part, tensor, root })
    }

    /// Stores what is being encoded, once it is.
    fn store(
        &mut self,
        file: &FileTensors<'env>,
        state: &mut FileState,
    ) -> Result<(), WeightError> {
        let Some(encoding) = state.encoding.take() else {
            return Ok(());
        };
        let Encoding {
            group,
            writes,
            end_bytes,
        } = encoding;
        let mut slots = self.wait(group)?.slots;
        for mut write in writes {
            let chunks = slots.get_mut(write.part.slots.clone()).unwrap_or_default();
            for slot in chunks {
                let Some(encoded) = slot.encoded.take() else {
                    return Err(worker_lost());
                };
                self.make_room(encoded.bytes.len())?;
                let core = self.settings.core;
                write
                    .tensor
                    .writer
                    .push(core, slot.leaf, encoded, &mut self.changes);
            }
            match (write.root, file.tensors.get(write.part.tensor)) {
                (Some(hash), Some(info)) => {
                    let (base, sketch) = write.tensor.conclude();
                    let record = ObjectRecord {
                        dtype: info.dtype,
                        shape: info.shape.clone(),
                        alias: write.tensor.alias.finish(),
                        base: base.as_deref().map(link_to),
                        body: write.tensor.writer.finish(),
                    };
                    self.make_room(header_bytes(&record.body, &record.shape))?;
                    let hint = hint_of(&record);
                    if let Some(hint) = hint {
                        self.begun.insert(hint, (hash, record.body.leaves()));
                    }
                    self.delta_tensors += u64::from(record.base.is_some());
                    self.changes.add_object(NewObject {
                        hash,
                        record,
                        hint,
                        sketch,
                    });
                }
                _ => {
                    write.tensor.review_base();
                    state.open = Some(write.tensor);
                }
            }
        }
        // A group without content ends nowhere, and a tensor may be read again from where it begins.
        state.stored_bytes = state.stored_bytes.max(end_bytes);
        let stored_bytes = self.files_bytes + file.data_start + state.stored_bytes;
        self.left_bytes = self.settings.total_bytes.saturating_sub(stored_bytes);
        self.report(file, state);
        Ok(())
    }

    /// Looks for what the tensors that begin here may be stored against.
    fn seek_bases(
        &self,
        file: &FileTensors<'env>,
        writes: &mut [PlannedWrite],
    ) -> Result<(), WeightError> {
        let Settings {
            core,
            session,
            bases,
            ..
        } = self.settings;
        if bases.is_empty() {
            return Ok(());
        }
        let seeking = writes.iter_mut().filter(|write| write.tensor.is_baseless());
        parallel::map(core.fetch_threads(), seeking.collect(), |write| {
            let whole = write.part.last;
            write.tensor.seek_base((core, session), bases, file, whole)
        })
        .into_iter()
        .collect()
    }

    fn encode(
        &mut self,
        file: &FileTensors<'env>,
        mut group: Group,
        writes: Vec<PlannedWrite>,
    ) -> Result<Encoding, WeightError> {
        let id = self.next_group;
        self.next_group += 1;
        let end_bytes = group.end_bytes;
        let codec = self.settings.codec;
        let planned = writes.iter().flat_map(|write| {
            let info = file.tensors.get(write.part.tensor);
            let dtype = info.map_or(DType::U8, |info| info.dtype);
            let first = write.tensor.writer.count();
            let base = write.tensor.base();
            let alias = &write.tensor.alias;
            write
                .part
                .slots
                .clone()
                .enumerate()
                .map(move |(at, index)| {
                    let base = base.map(|base| (Arc::clone(base), first + at));
                    let alias = (Arc::clone(alias), first + at);
                    (index, ChunkPlan { codec, dtype, base }, alias)
                })
        });
        for (index, encoding, alias) in planned {
            let slot = group.slots.get_mut(index);
            // A chunk left out would keep those behind it in its alias waiting.
            let Some(raw) = slot.and_then(|slot| slot.raw.take()) else {
                return Err(worker_lost());
            };
            group.waiting += 1;
            let ticket = Ticket {
                group: id,
                slot: index,
            };
            self.workers.send(Job::Encode {
                ticket,
                encoding,
                alias,
                raw,
            });
        }
        self.groups.insert(id, group);
        Ok(Encoding {
            group: id,
            writes,
            end_bytes,
        })
    }

    fn make_room(&mut self, next_bytes: usize) -> Result<(), WeightError> {
        if self.changes.is_full(next_bytes, self.room_bytes()) {
            self.has_sent = true;
            self.committer.commit(std::mem::take(&mut self.changes))?;
        }
        Ok(())
    }

    /// Waits for what is being committed, after a failure.
    pub(super) fn abandon(self) {
        self.committer.abandon(self.settings.session);
    }

    /// Bytes of the batch that is being made. Towards the end of an import batches are shorter: what is on its way when
    /// there is nothing left to encode is waited for with the cores idle. What fits one batch is not cut.
    fn room_bytes(&self) -> usize {
        if !self.has_sent {
            return self.batch_bytes;
        }
        let share = usize::try_from(self.left_bytes / BATCHES_LEFT_MIN).unwrap_or(usize::MAX);
        share.clamp(self.batch_bytes / LAST_BATCH_SHARE, self.batch_bytes)
    }

    /// Waits for the commits under way; what is left is for the last one.
    pub(super) fn finish(self) -> Result<Totals, WeightError> {
        let mut totals = self.committer.finish()?;
        if !totals.rest.has_room_for(&self.changes, self.batch_bytes) {
            let headers = std::mem::take(&mut totals.rest);
            totals.commit(self.settings.session, headers)?;
        }
        totals.rest.append(self.changes);
        totals.delta_tensors = self.delta_tensors;
        Ok(totals)
    }
}
