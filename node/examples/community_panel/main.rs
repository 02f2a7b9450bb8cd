//! Several people edit one text at once, without a server: one of the applications that P2PS was used for.
//!
//! In three terminals:
//! ```text
//! cargo run -p p2ps --example community_panel -- ann 127.0.0.1:4001
//! cargo run -p p2ps --example community_panel -- bob 127.0.0.1:0 p2ps://127.0.0.1:4001
//! cargo run -p p2ps --example community_panel -- eve 127.0.0.1:0 p2ps://127.0.0.1:4001
//! ```
//! Then type `append TEXT`, `insert LINE TEXT`, `replace LINE TEXT`, `delete LINE`, `show` or `quit`.

#![expect(clippy::print_stdout, reason = "a program for people")]

mod panel;
mod session;
#[path = "../common/terminal.rs"]
mod terminal;

use session::Session;
use tokio::sync::mpsc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (node, messages, name) = terminal::enter("community_panel").await?;
    println!("{name}: others join by {}", node.access_point());
    println!("{}", session::ORDERS);
    let (said, mut lines) = mpsc::channel(64);
    let session = tokio::spawn(Session::new(node, messages, said).run(terminal::typed_lines()));
    while let Some(line) = lines.recv().await {
        println!("{line}");
    }
    Ok(session.await??)
}
