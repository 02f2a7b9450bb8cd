//! One participant: its node, its copy of the text, and the talk that keeps all copies equal.
//!
//! An edit is broadcast. Who missed one, or joined late, gets it from its neighbour: now and then a node tells its successor the
//! version of its copy; where the two differ, each sends the other what it lacks.

use std::time::Duration;

use p2ps::id::Id;
use p2ps::node::{Message, Messages, Node, NodeError};
use p2ps::typed;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::interval;

use crate::panel::{Edit, Panel, Version};

/// What a participant may type.
pub(crate) const ORDERS: &str =
    "append TEXT, insert LINE TEXT, replace LINE TEXT, delete LINE, show, or quit";

/// How often a node compares its copy with its successor's.
const COMPARE_EVERY: Duration = Duration::from_secs(2);

/// What participants say to each other.
#[derive(Debug, Serialize, Deserialize)]
enum Talk {
    /// These changes were made.
    Update(Vec<u8>),
    /// The sender's copy has this version: what does it lack? `answer`: it has heard the receiver's.
    Version { version: Version, answer: bool },
}

/// A participant. It lives until its orders end.
pub(crate) struct Session {
    node: Node,
    messages: Messages,
    panel: Panel,
    said: mpsc::Sender<String>,
}

impl Session {
    /// `said` gets the lines that the participant is shown.
    pub(crate) fn new(node: Node, messages: Messages, said: mpsc::Sender<String>) -> Session {
        Session { node, messages, panel: Panel::new(), said }
    }

    /// Carries out orders until they end, then leaves.
    ///
    /// # Errors
    /// [`NodeError::HasStopped`] if the node is no member any more.
    pub(crate) async fn run(mut self, mut orders: mpsc::Receiver<String>) -> Result<(), NodeError> {
        let mut compare = interval(COMPARE_EVERY);
        loop {
            tokio::select! {
                order = orders.recv() => match order.as_deref().map(str::trim) {
                    None | Some("quit") => break,
                    Some("") => {}
                    Some("show") => self.show_all().await,
                    Some(order) => self.obey(order).await?,
                },
                message = self.messages.next() => match message {
                    Some(message) => self.hear(&message).await,
                    None => return Err(NodeError::HasStopped),
                },
                _ = compare.tick() => self.compare()?,
            }
        }
        self.node.leave().await.map(|_| ())
    }

    async fn obey(&mut self, order: &str) -> Result<(), NodeError> {
        match parse(order).and_then(|edit| self.panel.edit(&edit)) {
            Ok(update) => {
                if let Ok(payload) = typed::encode(&Talk::Update(update)) {
                    self.node.broadcast(payload)?;
                }
                self.show_all().await;
            }
            Err(problem) => self.show(problem).await,
        }
        Ok(())
    }

    /// What is no talk of ours is not heard.
    async fn hear(&mut self, message: &Message) {
        match message.value::<Talk>() {
            Ok(Talk::Update(update)) if self.panel.merge(&update) => self.show_all().await,
            Ok(Talk::Version { version, answer }) => {
                let Some(update) = self.panel.missing_since(&version) else { return };
                self.tell(message.source, &Talk::Update(update));
                if !answer {
                    let version = self.panel.version();
                    self.tell(message.source, &Talk::Version { version, answer: true });
                }
            }
            Ok(Talk::Update(_)) | Err(_) => {}
        }
    }

    /// Best effort: what is lost comes with the next comparison.
    fn tell(&self, node: Id, talk: &Talk) {
        if let Ok(payload) = typed::encode(talk) {
            let _ = self.node.send(node, payload);
        }
    }

    fn compare(&self) -> Result<(), NodeError> {
        match typed::encode(&Talk::Version { version: self.panel.version(), answer: false }) {
            Ok(payload) => self.node.send_to_successors(1, payload),
            Err(_) => Ok(()),
        }
    }

    async fn show_all(&self) {
        let lines = self.panel.lines();
        let numbered = lines.iter().enumerate().map(|(index, line)| format!("{:>3}  {line}\n", index + 1));
        self.show(format!("{}--- {} lines", numbered.collect::<String>(), lines.len())).await;
    }

    async fn show(&self, text: String) {
        // Nobody may be looking any more.
        let _ = self.said.send(text).await;
    }
}

fn parse(order: &str) -> Result<Edit, String> {
    let (verb, rest) = order.split_once(' ').unwrap_or((order, ""));
    let (number, text) = rest.trim_start().split_once(' ').unwrap_or((rest.trim(), ""));
    let line = || number.parse::<usize>().map_err(|_| format!("{number:?} is no line: {ORDERS}"));
    match verb {
        "append" => Ok(Edit::Append(rest.to_owned())),
        "insert" => Ok(Edit::Insert(line()?, text.to_owned())),
        "replace" => Ok(Edit::Replace(line()?, text.to_owned())),
        "delete" => Ok(Edit::Delete(line()?)),
        _ => Err(ORDERS.to_owned()),
    }
}
