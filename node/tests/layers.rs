//! The house keeps its shape: imports run downward only, in the order in which each crate's `lib.rs` lists its modules; the
//! protocol knows no clock, socket, task or global randomness; files stay readable.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::{Path, PathBuf};

/// The longest file, in lines before its tests.
const FILE_LINES_MAX: usize = 600;

/// Rooms whose code is pure.
const PURE: [&str; 7] = ["core", "services", "peer", "message", "id", "sim", "swarm"];

/// Words that pure code has no use for.
const IMPURE_WORDS: [&str; 7] =
    ["std::time::Instant", "SystemTime", "tokio", "TcpStream", "std::thread", "HashMap", "rand::rng"];

/// Source files: the room each belongs to, its path, and its text without the tests.
struct Source {
    room: String,
    path: PathBuf,
    code: String,
}

fn crates() -> [PathBuf; 2] {
    let node = Path::new(env!("CARGO_MANIFEST_DIR"));
    [node.to_owned(), node.with_file_name("orchestrator")]
}

/// The rooms of a crate from the bottom up, as its `lib.rs` lists them; binaries stand on top.
fn rooms(root: &Path) -> Vec<String> {
    let library = fs::read_to_string(root.join("src/lib.rs")).unwrap();
    let listed = library.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    listed.chain(["main"]).map(str::to_owned).collect()
}

fn sources(root: &Path) -> Vec<Source> {
    let mut folders = vec![root.join("src")];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let inside = path.strip_prefix(root.join("src")).unwrap();
                let first = inside.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
                let room = first.trim_end_matches(".rs").to_owned();
                let text = fs::read_to_string(&path).unwrap();
                let tests = ["mod tests", "pub(crate) mod tests"]
                    .map(|tests| text.find(&format!("#[cfg(test)]\n{tests} {{")));
                let end = tests.into_iter().flatten().min().unwrap_or(text.len());
                let code = text[..end].to_owned();
                sources.push(Source { room, path, code });
            }
        }
    }
    sources
}

/// The rooms that a line of code names: `crate::room` or, in a crate's binaries, `p2ps::room`.
fn rooms_named<'a>(source: &'a Source, library: &str) -> Vec<(usize, &'a str)> {
    let own = if source.room == "main" { format!("{library}::") } else { "crate::".to_owned() };
    let mut named = Vec::new();
    for (number, line) in
        source.code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"))
    {
        for (start, _) in line.match_indices(&own) {
            let rest = &line[start + own.len()..];
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            named.push((number + 1, &rest[..end]));
        }
    }
    named
}

#[test]
fn imports_run_downward_only() {
    let mut checked = 0;
    for root in crates() {
        let library = if root.ends_with("node") { "p2ps" } else { "p2ps_orchestrator" };
        let rooms = rooms(&root);
        let level = |room: &str| rooms.iter().position(|other| other == room);
        for source in sources(&root).iter().filter(|source| source.room != "lib") {
            let here = level(&source.room)
                .unwrap_or_else(|| panic!("{} is in no room of lib.rs", source.path.display()));
            for (line, room) in rooms_named(source, library) {
                let Some(there) = level(room) else { continue };
                assert!(
                    there <= here,
                    "{}:{line} imports upward: {} uses {room}",
                    source.path.display(),
                    source.room
                );
                checked += 1;
            }
        }
    }
    assert!(checked > 50, "only {checked} imports were found: the walk is broken");
}

#[test]
fn the_protocol_is_pure() {
    let [node, _] = crates();
    let pure: Vec<Source> = sources(&node).into_iter().filter(|s| PURE.contains(&s.room.as_str())).collect();
    assert!(pure.len() > 10);
    for source in pure {
        for word in IMPURE_WORDS {
            let code = source.code.lines().filter(|line| !line.trim_start().starts_with("//"));
            let found = code.clone().any(|line| line.contains(word));
            assert!(!found, "{} uses {word}", source.path.display());
        }
    }
}

#[test]
fn files_stay_readable() {
    for source in crates().iter().flat_map(|root| sources(root)) {
        let lines = source.code.lines().count();
        assert!(lines <= FILE_LINES_MAX, "{} has {lines} lines", source.path.display());
    }
}
