//! A network with a key, by hand: one line makes the key, each node reads it from its standard input, and nothing shows it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

struct ByHand {
    child: Child,
    output: BufReader<ChildStdout>,
    said: String,
}

impl ByHand {
    fn start(arguments: &[&str], input: &str) -> ByHand {
        let mut child = Command::new(env!("CARGO_BIN_EXE_p2ps-node"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Who reads no input may have ended before it came.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = BufReader::new(child.stdout.take().unwrap());
        ByHand { child, output, said: String::new() }
    }

    /// The next line that begins so; the rest of it.
    fn wait_for(&mut self, beginning: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "no {beginning:?} in: {}", self.said);
            self.said.push_str(&line);
            if let Some(rest) = line.strip_prefix(beginning) {
                return rest.trim().to_owned();
            }
        }
    }

    /// Its exit code, and all that it said on standard error.
    fn end(&mut self) -> (Option<i32>, String) {
        let mut errors = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        (self.child.wait().unwrap().code(), errors)
    }
}

impl Drop for ByHand {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const RUN: [&str; 2] = ["run", "--network-key-stdin"];

#[test]
fn a_network_by_hand_has_its_key_from_standard_input_and_shows_it_nowhere() {
    let key = ByHand::start(&["new-key"], "").wait_for("");
    let mut first = ByHand::start(&RUN, &format!("{key}\n"));
    let at = first.wait_for("access point");
    first.wait_for("created a network");
    let mut second = ByHand::start(&[&RUN[..], &["--join", &at]].concat(), &key);
    second.wait_for("joined the network");

    let other = ByHand::start(&["new-key"], "").wait_for("");
    assert_ne!(key, other);
    for (arguments, input, why) in [
        (&["run"][..], "", "this node was given none"),
        (&RUN[..], &other[..], "another than the other node's"),
    ] {
        let (code, errors) = ByHand::start(&[arguments, &["--join", &at]].concat(), input).end();
        assert_eq!(code, Some(3));
        assert!(errors.contains(why), "{errors}");
    }
    for node in [&first, &second] {
        for name in ["cmdline", "environ"] {
            let bytes = std::fs::read(format!("/proc/{}/{name}", node.child.id())).unwrap();
            assert!(!bytes.windows(key.len()).any(|window| window == key.as_bytes()), "{name}");
        }
        assert!(!node.said.contains(&key), "{}", node.said);
    }
}

#[test]
fn what_is_no_key_is_refused_before_anything_is_started() {
    for input in ["", "\n", "0123", &"x".repeat(64)] {
        let mut node = ByHand::start(&RUN, input);
        let (code, errors) = node.end();
        assert_eq!(code, Some(2), "{input:?}");
        assert!(errors.contains("64 hexadecimal digits"), "{errors}");
    }
}
