//! Notes for a group, without a server: one of the applications that P2PS was used for. Whoever joins late gets the board.
//!
//! In three terminals:
//! ```text
//! cargo run -p p2ps --example postit -- ann 127.0.0.1:4001
//! cargo run -p p2ps --example postit -- bob 127.0.0.1:0 p2ps://127.0.0.1:4001
//! cargo run -p p2ps --example postit -- eve 127.0.0.1:0 p2ps://127.0.0.1:4001
//! ```
//! Then type `post TEXT`, `list`, `withdraw NOTE` or `quit`.

#![expect(clippy::print_stdout, reason = "a program for people")]

mod board;
mod session;
#[path = "../common/terminal.rs"]
mod terminal;

use session::Session;
use tokio::sync::mpsc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (node, messages, name) = terminal::enter("postit").await?;
    println!("others join by {}; post TEXT, list, withdraw NOTE, or quit", node.access_point());
    let (said, mut lines) = mpsc::channel(64);
    let session = tokio::spawn(Session::new(node, messages, name, said).run(terminal::typed_lines()));
    while let Some(line) = lines.recv().await {
        println!("{line}");
    }
    Ok(session.await??)
}
