//! What waits to be written on a link: frames, and on a sealed link the record that they become.

use super::channel::{ChannelError, Sealer};
use crate::wire::PREFIX_BYTES;

/// Frames in the order in which they leave. A link at rest holds no memory here.
#[derive(Debug)]
pub(super) struct Outgoing {
    frames: Vec<u8>,
    /// How many bytes of `frames` have been written, or sealed.
    done: usize,
    sealed: Option<Box<Sealed>>,
}

#[derive(Debug)]
struct Sealed {
    sealer: Sealer,
    /// The record that is being written. Only one at a time: what waits behind it waits once.
    record: Vec<u8>,
    written: usize,
}

impl Outgoing {
    /// Begins with `frames`; what is sealed goes through `sealer`, where there is one.
    pub(super) fn new(frames: Vec<u8>, sealer: Option<Sealer>) -> Outgoing {
        let sealed = sealer.map(|sealer| Box::new(Sealed { sealer, record: Vec::new(), written: 0 }));
        Outgoing { frames, done: 0, sealed }
    }

    /// Where further frames are appended.
    pub(super) fn frames(&mut self) -> &mut Vec<u8> {
        &mut self.frames
    }

    /// How many bytes wait to be written.
    pub(super) fn waiting_bytes(&self) -> usize {
        let record_bytes = self.sealed.as_ref().map_or(0, |sealed| sealed.record.len() - sealed.written);
        self.frames.len() - self.done + record_bytes
    }

    /// How many messages wait to be written, whole or in part. On a sealed link those of the record that is being written are
    /// not among them.
    pub(super) fn waiting_messages(&self) -> usize {
        let (mut start, mut messages) = (0, 0);
        while let Some(prefix) = self.frames.get(start..).and_then(|rest| rest.first_chunk::<PREFIX_BYTES>())
        {
            let body_bytes = u32::from_le_bytes(*prefix) as usize;
            start += PREFIX_BYTES + body_bytes;
            // A farewell is no message.
            messages += usize::from(start > self.done && body_bytes > 0);
        }
        messages
    }

    /// What is to be written next; nothing: nothing waits.
    ///
    /// # Errors
    /// Nothing more can be sealed: the link is of no use.
    pub(super) fn next(&mut self) -> Result<&[u8], ChannelError> {
        let Some(sealed) = &mut self.sealed else { return Ok(&self.frames[self.done..]) };
        if sealed.written == sealed.record.len() && self.done < self.frames.len() {
            sealed.record.clear();
            sealed.written = 0;
            self.done += sealed.sealer.seal(&self.frames[self.done..], &mut sealed.record)?;
        }
        Ok(&sealed.record[sealed.written..])
    }

    /// So many bytes of what [`Outgoing::next`] gave have been written.
    pub(super) fn wrote(&mut self, bytes: usize) {
        match &mut self.sealed {
            None => self.done += bytes,
            Some(sealed) => sealed.written += bytes,
        }
    }

    /// Forgets what waits, and gives the memory back.
    pub(super) fn clear(&mut self) {
        (self.frames, self.done) = (Vec::new(), 0);
        if let Some(sealed) = &mut self.sealed {
            (sealed.record, sealed.written) = (Vec::new(), 0);
        }
    }
}
