//! A worker process of an agent (`p2ps-node agent --worker`): carries many nodes, each as a task of its one thread.
//!
//! It hears calls on standard input, a line each: the node, the number of its life, what to do, and with what (as JSON:
//! `17 1 order {"sample":null}`). It tells what its nodes say on standard output, a JSON value a line. The end of its input is
//! its end, and that of its nodes.

use std::collections::HashMap;
use std::io;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use super::body::{Heard, Life, NodeEvent};
use super::lines::LineBuffer;
use super::protocol::{NOTICE_BYTES_MAX, NodeIndex};
use super::task::Task;
use super::{AgentError, EVENTS_MAX};
use crate::control::managed::{bind_to_parent, duplicate};

/// How much is read at once, in bytes.
const READ_BYTES_MAX: usize = 64 << 10;

/// How many bytes are written at once; more where one event is longer.
const WRITE_BYTES: usize = 64 << 10;

/// What a worker is told to do with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// Start it; with its setup.
    Start,
    /// Give it an order.
    Order,
    /// Let it stand still.
    Pause,
    /// Let it go on.
    Resume,
    /// Let nothing of it be left.
    Kill,
}

impl Call {
    const ALL: [Call; 5] = [Call::Start, Call::Order, Call::Pause, Call::Resume, Call::Kill];

    fn as_str(self) -> &'static str {
        match self {
            Call::Start => "start",
            Call::Order => "order",
            Call::Pause => "pause",
            Call::Resume => "resume",
            Call::Kill => "kill",
        }
    }

    /// The call as a line; `what` ends with a line feed.
    pub(super) fn line(self, life: Life, what: &[u8]) -> Bytes {
        let mut line = format!("{} {} {} ", life.node, life.number, self.as_str()).into_bytes();
        line.extend_from_slice(what);
        line.into()
    }

    fn parse(line: &[u8]) -> Option<(Life, Call, &[u8])> {
        let mut words = line.splitn(4, |byte| *byte == b' ');
        let mut word = || str::from_utf8(words.next()?).ok();
        let life = Life { node: word()?.parse::<NodeIndex>().ok()?, number: word()?.parse().ok()? };
        let name = word()?;
        let call = Call::ALL.into_iter().find(|call| call.as_str() == name)?;
        Some((life, call, words.next()?))
    }
}

/// Runs a worker until its input ends.
///
/// # Errors
/// [`AgentError::System`].
pub(super) fn run() -> Result<(), AgentError> {
    let runtime = bind_to_parent()
        .and_then(|()| tokio::runtime::Builder::new_current_thread().enable_all().build())
        .map_err(|source| AgentError::System { what: "start a worker", source })?;
    let served = LocalSet::new().block_on(&runtime, serve());
    served.map_err(|source| AgentError::System { what: "talk with its worker", source })
}

async fn serve() -> io::Result<()> {
    let mut input = pipe::Receiver::from_owned_fd(duplicate(&io::stdin())?)?;
    let output = pipe::Sender::from_owned_fd(duplicate(&io::stdout())?)?;
    let (tell, told) = mpsc::channel(EVENTS_MAX);
    let mut telling = tokio::spawn(write(output, told));
    let mut nodes = Nodes { tasks: HashMap::new(), events: tell };
    let mut lines = LineBuffer::new(NOTICE_BYTES_MAX);
    let mut chunk = vec![0; READ_BYTES_MAX];
    loop {
        let length = tokio::select! {
            read = input.read(&mut chunk) => read?,
            told = &mut telling => return told.unwrap_or_else(|error| Err(io::Error::other(error))),
        };
        if length == 0 {
            return Ok(());
        }
        lines.extend(&chunk[..length]);
        while let Some(line) = lines.next_line().map_err(io::Error::other)? {
            let Some((life, call, what)) = Call::parse(line) else {
                return Err(io::Error::other("a line is no call"));
            };
            nodes.call(life, call, what);
        }
    }
}

/// The nodes that live here.
struct Nodes {
    tasks: HashMap<Life, Task>,
    events: mpsc::Sender<NodeEvent>,
}

impl Nodes {
    fn call(&mut self, life: Life, call: Call, what: &[u8]) {
        if call == Call::Start {
            // Those that have ended are forgotten when others come.
            self.tasks.retain(|_, task| !task.has_ended());
            self.tasks.insert(life, Task::start(life, Bytes::copy_from_slice(what), self.events.clone()));
            return;
        }
        // It may have ended by itself meanwhile, and its agent not know it yet.
        let Some(task) = self.tasks.get(&life) else { return };
        match call {
            Call::Start => {}
            Call::Order => task.order(Bytes::copy_from_slice(what)),
            Call::Pause => task.pause(),
            Call::Resume => task.resume(),
            Call::Kill => task.kill(),
        }
    }
}

/// Writes events until nobody reads them.
async fn write(mut output: pipe::Sender, mut told: mpsc::Receiver<NodeEvent>) -> io::Result<()> {
    let mut batch = Vec::new();
    while let Some(event) = told.recv().await {
        write_event(event, &mut batch)?;
        while batch.len() < WRITE_BYTES
            && let Ok(event) = told.try_recv()
        {
            write_event(event, &mut batch)?;
        }
        output.write_all(&batch).await?;
        batch.clear();
        batch.shrink_to(WRITE_BYTES);
    }
    Ok(())
}

/// Each word in a line of its own: the length of a line is bounded.
fn write_event(event: NodeEvent, batch: &mut Vec<u8>) -> io::Result<()> {
    let NodeEvent { life, what } = event;
    let all = match what {
        Heard::Words(words) => words.into_iter().map(|word| Heard::Words(vec![word])).collect(),
        other => vec![other],
    };
    for what in all {
        serde_json::to_writer(&mut *batch, &NodeEvent { life, what })?;
        batch.push(b'\n');
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_understood_and_other_lines_are_not() {
        let life = Life { node: 17, number: 2 };
        for call in Call::ALL {
            let line = call.line(life, b"{\"a b\": 1}\n");
            assert_eq!(Call::parse(line.trim_ascii_end()), Some((life, call, &b"{\"a b\": 1}"[..])));
        }
        assert_eq!(Call::parse(b"17 2 kill "), Some((life, Call::Kill, &b""[..])));
        for line in
            ["", "17", "17 2", "17 2 kill", "17 2 dance ", "x 2 kill ", "17 -2 kill ", "4294967296 1 kill "]
        {
            assert_eq!(Call::parse(line.as_bytes()), None, "{line}");
        }
    }
}
