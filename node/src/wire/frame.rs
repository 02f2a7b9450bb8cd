//! Frames out of a stream of bytes.

use super::{FRAME_BYTES_MAX, PREFIX_BYTES};

/// Cuts a stream of bytes into frames. Whole frames are handed on where they lie; only a frame that is cut off by the end of
/// what was read is kept, and its memory is freed once it is whole. So a link that is at rest holds no buffer.
#[derive(Debug, Default)]
pub struct FrameReader {
    partial: Vec<u8>,
}

impl FrameReader {
    /// Takes in `chunk`, and hands the body of each frame that is now whole to `each`, in order.
    ///
    /// # Errors
    /// [`FrameError`] for a length out of bounds, found before anything is kept of the frame; or what `each` says. The stream
    /// is of no use after either.
    pub fn feed<E: From<FrameError>>(
        &mut self,
        mut chunk: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while !self.partial.is_empty() {
            let Some(frame_bytes) = frame_bytes(&self.partial)? else {
                if !self.take(&mut chunk, PREFIX_BYTES) {
                    return Ok(());
                }
                continue;
            };
            if !self.take(&mut chunk, frame_bytes) {
                return Ok(());
            }
            let whole = std::mem::take(&mut self.partial);
            each(&whole[PREFIX_BYTES..])?;
        }
        while let Some(frame_bytes) = frame_bytes(chunk)? {
            let Some((frame, rest)) = chunk.split_at_checked(frame_bytes) else { break };
            each(&frame[PREFIX_BYTES..])?;
            chunk = rest;
        }
        self.partial.extend_from_slice(chunk);
        Ok(())
    }

    /// How many bytes it keeps of a frame that is not whole yet.
    pub fn kept_bytes(&self) -> usize {
        self.partial.len()
    }

    /// Moves bytes from `chunk` until `bytes` are kept, and tells whether they are.
    fn take(&mut self, chunk: &mut &[u8], bytes: usize) -> bool {
        let wanted = bytes.saturating_sub(self.partial.len()).min(chunk.len());
        let (taken, rest) = chunk.split_at(wanted);
        self.partial.extend_from_slice(taken);
        *chunk = rest;
        self.partial.len() >= bytes
    }
}

/// The length of the frame that `bytes` begin with, with its prefix; `None` while the prefix is not whole.
fn frame_bytes(bytes: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some(prefix) = bytes.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
    let body_bytes = u32::from_le_bytes(*prefix);
    if body_bytes as usize > FRAME_BYTES_MAX {
        return Err(FrameError { bytes: body_bytes });
    }
    Ok(Some(body_bytes as usize + PREFIX_BYTES))
}

/// A frame's length is out of bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {bytes} bytes was announced, at most {FRAME_BYTES_MAX} are allowed")]
pub struct FrameError {
    /// The length that was announced.
    pub bytes: u32,
}
