//! One participant: its node, its copy of the board, and the talk that keeps all copies equal.
//!
//! A change is broadcast. Who missed one, or joined late, gets it from its neighbour: now and then a node tells its successor the
//! digest of its board, and where they differ the two exchange their boards.

use std::time::Duration;

use p2ps::id::Id;
use p2ps::node::{Message, Messages, Node, NodeError};
use p2ps::typed;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::{Interval, interval};

use crate::board::{Board, Change, NoteId, TEXT_BYTES_MAX};

/// How often a node compares its board with its successor's.
const COMPARE_EVERY: Duration = Duration::from_secs(2);

/// The most changes in one message: they fit, however long they are.
const CHANGES_MAX: usize = 256;

/// What participants say to each other.
#[derive(Debug, Serialize, Deserialize)]
enum Talk {
    /// To all: this has happened.
    Change(Change),
    /// To the successor: this is my board's digest.
    Digest(u64),
    /// To a neighbour: this is on my board, or some of it. `answer`: show me yours.
    Board { changes: Vec<Change>, answer: bool },
}

/// A participant. It lives until its orders end.
pub(crate) struct Session {
    node: Node,
    messages: Messages,
    author: String,
    board: Board,
    posted: u64,
    said: mpsc::Sender<String>,
}

impl Session {
    /// `said` gets the lines that the participant is shown.
    pub(crate) fn new(node: Node, messages: Messages, author: String, said: mpsc::Sender<String>) -> Session {
        Session { node, messages, author, board: Board::default(), posted: 0, said }
    }

    /// Carries out orders (`post TEXT`, `list`, `withdraw NOTE`, `quit`) until they end, then leaves.
    ///
    /// # Errors
    /// [`NodeError::HasStopped`] if the node is no member any more.
    pub(crate) async fn run(mut self, mut orders: mpsc::Receiver<String>) -> Result<(), NodeError> {
        let mut compare: Interval = interval(COMPARE_EVERY);
        loop {
            tokio::select! {
                order = orders.recv() => match order.as_deref().map(str::trim) {
                    None | Some("quit") => break,
                    Some(order) => self.obey(order).await?,
                },
                message = self.messages.next() => match message {
                    Some(message) => self.hear(message).await,
                    None => return Err(NodeError::HasStopped),
                },
                _ = compare.tick() => self.say_to_successor(&Talk::Digest(self.board.digest()))?,
            }
        }
        self.node.leave().await.map(|_| ())
    }

    async fn obey(&mut self, order: &str) -> Result<(), NodeError> {
        let (verb, rest) = order.split_once(' ').unwrap_or((order, ""));
        match (verb, rest.trim()) {
            ("post", text) if !text.is_empty() && text.len() + self.author.len() <= TEXT_BYTES_MAX => {
                // Numbers go on where an earlier life of this node stopped.
                self.posted = self.posted.max(self.board.last_number(self.node.id())) + 1;
                let note = NoteId { node: self.node.id(), number: self.posted };
                let (author, text) = (self.author.clone(), text.to_owned());
                self.change(Change::Posted { note, author, text }).await?;
            }
            ("post", "") => self.show("post what? Write: post TEXT".to_owned()).await,
            ("post", _) => self.show(format!("a note has at most {TEXT_BYTES_MAX} bytes")).await,
            ("withdraw", note) => match note.parse::<NoteId>() {
                Ok(note) if self.board.notes().any(|(other, ..)| other == note) => {
                    self.change(Change::Withdrawn { note }).await?;
                }
                Ok(note) => self.show(format!("there is no note {note}")).await,
                Err(problem) => self.show(problem).await,
            },
            ("list", "") => self.list().await,
            ("", _) => {}
            _ => self.show("post TEXT, list, withdraw NOTE, or quit".to_owned()).await,
        }
        Ok(())
    }

    async fn list(&self) {
        let lines: Vec<String> =
            self.board.notes().map(|(note, author, text)| format!("{note}  {author}: {text}")).collect();
        let count = lines.len();
        for line in lines {
            self.show(line).await;
        }
        self.show(format!("{count} notes")).await;
    }

    /// Something has happened here: all are told.
    async fn change(&mut self, change: Change) -> Result<(), NodeError> {
        self.take(&change).await;
        if let Ok(payload) = typed::encode(&Talk::Change(change)) {
            self.node.broadcast(payload)?;
        }
        Ok(())
    }

    /// Takes a change in, and shows it if it is new.
    async fn take(&mut self, change: &Change) {
        if !self.board.apply(change) {
            return;
        }
        match change {
            Change::Posted { note, author, text } => self.show(format!("+ {note}  {author}: {text}")).await,
            Change::Withdrawn { note } => self.show(format!("- {note}")).await,
        }
    }

    /// What is no talk of ours is not heard.
    async fn hear(&mut self, message: Message) {
        match message.value::<Talk>() {
            Ok(Talk::Change(change)) => self.take(&change).await,
            Ok(Talk::Digest(digest)) if digest != self.board.digest() => {
                self.tell_board(message.source, true)
            }
            Ok(Talk::Board { changes, answer }) => {
                for change in &changes {
                    self.take(change).await;
                }
                if answer {
                    self.tell_board(message.source, false);
                }
            }
            Ok(Talk::Digest(_)) | Err(_) => {}
        }
    }

    /// The whole board, piece by piece. Meanwhile the session goes on; what is lost comes with the next comparison.
    fn tell_board(&self, to: Id, answer: bool) {
        let changes: Vec<Change> = self.board.changes().collect();
        let count = changes.len().div_ceil(CHANGES_MAX).max(1);
        let mut pieces = Vec::with_capacity(count);
        for piece in 0..count {
            let end = changes.len().min((piece + 1) * CHANGES_MAX);
            let talk = Talk::Board {
                changes: changes[(piece * CHANGES_MAX).min(end)..end].to_vec(),
                answer: answer && piece + 1 == count,
            };
            pieces.extend(typed::encode(&talk));
        }
        let node = self.node.clone();
        tokio::spawn(async move {
            for piece in pieces {
                if node.send_reliably(to, piece).await.is_err() {
                    return;
                }
            }
        });
    }

    fn say_to_successor(&self, talk: &Talk) -> Result<(), NodeError> {
        match typed::encode(talk) {
            Ok(payload) => self.node.send_to_successors(1, payload),
            Err(_) => Ok(()),
        }
    }

    async fn show(&self, line: String) {
        // Nobody may be looking any more.
        let _ = self.said.send(line).await;
    }
}
