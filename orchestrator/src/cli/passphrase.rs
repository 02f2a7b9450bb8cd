//! Asks for a secret at the terminal, without showing it.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// The longest secret, in bytes.
const BYTES_MAX: u64 = 4096;

/// Asks at the controlling terminal, wherever standard input and output lead.
///
/// # Errors
/// What the system said: where there is no terminal, above all.
pub(super) fn ask(question: &str) -> io::Result<String> {
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    let silence = Silence::begin(&terminal)?;
    (&terminal).write_all(question.as_bytes())?;
    let mut line = String::new();
    BufReader::new((&terminal).take(BYTES_MAX)).read_line(&mut line)?;
    drop(silence);
    (&terminal).write_all(b"\n")?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// While it lives, the terminal does not show what is typed.
struct Silence<'a> {
    terminal: &'a File,
    before: Termios,
}

impl Silence<'_> {
    fn begin(terminal: &File) -> io::Result<Silence<'_>> {
        let before = tcgetattr(terminal)?;
        let mut silent = before.clone();
        silent.local_modes -= LocalModes::ECHO;
        tcsetattr(terminal, OptionalActions::Flush, &silent)?;
        Ok(Silence { terminal, before })
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        // Where the terminal is gone there is nothing to restore.
        tcsetattr(self.terminal, OptionalActions::Flush, &self.before).ok();
    }
}
