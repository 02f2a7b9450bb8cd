//! Lines out of a stream of bytes, with a bound on their length.

/// Collects bytes and gives them back line by line. Never holds more than one line of the greatest length and what came
/// with it.
#[derive(Debug)]
pub struct LineBuffer {
    bytes: Vec<u8>,
    /// Where the next line begins.
    start: usize,
    /// No line feed lies between `start` and here.
    searched: usize,
    length_max: usize,
}

/// A line is longer than is allowed; nothing can be read after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line of more than {length_max} bytes")]
pub struct LineTooLong {
    /// The greatest length, in bytes.
    pub length_max: usize,
}

impl LineBuffer {
    /// A buffer for lines of at most `length_max` bytes.
    pub fn new(length_max: usize) -> LineBuffer {
        LineBuffer { bytes: Vec::new(), start: 0, searched: 0, length_max }
    }

    /// Appends what was read.
    pub fn extend(&mut self, bytes: &[u8]) {
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
            self.searched = 0;
            // One long line shall not cost its memory for ever.
            self.bytes.shrink_to(64 << 10);
        } else if self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.searched -= self.start;
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next line, without its line feed; `None` until more is read.
    ///
    /// # Errors
    /// [`LineTooLong`]; the stream cannot be understood any further.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>, LineTooLong> {
        let too_long = LineTooLong { length_max: self.length_max };
        match self.bytes[self.searched..].iter().position(|byte| *byte == b'\n') {
            Some(position) => {
                let line = self.start..self.searched + position;
                self.start = line.end + 1;
                self.searched = self.start;
                if line.len() > self.length_max { Err(too_long) } else { Ok(Some(&self.bytes[line])) }
            }
            None => {
                self.searched = self.bytes.len();
                if self.searched - self.start > self.length_max { Err(too_long) } else { Ok(None) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_however_the_bytes_went_in() {
        let text: Vec<u8> = (0..500).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
        for step in [1, 2, 7, 64, text.len()] {
            let mut lines = LineBuffer::new(16);
            let mut seen = Vec::new();
            for chunk in text.chunks(step) {
                lines.extend(chunk);
                while let Some(line) = lines.next_line().unwrap() {
                    seen.push(String::from_utf8(line.to_vec()).unwrap());
                }
            }
            assert_eq!(seen, (0..500).map(|n| format!("line {n}")).collect::<Vec<_>>(), "step {step}");
        }
    }

    #[test]
    fn a_line_without_end_is_refused_at_its_bound() {
        let mut lines = LineBuffer::new(8);
        lines.extend(b"12345678");
        assert_eq!(lines.next_line(), Ok(None), "it may still end here");
        lines.extend(b"9");
        assert_eq!(lines.next_line(), Err(LineTooLong { length_max: 8 }));
        let mut lines = LineBuffer::new(8);
        lines.extend(b"123456789\n");
        assert!(lines.next_line().is_err(), "also when its end came with it");
    }
}
