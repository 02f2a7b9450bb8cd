//! Files to blocks: lines, words, and the files that they include.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Block, Condition, ConfigError, Criterion, Place, Subject};
use crate::backend::ssh::hostkey::match_pattern;

/// The longest file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// How deep files may include each other, as in OpenSSH.
const DEPTH_MAX: usize = 16;

/// The most files that are read in all.
const FILES_MAX: usize = 1_000;

/// What is read of a block; all else is about other things than how a host is reached.
const KEYWORDS: [&str; 7] =
    ["hostname", "port", "user", "identityfile", "hostkeyalias", "proxyjump", "proxycommand"];

/// The blocks of the file at `path` and of what it includes; none, where there is no such file.
pub(super) fn blocks(path: &Path) -> Result<Vec<Block>, ConfigError> {
    match read(path) {
        Ok(text) => blocks_in(path, &text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(ConfigError::Read { path: path.to_owned(), source }),
    }
}

/// The blocks of `text`, which stands at `path`.
pub(super) fn blocks_in(path: &Path, text: &str) -> Result<Vec<Block>, ConfigError> {
    let base = path.parent().unwrap_or(path).to_owned();
    let mut reader = Reader { base, blocks: Vec::new(), files: 1 };
    reader.file(path, text, &[], 0)?;
    Ok(reader.blocks)
}

struct Reader {
    /// Where files are sought whose path is relative.
    base: PathBuf,
    blocks: Vec<Block>,
    files: usize,
}

impl Reader {
    /// Reads a file whose every line holds only where `outer` does.
    fn file(
        &mut self,
        path: &Path,
        text: &str,
        outer: &[Condition],
        depth: usize,
    ) -> Result<(), ConfigError> {
        let path: Arc<Path> = path.into();
        let mut conditions = outer.to_vec();
        self.begin(&conditions);
        for (line, text) in (1..).zip(text.lines()) {
            let place = Place { path: Arc::clone(&path), line };
            let Some((keyword, rest)) = keyword(text) else { continue };
            match keyword.as_str() {
                "host" | "match" => {
                    let words = words(rest);
                    let criteria = if keyword == "host" { host(words) } else { matching(words, &place)? };
                    conditions.truncate(outer.len());
                    conditions.push(Condition { place, criteria });
                    self.begin(&conditions);
                }
                "include" => {
                    for pattern in words(rest) {
                        self.include(&pattern, &place, &conditions, depth + 1)?;
                    }
                    self.begin(&conditions);
                }
                // Its value goes to the end of the line.
                "proxycommand" => self.setting(keyword, rest.to_owned()),
                _ if KEYWORDS.contains(&keyword.as_str()) => {
                    if let Some(value) = words(rest).into_iter().next() {
                        self.setting(keyword, value);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn begin(&mut self, conditions: &[Condition]) {
        self.blocks.push(Block { conditions: conditions.to_vec(), settings: Vec::new() });
    }

    fn setting(&mut self, keyword: String, value: String) {
        if let Some(block) = self.blocks.last_mut() {
            block.settings.push((keyword, value));
        }
    }

    /// Files that are not there, or not for us, are passed over, as in OpenSSH.
    fn include(
        &mut self,
        pattern: &str,
        place: &Place,
        conditions: &[Condition],
        depth: usize,
    ) -> Result<(), ConfigError> {
        let pattern = match (pattern.strip_prefix("~/"), std::env::home_dir()) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => self.base.join(pattern),
        };
        for path in matching_files(&pattern) {
            let Ok(text) = read(&path) else { continue };
            self.files += 1;
            if depth > DEPTH_MAX || self.files > FILES_MAX {
                let message = format!(
                    "files include each other more than {DEPTH_MAX} deep, or are more than {FILES_MAX}: is there a circle?"
                );
                return Err(place.error(message));
            }
            self.file(&path, &text, conditions, depth)?;
        }
        Ok(())
    }
}

fn read(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    fs::read_to_string(path)
}

/// A line's keyword, in lower case, and the rest.
fn keyword(line: &str) -> Option<(String, &str)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let is_end = |character: char| character.is_whitespace() || character == '=';
    let (keyword, rest) = line.split_at(line.find(is_end).unwrap_or(line.len()));
    Some((keyword.to_lowercase(), rest.trim_start_matches(is_end).trim()))
}

/// The words of a value: in quotes where there are spaces in them, up to a comment.
fn words(value: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut is_quoted = false;
    for character in value.chars() {
        match character {
            '"' => {
                is_quoted = !is_quoted;
                word.get_or_insert_default();
            }
            '#' if !is_quoted && word.is_none() => break,
            _ if character.is_whitespace() && !is_quoted => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}

fn host(patterns: Vec<String>) -> Vec<Criterion> {
    let patterns = patterns.into_iter().map(|pattern| pattern.to_lowercase()).collect();
    vec![Criterion { subject: Subject::OriginalHost, is_negated: false, patterns }]
}

/// `Match`'s criteria.
fn matching(words: Vec<String>, place: &Place) -> Result<Vec<Criterion>, ConfigError> {
    let mut words = words.into_iter();
    let mut criteria = Vec::new();
    while let Some(word) = words.next() {
        // Newer versions take `host=a` for `host a`.
        let (name, attached) =
            word.split_once('=').map_or((&*word, None), |(name, value)| (name, Some(value)));
        let name = name.to_lowercase();
        let (name, is_negated) = name.strip_prefix('!').map_or((&*name, false), |name| (name, true));
        let subject = match name {
            "all" => Subject::All,
            "host" => Subject::Host,
            "originalhost" => Subject::OriginalHost,
            "user" => Subject::User,
            "localuser" => Subject::LocalUser,
            _ => Subject::Other(name.to_owned()),
        };
        // These two stand for themselves; any other has a value.
        let patterns = match name {
            "all" => vec!["*".to_owned()],
            "canonical" | "final" => Vec::new(),
            _ => {
                let value = attached.map(str::to_owned).or_else(|| words.next());
                let value = value.ok_or_else(|| place.error(format!("`{name}` has no patterns")))?;
                value.split(',').map(str::to_owned).collect()
            }
        };
        criteria.push(Criterion { subject, is_negated, patterns });
    }
    for criterion in criteria.iter_mut().filter(|criterion| criterion.is_about_hosts()) {
        criterion.patterns.iter_mut().for_each(|pattern| *pattern = pattern.to_lowercase());
    }
    if criteria.is_empty() {
        return Err(
            place.error("`Match` wants a criterion: all, host, originalhost, user or localuser".into())
        );
    }
    if criteria.len() > 1 && criteria.iter().any(|criterion| criterion.subject == Subject::All) {
        return Err(place.error("`all` stands alone in a `Match`".into()));
    }
    Ok(criteria)
}

/// The files that a path with `*` and `?` in it means, sorted. A name that begins with a dot is meant only by one that does.
fn matching_files(pattern: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for component in pattern.components() {
        let name = component.as_os_str();
        let text = name.as_encoded_bytes();
        if !text.iter().any(|byte| b"*?".contains(byte)) {
            found.iter_mut().for_each(|path| path.push(name));
            continue;
        }
        let mut next = Vec::new();
        for directory in &found {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                let entry_name = entry.file_name();
                let is_hidden = entry_name.as_encoded_bytes().starts_with(b".") && !text.starts_with(b".");
                if !is_hidden && match_pattern(text, entry_name.as_encoded_bytes()) {
                    next.push(directory.join(entry_name));
                }
            }
        }
        next.sort_unstable();
        next.truncate(FILES_MAX);
        found = next;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::{Asked, Proxy, SshConfig};
    use super::*;

    #[test]
    fn included_files_hold_where_the_block_around_them_does() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        file(
            "config",
            "Include conf.d/*.conf nothing\nHost in-*\nInclude inner\nPort 7\nHost *\nUser last\nInclude \"with space\"\n",
        );
        file("conf.d/2.conf", "Host b\nUser second\n");
        file("conf.d/1.conf", "Host b\nUser first\nHost a\nUser a\n");
        file("conf.d/.hidden.conf", "User hidden\n");
        file("conf.d/other", "User other\n");
        file("inner", "ProxyJump gate\nHost in-2\nHostName two\n");
        file("with space", "HostKeyAlias spaced\n");
        let config = SshConfig::load(&directory.path().join("config")).unwrap();
        let host = |name| config.host(Asked { name, user: None, own_user: None }).unwrap();
        assert_eq!(host("b").user.as_deref(), Some("first"));
        assert_eq!(host("a").user.as_deref(), Some("a"));
        let inner = host("in-2");
        assert_eq!((inner.host_name.as_deref(), inner.port), (Some("two"), Some(7)));
        assert_eq!(inner.proxy, Some(Proxy::Jump("gate".into())));
        assert_eq!((host("in-1").host_name, host("in-1").port), (None, Some(7)), "the block goes on");
        let outer = host("out");
        assert_eq!((outer.proxy, outer.port, outer.user.as_deref()), (None, None, Some("last")));
        assert_eq!(outer.host_key_alias.as_deref(), Some("spaced"));
        assert!(SshConfig::load(&directory.path().join("none")).unwrap().blocks.is_empty());
    }

    #[test]
    fn a_circle_of_files_is_a_mistake_with_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config");
        fs::write(&path, "User me\nInclude config\n").unwrap();
        let error = SshConfig::load(&path).unwrap_err().to_string();
        assert!(error.contains("config:2: ") && error.contains("circle"), "{error}");
    }

    #[test]
    fn words_end_at_spaces_and_comments() {
        assert_eq!(words("a \"b c\"d  # e"), ["a", "b cd"]);
        assert_eq!(words("a#b"), ["a#b"]);
        assert_eq!(keyword("  Port = 22 "), Some(("port".to_owned(), "22")));
    }
}
